"""Neurons of SpikingJelly 2.0.0 as ours, read from their attributes.

    theirs:  u = v - v / tau + x,  or  v + (x - v) / tau  (decay_input);   fires at u >= threshold
    ours:    u = (1 - 1 / tau) v + x;                                      fires at u > theta

With `decay_input`, ours is theirs times tau, and so are theta and what a soft reset subtracts.
Theta is the last potential at which theirs is silent after a reset: for plain neurons the number
before the threshold. Where tau is 2 (without `decay_input`) or nothing leaks, the potentials are
equal to the bit; else they are rounded differently, which is measured and reported.

The MPBN node carries the normalized potential on, the paper's the raw one:

    h = norm(u) = a u + b = (a (1 - 1 / tau)) h' + norm(x),   a = gamma / sqrt(variance + eps)

which is a LIF with a decay for each channel and a fixed normalization of its input. It is exact in
evaluation; training it is training another neuron, so its statistics stay as they are.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold import dynamics
from spikefold.adopt._foreign import Notes, require_plain, require_step
from spikefold.adopt._rounding import Charge, Rounding, Side, compare, random_currents
from spikefold.dynamics import (
    Atan,
    Condition,
    Neuron,
    Rectangle,
    Reset,
    Sigmoid,
    Surrogate,
    Tanh,
    Triangle,
)
from spikefold.errors import AdoptError
from spikefold.folding import last_silent
from spikefold.nn import FoldedLIF, SpikingLayer


class Leak(NamedTuple):
    """How a node charges.

    Attributes:
        decay: what is left of the potential.
        gain: what of the input is taken.
        theirs: from input and potential, with their rounding.
    """

    decay: float
    gain: float
    theirs: Charge


def _none(node: Any) -> Leak:
    return Leak(1.0, 1.0, lambda x, v: v + x)


def _constant(node: Any) -> Leak:
    tau = node.tau
    if node.decay_input:
        return Leak(1 - 1 / tau, 1 / tau, lambda x, v: v + (x - v) / tau)
    return Leak(1 - 1 / tau, 1.0, lambda x, v: v - v / tau + x)


def _learnt(node: Any) -> Leak:
    rate = node.w.detach().cpu().sigmoid()
    if node.decay_input:
        return Leak(1 - rate.item(), rate.item(), lambda x, v: v + (x - v) * rate)
    return Leak(1 - rate.item(), 1.0, lambda x, v: v - v * rate + x)


LEAKS: dict[str, Callable[[Any], Leak]] = {
    "IFNode": _none,
    "SimpleIFNode": _none,
    "LIFNode": _constant,
    "SimpleLIFNode": _constant,
    "MPBNLIFNode": _constant,
    "ParametricLIFNode": _learnt,
}

# By their name; `scale` is by how much our potential is smaller.
SURROGATES: dict[str, Callable[[Any, float], Surrogate]] = {
    "Sigmoid": lambda theirs, scale: Sigmoid(theirs.alpha * scale),
    "ATan": lambda theirs, scale: Atan(theirs.alpha * scale),
    "PiecewiseQuadratic": lambda theirs, scale: Triangle(1 / (theirs.alpha * scale)),
    "Rect": lambda theirs, scale: Rectangle(1 / (theirs.alpha * scale)),
}


class Frozen(SpikingLayer):
    """A layer that stays in evaluation mode: its batch norm keeps its statistics."""

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in evaluation mode."""
        return super().train(False)


def neurons(what: str, node: Any, dtype: torch.dtype, notes: Notes) -> nn.Module:
    """What computes as a node of SpikingJelly does.

    Arguments:
        what: place and class of the node, for messages.
        node: one of `LEAKS`.
        dtype: of its potentials.
        notes: of what is not the same.

    Raises:
        AdoptError: if nothing here does.
    """
    require_plain(what, node)
    try:
        return _neurons(what, node, dtype, notes)
    except AttributeError as error:
        raise AdoptError(f"{what}: is none of SpikingJelly 2.0.0: {error}") from error


@torch.no_grad()
def _neurons(what: str, node: Any, dtype: torch.dtype, notes: Notes) -> nn.Module:
    if node.v_reset not in (None, 0.0):
        raise AdoptError(
            f"{what}: v_reset={node.v_reset}: only 0.0 (hard reset) and None (soft) can be imported"
        )
    if getattr(node, "_neuron_precision", None) is not None:
        raise AdoptError(f"{what}: has a precision of its own, {node._neuron_precision}")
    require_step(what, node.surrogate_function, at_zero=1.0)
    make = _normalizing if isinstance(getattr(node, "vbn", None), _BatchNorm) else _plain
    return make(what, node, dtype, notes)


