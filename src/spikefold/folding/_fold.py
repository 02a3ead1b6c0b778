"""The fold: membrane normalization into firing thresholds, with not one spike changed."""

import copy
from typing import TypeVar, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.errors import FoldError
from spikefold.folding._threshold import last_silent
from spikefold.models import Network
from spikefold.nn import LIF, MPBN, FoldedLIF

ModelT = TypeVar("ModelT", bound=nn.Module)


@torch.no_grad()
def exact_thresholds(
    norm: MPBN, threshold: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Theta and polarity with MPBN(u) > threshold <=> polarity · u > polarity · theta, exactly.

    In real arithmetic theta = (threshold - beta) · sqrt(variance + eps) / gamma + mean. In
    floating point that is off by an ulp or more for most channels; evaluation's normalization,
    however, is monotone in u, and the bisection runs that very normalization. It holds for every
    finite u whose distance from the mean is finite as well.

    Arguments:
        norm: trained normalization, float32 or float64.
        threshold: firing threshold.

    Returns:
        theta (±inf for a neuron that never or always fires) and polarity (+1; -1 where the gain
        is negative), both of the normalization's shape.

    Raises:
        FoldError: if statistics or parameters are not finite, or a variance is negative.
    """
    _check(norm)
    mean, gain = norm.running_mean, norm.gain
    polarity = torch.where(gain < 0, -1.0, 1.0).to(mean.dtype)

    def fires(u: Tensor) -> Tensor:
        return dynamics.is_above(norm.normalize(u[None])[0], threshold)

    theta = polarity * last_silent(
        lambda u: fires(polarity * u), mean.shape, mean.dtype, mean.device
    )
    # A gain that vanishes leaves a constant, whatever u; no search, for u - mean may overflow.
    constant = dynamics.scale(gain, norm.running_var, norm.eps) == 0
    always = fires(mean)
    limit = torch.where(always, -torch.inf, torch.inf).to(mean.dtype)
    theta = torch.where(constant, limit, theta)
    return theta, torch.where(constant, 1.0, polarity)


def _check(norm: MPBN) -> None:
    """Refuse what has no threshold."""
    named = {
        "running mean": norm.running_mean,
        "running variance": norm.running_var,
        "gain": norm.gain,
        "shift": norm.shift,
    }
    for name, tensor in named.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            raise FoldError(f"{name} is {tensor.dtype}: fold needs float32 or float64")
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise FoldError(f"{name} has {bad} of {tensor.numel()} values that are NaN or infinite")
    if bool((norm.running_var < 0).any()):
        raise FoldError("running variance has negative values")
    if bool(((norm.running_var + norm.eps == 0) & (norm.gain == 0)).any()):
        raise FoldError("gain and variance + eps are both 0 in a channel: 0 / 0 is no potential")


def fold_neuron(lif: LIF) -> FoldedLIF:
    """The neurons of a LIF with MPBN, folded.

    Arguments:
        lif: neurons with an MPBN.

    Raises:
        FoldError: if there is nothing to fold or the statistics are not finite.
    """
    if lif.norm is None:
        raise FoldError("the neuron has no MPBN: nothing to fold")
    theta, polarity = exact_thresholds(lif.norm, lif.neuron.threshold)
    folded = FoldedLIF(theta, polarity if bool((polarity < 0).any()) else None, lif.neuron)
    return folded.eval()


@overload
def fold(model: LIF) -> FoldedLIF: ...
@overload
def fold(model: ModelT) -> ModelT: ...


def fold(model: nn.Module) -> nn.Module:
    """A new model whose MPBNs are folded into the firing thresholds; not one spike differs.

    Every `LIF` with an `MPBN` becomes a `FoldedLIF`; nothing else changes, and `model` is left as
    it is. The new model is in evaluation mode, holds no membrane normalization and none of its
    parameters.

    Arguments:
        model: any module that contains `LIF` neurons, trained.

    Returns:
        the folded model, of the same class (a bare `LIF` gives a `FoldedLIF`).

    Raises:
        FoldError: if nothing is to be folded, a statistic is NaN or infinite (the layer is
            named), or an MPBN stands outside a `LIF`.

    Source: Guo et al., ICCV 2023, section 4.3 (closed form); exact bisection: spikefold.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4).eval()
        >>> folded = sf.fold(network)
        >>> images = torch.rand(8, 1, 8, 8)
        >>> torch.equal(network(images), folded(images))
        True
    """
    owners = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LIF) and module.norm is not None
    }
    owned = {id(lif.norm) for lif in owners.values()}
    for name, module in model.named_modules():
        if isinstance(module, MPBN) and id(module) not in owned:
            raise FoldError(
                f"layer '{name}': an MPBN outside a LIF cannot be folded: give it to its LIF"
            )
    if not owners:
        raise FoldError("nothing to fold: the network has no LIF with an MPBN")
    folded = copy.deepcopy(model).eval()
    for name, lif in owners.items():
        try:
            neuron = fold_neuron(lif)
        except FoldError as error:
            raise FoldError(f"layer '{name}': {error}") from error
        if not name:
            return neuron
        folded.set_submodule(name, neuron)
    if isinstance(folded, Network):
        folded.transforms += ("fold",)
    return folded
