"""The fold: membrane normalization into firing thresholds, without changing a spike."""

from collections.abc import Callable
from typing import TypeVar, cast, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.dynamics import Condition, Normalization
from spikefold.errors import ConfigError, FoldError
from spikefold.folding._threshold import last_silent
from spikefold.nn import (
    LIF,
    FoldedLIF,
    MembraneNorm,
    SpikingNeuron,
    WithSpikes,
    attached,
    copied,
    replaced,
    strange,
    transformed,
)

ModelT = TypeVar("ModelT", bound=nn.Module)


@torch.no_grad()
def exact_thresholds(
    condition: Condition, threshold: float, like: Float[Tensor, "*shape"] | None = None
) -> Condition:
    """Theta and polarity with h > threshold <=> polarity · u > polarity · theta, exactly.

    For a normalization, in real arithmetic, theta = (threshold - beta) · sqrt(variance + eps) /
    gamma + mean. In floating point that is off by an ulp or more for most channels; evaluation's
    potential, however, is monotone in u, and the bisection runs `condition.potential`, the very
    one. It holds for every finite u whose distance from the mean is finite as well.

    Arguments:
        condition: with fixed statistics, float32 or float64: of neurons in evaluation mode,
            `condition()`. One that is not a `Normalization` is tried at 10,000 potentials, and
            assumed to be monotone between them.
        threshold: firing threshold.
        like: any tensor of the neurons' shape, dtype and device, where the condition has none.

    Returns:
        theta (±inf for a neuron that never or always fires) and polarity (+1; -1 where the neuron
        fires below theta), for each time step at which the condition differs.

    Raises:
        FoldError: if statistics or parameters are not finite, a variance is negative, or a
            custom condition is not monotone; if this thread flushes denormal numbers to zero.
    """
    _require_denormals()
    if isinstance(condition.norm, Normalization):
        _check(condition.norm)
    like = _one_step(condition, like)
    found = [_thresholds_at(condition, t, threshold, like) for t in range(condition.steps() or 1)]
    theta, polarity = (torch.stack(values) for values in zip(*found, strict=True))
    return Condition(None, theta, polarity)


