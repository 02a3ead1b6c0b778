"""Norms and pools as plain numbers, from the many forms in which torch has them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold import dynamics
from spikefold.export._known import ADAPTIVE_AVERAGES, ADAPTIVE_MAXIMA, MAXIMA, refused
from spikefold.export._walk import Operation
from spikefold.nn import CurrentNorm


def affine(norm: nn.Module, dims: int) -> tuple[Tensor, ...]:
    """A norm by running statistics as (x - mean) · factor + shift.

    Arguments:
        norm: a batch norm of torch, or a `CurrentNorm`.
        dims: of one sample, channels among them.

    Returns:
        mean, factor and shift: `[1, C, 1, ...]`, or `[T, C, 1, ...]` for a map of each step.
    """
    if isinstance(norm, CurrentNorm):
        known = norm.normalization()
        assert known.fixed is not None
        gain, variance = torch.broadcast_tensors(known.gain, known.fixed.variance)
        parts = known.fixed.mean, dynamics.scale(gain, variance, known.eps), known.shift
    else:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight if norm.affine else torch.ones_like(norm.running_mean)
        factor = dynamics.scale(gain, norm.running_var, norm.eps)
        shift = norm.bias if norm.affine else torch.zeros_like(factor)
        parts = norm.running_mean[None], factor[None], shift[None]
    return tuple(part.detach().reshape(*part.shape, *(1,) * (dims - 1)) for part in parts)


@dataclass(frozen=True)
class Window:
    """Over what a pool goes, a number a spatial dimension.

    Attributes:
        kernel, stride, dilation: of the window.
        begin, end: padding.
        counts: whether an average counts what is padded.
        divisor: of the sum, whatever a window counts; None: an average.
    """

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    begin: list[int]
    end: list[int]
    counts: bool
    divisor: int | None = None


def window(operation: Operation, before: tuple[int, ...]) -> Window:
    """The window of a pool, with torch's ceil_mode and adaptive sizes as kernel and padding.

    Arguments:
        operation: a pool.
        before: shape of what it takes.

    Raises:
        ExportError: if the windows of an adaptive pool differ in size, or an average counts some
            of the padding only.
    """
    module, spatial, after = operation.module, before[1:], operation.value.shape[1:]
    if isinstance(module, ADAPTIVE_AVERAGES + ADAPTIVE_MAXIMA):
        if any(size % parts for size, parts in zip(spatial, after, strict=True)):
            raise refused(
                operation.node, f"{list(spatial)} into {list(after)}: its windows differ in size"
            )
        kernel = [size // parts for size, parts in zip(spatial, after, strict=True)]
        ones, zeros = [1] * len(kernel), [0] * len(kernel)
        return Window(kernel, kernel, ones, zeros, zeros, False)
    kernel, stride, padding, dilation = (
        _each(getattr(module, key, 1), len(spatial))
        for key in ("kernel_size", "stride", "padding", "dilation")
    )
    sizes = zip(spatial, after, kernel, stride, padding, dilation, strict=True)
    end = [
        max(pad, (parts - 1) * step + reach * (width - 1) + 1 - size - pad)
        for size, parts, width, step, pad, reach in sizes
    ]
    if getattr(module, "divisor_override", None) is not None:
        return Window(kernel, stride, dilation, padding, end, True, module.divisor_override)
    counts = not isinstance(module, MAXIMA) and module.count_include_pad and any(padding)
    if counts and end != padding:
        raise refused(operation.node, "ceil_mode with padding that counts: count_include_pad=False")
    return Window(kernel, stride, dilation, padding, end, counts)


def _each(value: Any, dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value) * (dims // len(value))
