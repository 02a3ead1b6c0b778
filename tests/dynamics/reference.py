"""An independent straight-line implementation: no function of spikefold's dynamics in it."""

import math

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
