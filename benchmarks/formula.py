"""The neuron written down straight, in double precision; every contestant is compared with it.

The formula follows the contestant's own spikes: given those before, is each spike what the
definition says? So a decision that rounding turned (a tie) cannot spread over the steps after it.

    u[t] = decay · v[t-1] + x[t];   h[t] = norm(u[t]);   s[t] = 1 where h[t] is past the threshold
    v[t] = c[t] (1 - s[t])          c = u carries the raw potential, c = h the normalized one
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.contestant import DECAY, THRESHOLD, Check

TIE = 1e-4  # a potential so close to the threshold may be decided either way, > or >=
# Of the difference's norm, relative. Rounding is 1e-6 of it; a potential that rounding pushes over
# the edge of a surrogate's window counts for more.
GRADIENT_TOLERANCE = 1e-2

Soft = Callable[[Tensor], Tensor]


def tanh_window(z: Tensor) -> Tensor:
    """The step whose derivative is the official MPBN surrogate (spikefold's default), k = 3."""
    return torch.tanh(3 * z.clamp(-0.5, 0.5)) / (2 * math.tanh(1.5))


def sigmoid(z: Tensor) -> Tensor:
    """SpikingJelly's default, alpha = 4."""
    return torch.sigmoid(4 * z)


def atan(z: Tensor) -> Tensor:
    """The arctangent of snnTorch, alpha = 2."""
    return torch.atan(math.pi * z) / math.pi


def superspike(z: Tensor) -> Tensor:
    """Norse's default, on potentials that are 0.75 of ours; 1.1.0 does not look at its alpha."""
    return 0.75 * z / (1 + 0.75 * z.abs())


@dataclass(frozen=True)
class Definition:
    """What a contestant says it computes.

    Arguments:
        norm: batch norm of the potential over all but its channels; None: none.
        batch_statistics: whether it takes the batch's statistics (training) or the running ones.
        carries_normalized: whether h, not u, is carried to the next step (SpikingJelly's MPBN).
        soft: the step whose derivative is the surrogate.
        detach_reset: whether the reset lets no gradient through.
    """

    norm: nn.Module | None = None
    batch_statistics: bool = True
    carries_normalized: bool = False
    soft: Soft = tanh_window
    detach_reset: bool = False


def potentials(
    x: Tensor, spikes: Tensor, definition: Definition, affine: tuple[Tensor, ...] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """Potentials at the firing decision, and spikes with the surrogate's gradient, step by step.

    Arguments:
        x: currents `[T, N, C, H, W]`.
        spikes: the contestant's.
        definition: what it says it computes.
        affine: gain and shift of the norm, in double precision.
    """
    v = torch.zeros_like(x[0])
    decided, fired = [], []
    for x_t, s in zip(x, spikes, strict=True):
        u = DECAY * v + x_t
        h = u if definition.norm is None else normalize(u, definition, *affine)
        soft = definition.soft(h - THRESHOLD)
        s = s + (soft - soft.detach())  # the value is s exactly, the gradient the surrogate's
        carried = h if definition.carries_normalized else u
        v = carried * (1 - (s.detach() if definition.detach_reset else s))
        decided.append(h)
        fired.append(s)
    return decided, fired


def normalize(u: Tensor, definition: Definition, gain: Tensor, shift: Tensor) -> Tensor:
    """Batch norm of `[N, C, H, W]` from its definition."""
    norm = definition.norm
    if definition.batch_statistics:
        mean, variance = u.mean((0, 2, 3)), u.var((0, 2, 3), correction=0)
    else:
        mean, variance = norm.running_mean.double(), norm.running_var.double()
    columns = (c[:, None, None] for c in (mean, torch.rsqrt(variance + norm.eps) * gain, shift))
    center, scale, offset = columns
    return (u - center) * scale + offset


def affine_of(definition: Definition) -> tuple[Tensor, ...]:
    """Copies of the norm's gain and shift, in double precision; empty without a norm."""
    norm = definition.norm
    return () if norm is None else (norm.weight.detach().double(), norm.bias.detach().double())


@torch.no_grad()
def wrong_spikes(x: Tensor, spikes: Tensor, definition: Definition) -> int:
    """How many spikes are not what the definition says, ties apart."""
    s = spikes.double()
    decided, _ = potentials(x.double(), s, definition, affine_of(definition))
    margin = torch.stack(decided) - THRESHOLD
    wrong = (s != (margin > 0).double()) & (margin.abs() > TIE)
    return int(wrong.sum())


def gradient_error(
    x: Tensor, spikes: Tensor, grad: Tensor, found: list[Tensor], definition: Definition
) -> float:
    """Largest relative error of the gradients with respect to x, gain and shift.

    Arguments:
        x: currents.
        spikes: the contestant's.
        grad: gradient with respect to the spikes.
        found: the contestant's gradients, of x and where there is a norm of its gain and shift.
        definition: what it says it computes.
    """
    leaves = [leaf.requires_grad_() for leaf in (x.detach().double(), *affine_of(definition))]
    _, fired = potentials(leaves[0], spikes.detach().double(), definition, tuple(leaves[1:]))
    expected = torch.autograd.grad(torch.stack(fired), leaves, grad.double())
    return max(
        float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)
    )


def check_training(
    x: Tensor, spikes: Tensor, grad: Tensor, found: list[Tensor], definition: Definition
) -> Check:
    """Spikes and gradients of a layer; see `wrong_spikes` and `gradient_error`."""
    wrong = wrong_spikes(x, spikes, definition)
    error = gradient_error(x, spikes, grad, found, definition)
    return Check(
        wrong == 0 and error < GRADIENT_TOLERANCE,
        f"{wrong} of {spikes.numel()} spikes wrong, gradients within {error:.0e}",
    )
