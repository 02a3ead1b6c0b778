"""An independent straight-line implementation: no function of spikefold's dynamics in it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


class Step(torch.autograd.Function):
    """A step with the official window's derivative, written out anew (k = 3)."""

    @staticmethod
    def forward(ctx, h, threshold):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(h)
        ctx.threshold = threshold
        return torch.heaviside(h - threshold, torch.zeros_like(h))

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (h,) = ctx.saved_tensors
        w = h - ctx.threshold + 0.5
        slope = 3 / torch.cosh(3 * (w - 0.5)) ** 2 / (2 * math.tanh(1.5))
        return grad * slope * ((w >= 0) & (w <= 1)), None


def mpbn_lif(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    decay: float,
    threshold: float,
    soft: bool,
    detach: bool,
    eps: float,
) -> Tensor:
    """Spikes of a layer in training; gamma and beta broadcast against [N, ...]."""
    axes = [0] + [axis for axis in range(1, x.ndim - 1) if gamma.shape[axis - 1] == 1]
    v = torch.zeros_like(x[0])
    spikes = []
    for t in range(len(x)):
        u = decay * v + x[t]
        mean = u.mean(axes, keepdim=True)
        variance = ((u - mean) ** 2).mean(axes, keepdim=True)
        h = gamma * (u - mean) / (variance + eps) ** 0.5 + beta
        s = Step.apply(h, threshold)
        spikes.append(s)
        r = s.detach() if detach else s
        v = u - threshold * r if soft else u - u * r
    return torch.stack(spikes)


class Given(torch.autograd.Function):
    """The spikes that were fired, with a surrogate's derivative (tested by itself) at h."""

    @staticmethod
    def forward(ctx, h, spikes, threshold, derivative):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(h)
        ctx.threshold, ctx.derivative = threshold, derivative
        return spikes

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (h,) = ctx.saved_tensors
        return grad * ctx.derivative(h - ctx.threshold), None, None, None


def normalize(
    a: Tensor, gain: Tensor, shift: Tensor, eps: float, fixed: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Batch norm; parameters broadcast against `[N, C, ...]`, statistics fixed or the batch's."""
    axes = [0] + [axis for axis in range(1, a.ndim) if (1, *gain.shape)[axis - a.ndim] == 1]
    mean = a.mean(axes, keepdim=True) if fixed is None else fixed[0]
    variance = ((a - mean) ** 2).mean(axes, keepdim=True) if fixed is None else fixed[1]
    return gain * (a - mean) / (variance + eps) ** 0.5 + shift


def follow(
    x: Tensor,
    spikes: Tensor,
    condition: Callable[[Tensor, int], Tensor],
    *,
    thresholds: list[float] | list[Tensor],
    decay: float | Tensor,
    reset_by: float | None,
    detach: bool,
    derivative: Callable[[Tensor], Tensor],
    v: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The neuron that fires as it is told.

    Arguments:
        x: currents `[T, N, C, ...]`, float64.
        spikes: what was fired.
        condition: from the potential and the step to what is compared with its threshold.
        reset_by: what a soft reset subtracts; None resets hard.

    Returns:
        the spikes (differentiable), what was compared at each step, the last potential.
    """
    fired, compared = [], []
    for t, (x_t, s_t) in enumerate(zip(x, spikes, strict=True)):
        u = decay * v + x_t
        h = condition(u, t)
        s = Given.apply(h, s_t, thresholds[t], derivative)
        fired.append(s)
        compared.append(h.detach())
        r = s.detach() if detach else s
        v = u - u * r if reset_by is None else u - reset_by * r
    return torch.stack(fired), torch.stack(compared), v
