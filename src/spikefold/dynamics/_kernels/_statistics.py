"""Statistics of currents that the layer's own kernel does not take: of each step by itself."""

from typing import Any

import torch
from torch import Tensor, distributed

from spikefold.dynamics._kernels import _cpu, _memory
from spikefold.dynamics._kernels._fused import is_plain
from spikefold.dynamics._kernels._operators import NO_SECOND_DERIVATIVE
from spikefold.dynamics._layer import statistics_of_steps as reference
from spikefold.dynamics._norm import Observed, require_samples, sample_count
from spikefold.errors import ConfigError


def statistics_of_steps(
    x: Tensor, group: distributed.ProcessGroup | None = None, samples: int | None = None
) -> Observed:
    """What the reference's function of this name does, in compiled code if it can.

    Arguments:
        x, group, samples: as there.
    """
    if not _can(x, group):
        return reference(x, group, samples)
    shape = tuple(x.shape[2:3])
    count = sample_count(x.shape[1:], shape)
    require_samples(count, tuple(x.shape[1:]), shape)
    mean, variance = _Observe.apply(x)
    return Observed(mean, variance, count)


def _can(x: Tensor, group: distributed.ProcessGroup | None) -> bool:
    return (
        _cpu.missing() is None
        and group is None
        and x.is_cpu
        and x.dtype == torch.float32
        and is_plain(x)
    )


class _Observe(torch.autograd.Function):
    """Mean and biased variance of each step, `[T, C]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        x = _memory.arranged(x, _memory.is_channels_last(x), steps_dense=True)
        found = torch.empty(2, len(x), x.shape[2])
        _cpu.observe(x, _sizes(x), found)
        mean, variance = found.unbind()
        ctx.save_for_backward(x, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """1 / n of the mean's gradient, and 2 (x - mean) / n times the variance's."""
        if torch.is_grad_enabled():
            raise ConfigError(NO_SECOND_DERIVATIVE)
        x, mean = ctx.saved_tensors
        count = sample_count(x.shape[1:], tuple(x.shape[2:3]))
        shift, gain = grads[0] / count, grads[1] * (2 / count)
        out = torch.empty_like(x)
        _cpu.transform(x, _sizes(x), mean, gain.contiguous(), shift.contiguous(), out)
        return out


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return _memory.sizes(tuple(x.shape[1:]), _memory.is_channels_last(x), elementwise=False)
