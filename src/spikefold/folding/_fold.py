"""The fold: membrane normalization into firing thresholds, with not one spike changed."""

from typing import TypeVar, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.dynamics import Normalization
from spikefold.errors import ConfigError, FoldError
from spikefold.folding._threshold import last_silent
from spikefold.models import Network
from spikefold.nn import (
    LIF,
    MPBN,
    FoldedLIF,
    SpikingNeuron,
    WithSpikes,
    attached,
    copied,
    replaced,
    strange,
)

ModelT = TypeVar("ModelT", bound=nn.Module)


@torch.no_grad()
def exact_thresholds(
    norm: Normalization, threshold: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Theta and polarity with norm(u) > threshold <=> polarity · u > polarity · theta, exactly.

    In real arithmetic theta = (threshold - beta) · sqrt(variance + eps) / gamma + mean. In
    floating point that is off by an ulp or more for most channels; evaluation's normalization,
    however, is monotone in u, and the bisection runs that very normalization. It holds for every
    finite u whose distance from the mean is finite as well.

    Arguments:
        norm: with fixed statistics, float32 or float64; of an `MPBN` in evaluation mode,
            `normalization()`.
        threshold: firing threshold.

    Returns:
        theta (±inf for a neuron that never or always fires) and polarity (+1; -1 where the gain
        is negative), both of the normalization's shape.

    Raises:
        FoldError: if statistics or parameters are not finite, or a variance is negative; if this
            thread flushes denormal numbers to zero.
    """
    _check(norm)
    assert norm.fixed is not None
    mean, variance = norm.fixed
    gain, shift, eps = norm.gain, norm.shift, norm.eps
    polarity = torch.where(gain < 0, -1.0, 1.0).to(mean.dtype)

    def fires(u: Tensor) -> Tensor:
        h = dynamics.normalize(u[None], mean, variance, gain, shift, eps)[0]
        return dynamics.is_above(h, threshold)

    theta = polarity * last_silent(
        lambda u: fires(polarity * u), mean.shape, mean.dtype, mean.device
    )
    # A gain that vanishes leaves a constant, whatever u; no search, for u - mean may overflow.
    constant = dynamics.scale(gain, variance, eps) == 0
    limit = torch.where(fires(mean), -torch.inf, torch.inf).to(mean.dtype)
    theta = torch.where(constant, limit, theta)
    return theta, torch.where(constant, 1.0, polarity)


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
        raise FoldError("gain and variance + eps are both 0 in a channel: 0 / 0 is no potential")
    smallest = torch.tensor([torch.finfo(torch.float32).tiny], dtype=torch.float32)
    if bool(smallest / 2 == 0):
        raise FoldError(
            "denormal numbers are flushed to zero, and thresholds found so do not hold elsewhere: "
            "torch.set_flush_denormal(False), fold, verify"
        )


def _normalization(neuron: SpikingNeuron) -> Normalization | None:
    """What is to be folded of these neurons, None if nothing is.

    Raises:
        FoldError: if they do something else besides, or it is not known what.
    """
    try:
        condition = neuron.condition()
    except NotImplementedError:  # it does everything in a way of its own
        return None
    if condition is None or isinstance(condition, dynamics.Thresholds):
        return None
    kind = type(neuron)
    base = LIF if isinstance(neuron, LIF) else SpikingNeuron
    for method in ("forward", "step", "integrate", "fire"):
        if getattr(kind, method) is not getattr(base, method) or method in vars(neuron):
            raise FoldError(f"{kind.__name__} has a {method} of its own, which would be lost")
    if attached(neuron):
        raise FoldError(strange(neuron))
    if isinstance(condition, Normalization):
        return condition
    if isinstance(condition, MPBN) and attached(condition):
        raise FoldError(f"its {type(condition).__name__}: {strange(condition)}")
    raise FoldError(
        f"its firing condition, {type(condition).__name__}, is computed in a way of its own"
    )


def fold_neuron(neuron: SpikingNeuron) -> FoldedLIF:
    """Neurons with a membrane normalization, folded.

    Arguments:
        neuron: in evaluation mode.

    Raises:
        FoldError: if there is nothing to fold or the statistics are not finite.
    """
    norm = _normalization(neuron)
    if norm is None:
        raise FoldError("the neuron has no MPBN: nothing to fold")
    return _folded(neuron, norm)


def _folded(neuron: SpikingNeuron, norm: Normalization) -> FoldedLIF:
    theta, polarity = exact_thresholds(norm, neuron.neuron.threshold)
    return FoldedLIF(theta, polarity, neuron.neuron).eval()


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
            norm = _normalization(module)
            if norm is not None:
                replacements[id(module)] = _folded(module, norm)
                owned |= {id(part) for part in module.modules()}
        except FoldError as error:
            raise FoldError(f"layer '{name}': {error}") from error
    for name, module in folded.named_modules():
        if isinstance(module, MPBN) and id(module) not in owned:
            raise FoldError(
                f"layer '{name}': an MPBN outside a LIF cannot be folded: give it to its LIF"
            )
    if not replacements:
        raise FoldError("nothing to fold: the network has no LIF with an MPBN")
    folded = replaced(folded, replacements)
    if isinstance(folded, Network):
        folded.transforms += ("fold",)
    return folded