def _thresholds_at(
    condition: Condition, t: int, threshold: float, like: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Theta and polarity of time step t."""

    def potential(u: Tensor) -> Tensor:
        return condition.potential(u[None], t)[0][0]

    def fires(u: Tensor) -> Tensor:
        return dynamics.is_above(potential(u), threshold)

    norm, one = condition.norm, torch.ones_like(like)
    if not isinstance(norm, Normalization):
        polarity = _direction(potential, like)
        return polarity * _last_silent(lambda u: fires(polarity * u), like), polarity
    assert norm.fixed is not None
    mean, variance = (dynamics.of_step(value, t) for value in norm.fixed)
    gain = dynamics.of_step(norm.gain, t)
    # a negative gain turns the comparison: searched as if u had the other sign
    polarity = torch.where(gain < 0, -one, one)
    theta = polarity * _last_silent(lambda u: fires(polarity * u), like)
    # A factor of 0 makes h constant. The search does not count there: u - mean may overflow, and
    # inf · 0 is NaN.
    constant = dynamics.scale(gain, variance, norm.eps) == 0
    limit = torch.where(fires(mean.expand_as(like)), -torch.inf * one, torch.inf * one)
    return torch.where(constant, limit, theta), torch.where(constant, one, polarity)


def _last_silent(fires: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    return last_silent(fires, like.shape, like.dtype, like.device)


SAMPLES = 10_000


def _direction(potential: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """+1 where the potential rises with u, -1 where it falls, at `SAMPLES` ordered u.

    Raises:
        FoldError: with the first u at which it does neither.
    """
    half = torch.logspace(-8, 8, SAMPLES // 2, dtype=like.dtype, device=like.device)
    values = torch.cat([-half.flip(0), half])
    h = torch.stack([potential(torch.full_like(like, u)) for u in values.tolist()])
    if not bool(torch.isfinite(h).all()):
        raise FoldError("its firing condition is NaN or infinite for some potential")
    rises, falls = (h.diff(dim=0) >= 0).all(0), (h.diff(dim=0) <= 0).all(0)
    if not bool((rises | falls).all()):
        change = h.diff(dim=0).sign()
        turned = ((change > 0).any(0) & (change < 0).any(0)).flatten().nonzero()[0]
        signs = change.flatten(1)[:, turned].flatten()
        first = signs[signs != 0][0]
        at = int((signs == -first).nonzero()[0])
        raise FoldError(
            f"its firing condition is not monotone in the potential: it turns at u = "
            f"{values[at].item():g}, so no threshold decides as it does"
        )
    return torch.where(rises, torch.ones_like(like), -torch.ones_like(like))


def _require_denormals() -> None:
    # torch sets this mode, but does not tell it
    smallest = torch.tensor([torch.finfo(torch.float32).tiny], dtype=torch.float32)
    if bool(smallest / 2 == 0):
        raise FoldError(
            "denormal numbers are flushed to zero, and thresholds found so do not hold elsewhere: "
            "torch.set_flush_denormal(False), fold, verify"
        )


def _check(norm: Normalization) -> None:
    """Refuse what has no threshold."""
    if norm.fixed is None:
        raise FoldError("the normalization takes the statistics of each batch: nothing is fixed")
    mean, variance = norm.fixed
    named = {
        "running mean": mean,
        "running variance": variance,
        "gain": norm.gain,
        "shift": norm.shift,
    }
    for name, tensor in named.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            raise FoldError(f"{name} is {tensor.dtype}: fold needs float32 or float64")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise FoldError(f"{name} has {bad} of {tensor.numel()} values that are NaN or infinite")
    if bool((variance < 0).any()):
        raise FoldError("running variance has negative values")
    if bool(((variance + norm.eps == 0) & (norm.gain == 0)).any()):
        raise FoldError("gain and variance + eps are both 0 in a channel: 0 / 0 is not a potential")


def _foldable(neuron: SpikingNeuron) -> Condition | None:
    """The condition to be folded, None if there is nothing to fold.

    Raises:
        FoldError: if they do something else besides, or it is not known what.
    """
    try:
        condition = neuron.condition()
    except NotImplementedError:  # it has an `integrate` of its own
        return None
    if condition.norm is None:
        return None
    kind = type(neuron)
    base = LIF if isinstance(neuron, LIF) else SpikingNeuron
    for method in ("forward", "step", "integrate", "fire"):
        if getattr(kind, method) is not getattr(base, method) or method in vars(neuron):
            raise FoldError(f"{kind.__name__} has a {method} of its own, which would be lost")
    if attached(neuron):
        raise FoldError(strange(neuron))
    norm = getattr(neuron, "norm", None)
    if isinstance(norm, MembraneNorm) and attached(norm):
        raise FoldError(f"its {type(norm).__name__}: {strange(norm)}")
    return condition


Thresholds = Callable[[Condition, float, Tensor | None], Condition]


def _folded(neuron: SpikingNeuron, condition: Condition, thresholds: Thresholds) -> FoldedLIF:
    found = thresholds(condition, neuron.constants.threshold, _like(neuron))
    decay = neuron.decay()
    kept = None if decay is None else decay.detach().clone()
    return FoldedLIF(found, neuron.constants, kept).eval()


def no_thresholds(condition: Condition, threshold: float, like: Tensor | None) -> Condition:
    """The shapes of `exact_thresholds`, without their values."""
    like = _one_step(condition, like)
    return Condition(None, like.new_zeros((condition.steps() or 1, *like.shape)))


def _one_step(condition: Condition, like: Tensor | None) -> Tensor:
    """A tensor of the neurons' shape, dtype and device."""
    if isinstance(condition.norm, Normalization):
        return condition.norm.gain[0]
    if like is None:
        raise FoldError("its firing condition does not tell for how many neurons it is")
    return like


def _like(neuron: SpikingNeuron) -> Tensor | None:
    """A tensor of the shape, dtype and device of the norm's parameters."""
    shape = getattr(getattr(neuron, "norm", None), "shape", None)
    if shape is None:
        return None
    tensors = (*neuron.parameters(), *neuron.buffers(), torch.zeros(()))
    first = next(tensor for tensor in tensors if tensor.is_floating_point())
    return first.new_zeros(shape)


@overload
def fold(model: LIF) -> FoldedLIF: ...
@overload
def fold(model: ModelT) -> ModelT: ...


def fold(model: nn.Module) -> nn.Module:
    """A new model whose MPBNs are folded into the firing thresholds; not one spike differs.

    Every layer of neurons whose condition is a normalization (a `LIF` with an `MPBN`) becomes a
    `FoldedLIF`, by whatever names it is reached; nothing else changes, and `model` is left as it
    is. The new model is in evaluation mode, holds no membrane normalization and none of its
    parameters. The thresholds hold for the dtype of the model: convert first, then fold.

    Arguments:
        model: any module that contains such neurons, trained.

    Returns:
        the folded model, of the same class (a bare `LIF` gives a `FoldedLIF`).

    Raises:
        FoldError: if nothing is to be folded, a statistic is NaN or infinite, neurons have
            hooks or methods of their own (the layer is named), or an MPBN stands outside a `LIF`.

    Source: Guo et al., ICCV 2023, section 4.3 (closed form); exact bisection: spikefold.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4).eval()
        >>> folded = sf.fold(network)
        >>> images = torch.rand(8, 1, 8, 8)
        >>> torch.equal(network(images), folded(images))
        True
    """
    return _fold(model, exact_thresholds)


def fold_shapes(model: ModelT) -> ModelT:
    """What `fold` makes of a network, without the thresholds' values: to be loaded into.

    Arguments:
        model: as for `fold`; may lie on the meta device.
    """
    return cast(ModelT, _fold(model, no_thresholds))


def _fold(model: nn.Module, thresholds: Thresholds) -> nn.Module:
    if any(isinstance(module, WithSpikes) for module in model.modules()):
        raise FoldError("fold the network first, then take sf.with_spikes of it")
    try:
        folded = copied(model).eval()
    except ConfigError as error:
        raise FoldError(f"fold: {error}") from error
    replacements: dict[int, nn.Module] = {}
    owned: set[int] = set()
    for name, module in folded.named_modules():
        if not isinstance(module, SpikingNeuron):
            continue
        try:
            condition = _foldable(module)
            if condition is not None:
                replacements[id(module)] = _folded(module, condition, thresholds)
                owned |= {id(part) for part in module.modules()}
        except FoldError as error:
            raise FoldError(f"layer '{name}': {error}") from error
    for name, module in folded.named_modules():
        if isinstance(module, MembraneNorm) and id(module) not in owned:
            raise FoldError(
                f"layer '{name}': an MPBN outside a LIF cannot be folded: give it to its LIF"
            )
    if not replacements:
        raise FoldError("nothing to fold: the network has no LIF with an MPBN")
    return transformed(replaced(folded, replacements), "fold")