def _plain(what: str, node: Any, dtype: torch.dtype, notes: Notes) -> FoldedLIF:
    """Neurons whose potential is theirs / gain."""
    leak = LEAKS[type(node).__name__](node)
    threshold, subtracted = _thresholds(what, node, dtype)
    constants = _constants(what, node, leak.decay, subtracted, leak.gain, notes)

    def fires(u: Tensor) -> Tensor:
        return u - threshold >= 0

    def fires_from_rest(x: Tensor) -> Tensor:
        return fires(leak.theirs(x, torch.zeros_like(x)))

    theta = last_silent(fires_from_rest, threshold.shape, dtype, torch.device("cpu"))
    theirs = Side(leak.theirs, fires, dataclasses.replace(constants, threshold=subtracted))
    ours = Side(lambda x, v: v * leak.decay + x, lambda u: u > theta, constants)
    spread = (threshold.abs() / leak.gain).nan_to_num(1.0, 1.0)
    currents = random_currents(torch.zeros_like(spread), spread)
    _note_rounding(what, compare(theirs, ours, leak.gain, currents), notes)
    return FoldedLIF(Condition(None, theta[None]), constants)


def _normalizing(what: str, node: Any, dtype: torch.dtype, notes: Notes) -> Frozen:
    """Neurons whose potential is their normalized one."""
    leak = LEAKS[type(node).__name__](node)
    threshold, subtracted = _thresholds(what, node, dtype)
    constants = _constants(what, node, leak.decay, subtracted, 1.0, notes)
    norm: Any = copy.deepcopy(node.vbn).cpu()
    if norm.running_mean is None or norm.running_var is None or not norm.affine:
        raise AdoptError(f"{what}: its batch norm has no running statistics, gain or shift")
    fixed = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    scale = dynamics.scale(norm.weight.double(), norm.running_var.double(), norm.eps)
    decay = (scale * leak.decay).to(dtype)
    of_input = copy.deepcopy(norm)  # norm(gain · x), as one of x
    of_input.running_mean.div_(leak.gain)
    of_input.weight.mul_(leak.gain)
    ours_fixed = (of_input.running_mean, norm.running_var, of_input.weight, norm.bias)

    def fires(h: Tensor) -> Tensor:
        return h - threshold >= 0

    def their_charge(x: Tensor, v: Tensor) -> Tensor:
        return F.batch_norm(leak.theirs(x, v), *fixed, eps=norm.eps)

    def our_charge(x: Tensor, v: Tensor) -> Tensor:
        return v * decay + dynamics.normalize(x, *ours_fixed, norm.eps)

    theta = last_silent(fires, threshold.shape, dtype, torch.device("cpu"))
    theirs = Side(their_charge, fires, constants)
    ours = Side(our_charge, lambda h: h > theta, constants)
    currents = random_currents(of_input.running_mean, norm.running_var.sqrt())
    _note_rounding(what, compare(theirs, ours, 1.0, currents), notes)
    made = FoldedLIF(Condition(None, theta[None]), constants, decay)
    return Frozen(nn.Identity(), of_input, made)


def _note_rounding(what: str, rounding: Rounding, notes: Notes) -> None:
    if rounding.unequal:
        notes.add(what, f"rounded otherwise than in SpikingJelly: {rounding}")


def _constants(
    what: str, node: Any, decay: float, subtracted: float, gain: float, notes: Notes
) -> Neuron:
    """Of neurons whose potential is theirs / gain."""
    reset: Reset = "soft" if node.v_reset is None else "hard"
    surrogate = _surrogate(what, node.surrogate_function, gain, notes)
    return Neuron(decay, subtracted / gain, reset, surrogate, node.detach_reset)


def _thresholds(what: str, node: Any, dtype: torch.dtype) -> tuple[Tensor, float]:
    """With what the potential is compared, `[]` or `[C]`, and what a soft reset subtracts."""
    given = node.v_threshold
    if isinstance(given, Tensor) and node.v_reset is None:
        raise AdoptError(f"{what}: a soft reset by a threshold for each channel has no counterpart")
    subtracted = 1.0 if isinstance(given, Tensor) else float(given)  # no soft reset: not used
    if getattr(node, "learnable_vth", False):
        return node.a.cpu().exp(), subtracted
    if getattr(node, "fold_bn", False):
        if node.normalize_residual:
            raise AdoptError(f"{what}: normalize_residual=True has no counterpart")
        variance = torch.sqrt(node.sigma2 + node.eps)
        return ((given - node.beta) * variance / node.gamma + node.mu).cpu(), subtracted
    return torch.tensor(subtracted, dtype=dtype), subtracted


def _surrogate(what: str, theirs: Any, scale: float, notes: Notes) -> Surrogate:
    kind = type(theirs)
    known = kind.__module__.startswith("spikingjelly.") and kind.__name__ in SURROGATES
    if not known:
        notes.add(
            what, f"surrogate {kind.__name__} has no counterpart: gradients are those of Tanh"
        )
        return Tanh()
    return SURROGATES[kind.__name__](theirs, scale)
