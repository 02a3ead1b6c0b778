"""Averages of 2x2 windows, with gradients; see `PreparedPool`."""

from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _cpu
from spikefold.dynamics._kernels._fused import is_plain
from spikefold.dynamics._kernels._prepared import PreparedPool


def average_pool(x: Tensor, *windows: Any) -> Tensor | None:
    """What `avg_pool2d` does with these arguments, to the bit; None where the kernel cannot.

    Arguments:
        x: `[N, C, H, W]`.
        windows: kernel, stride and padding as pairs, and what follows them.
    """
    return _Average.apply(x) if is_plain(x) and PreparedPool.takes(x, *windows) else None


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape
        *rest, height, width = x.shape
        out = x.new_empty(*rest, height // 2, width // 2)
        _cpu.average(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Spread.apply(grads[0], ctx.size)


class _Spread(torch.autograd.Function):
    """The gradient of `_Average`, whose own gradient is an average again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, size: torch.Size) -> Tensor:
        out = grad.new_empty(size)
        _cpu.spread(grad.contiguous(), out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Average.apply(grads[0].contiguous()), None
