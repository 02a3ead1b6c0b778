"""Statistics of currents that the layer's own kernel does not take: of each step by itself."""

from typing import Any

import torch
from torch import Tensor, distributed

from spikefold.dynamics._kernels import _cpu, _memory
from spikefold.dynamics._kernels._fused import is_for_cpu
from spikefold.dynamics._layer import statistics_of_steps as reference
from spikefold.dynamics._norm import Observed, require_samples, sample_count


def statistics_of_steps(
    x: Tensor, group: distributed.ProcessGroup | None = None, samples: int | None = None
) -> Observed:
    """What the reference's function of this name does, in compiled code if it can.

    Arguments:
        x, group, samples: as there.
    """
    if group is not None or not is_for_cpu(x):
        return reference(x, group, samples)
    count = samples or _samples(x)
    require_samples(count, tuple(x.shape[1:]), tuple(x.shape[2:3]))
    mean, variance = _Observe.apply(x)
    return Observed(mean, variance, count)


class _Observe(torch.autograd.Function):
    """Mean and biased variance of each step, `[T, C]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        mean, variance = (x.new_empty(len(x), x.shape[2]) for _ in range(2))
        lying = _lying(x)
        _cpu.observe(lying, _sizes(lying), mean, variance)
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """1 / n of the mean's gradient, and 2 (x - mean) / n times the variance's."""
        # hooks of saved tensors may have put others in their places
        x, mean = ctx.saved_tensors
        count = _samples(x)
        shift, gain = grads[0] / count, grads[1] * (2 / count)
        if torch.is_grad_enabled() or not is_for_cpu(x, mean, *grads):
            whole = [p.reshape(len(x), 1, -1, *(1,) * (x.ndim - 3)) for p in (mean, gain, shift)]
            return (x - whole[0]) * whole[1] + whole[2]
        lying = _lying(x)
        out = torch.empty_like(lying)
        mean, gain, shift = (p.contiguous() for p in (mean, gain, shift))
        _cpu.observe_backward(lying, _sizes(lying), mean, gain, shift, out)
        return out


def _samples(x: Tensor) -> int:
    return sample_count(x.shape[1:], tuple(x.shape[2:3]))


def _lying(x: Tensor) -> Tensor:
    """As the kernels take it."""
    return _memory.arranged(x, _memory.is_channels_last(x), steps_dense=True)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return _memory.sizes(tuple(x.shape[1:]), _memory.is_channels_last(x), elementwise=False)
