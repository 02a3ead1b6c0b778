"""Averages of 2x2 windows, with gradients: torch's take far longer on contiguous tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from spikefold.dynamics._kernels import _cpu
from spikefold.dynamics._kernels._fused import is_for_cpu


def is_known(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> bool:
    """Whether the kernel computes what `avg_pool2d` does with these arguments."""
    windows = [[*pair] for pair in (kernel, stride, padding)] == [[2, 2], [2, 2], [0, 0]]
    if not windows or divisor is not None or x.ndim not in (3, 4) or not is_for_cpu(x):
        return False
    height, width = x.shape[-2:]
    whole = not (ceil_mode and (height % 2 or width % 2))
    # one channel is contiguous with strides of channels last, too, which torch hands on
    contiguous = x.is_contiguous() and x.stride(-3) == height * width
    return whole and contiguous and x.numel() > 0 and min(height, width) > 1


def average_pool(x: Tensor, *windows: Any) -> Tensor | None:
    """What `avg_pool2d` does with these arguments, to the bit; None where the kernel cannot.

    Arguments:
        x, windows: as for `is_known`.
    """
    return _Average.apply(x) if is_known(x, *windows) else None


class _Average(torch.autograd.Function):
    """Of what `is_known`, or a gradient that lies and is shaped like it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape
        *rest, height, width = x.shape
        out = x.new_empty(*rest, height // 2, width // 2)
        _cpu.average(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        if is_for_cpu(grad):
            return _Spread.apply(grad.contiguous(), ctx.size)
        alike = grad.new_empty(ctx.size)
        return torch.ops.aten.avg_pool2d_backward(
            grad, alike, [2, 2], [2, 2], [0, 0], False, True, None
        )


class _Spread(torch.autograd.Function):
    """The gradient of `_Average`, by one that is contiguous; its own gradient is an average."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, size: torch.Size) -> Tensor:
        out = grad.new_empty(size)
        _cpu.average_backward(grad, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        return (
            _Average.apply(grad.contiguous()) if is_for_cpu(grad) else avg_pool2d(grad, 2)
        ), None
