"""How `[T, N, C, *spatial]` lies in memory, so that no kernel needs a copy of it."""

import math

import torch
from torch import Tensor


def _strides(shape: tuple[int, ...], last: bool) -> tuple[int, ...]:
    """Strides of a dense `[N, C, *spatial]`, contiguous or with channels last."""
    batch, channels, *spatial = shape
    order = [batch, *spatial, channels] if last else [batch, channels, *spatial]
    strides = [math.prod(order[i + 1 :]) for i in range(len(order))]
    return (strides[0], strides[-1], *strides[1:-1]) if last else tuple(strides)


def _lies(x: Tensor, last: bool) -> bool:
    """Whether every step is dense in this format; steps may be any distance apart."""
    return all(
        size <= 1 or stride == expected
        for size, stride, expected in zip(
            x.shape[1:], x.stride()[1:], _strides(tuple(x.shape[1:]), last), strict=True
        )
    )


def is_channels_last(x: Tensor) -> bool:
    """Whether channels are innermost, and not just because there is nothing else."""
    return x.ndim > 3 and not x.is_contiguous() and not _lies(x, False) and _lies(x, True)


def empty(
    front: tuple[int, ...],
    step: tuple[int, ...],
    last: bool,
    like: Tensor,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A dense tensor `[*front, N, C, *spatial]` of this format, on the device of `like`."""
    dtype = dtype or like.dtype
    if not last:
        return torch.empty((*front, *step), dtype=dtype, device=like.device)
    strides = (*(math.prod(step) for _ in front), *_strides(step, last))  # front: () or (T,)
    return torch.empty_strided((*front, *step), strides, dtype=dtype, device=like.device)


def arranged(x: Tensor, last: bool, steps_dense: bool = False) -> Tensor:
    """The tensor itself if its steps are dense in this format, else a copy that is.

    Arguments:
        x: `[T, N, C, *spatial]`.
        last: channels last, or contiguous.
        steps_dense: whether the steps must follow each other without gaps.
    """
    if not last and x.is_contiguous():
        return x
    gapless = not steps_dense or x.shape[0] <= 1 or x.stride(0) == math.prod(x.shape[1:])
    if gapless and _lies(x, last):
        return x
    steps, *step = x.shape
    return empty((steps,), tuple(step), last, x).copy_(x)


def flat(parameter: Tensor | None, last: bool) -> Tensor | None:
    """Parameters `[steps, *shape]` with every step dense, in the order of a step in memory."""
    if parameter is None:
        return None
    return (in_memory(parameter, last, 1) if last else parameter).contiguous()


def in_memory(parameters: Tensor, last: bool, front: int) -> Tensor:
    """A view with the parameters in the order of memory; `front` dimensions come before them."""
    return parameters.movedim(front, -1) if last and parameters.ndim > front + 1 else parameters


def empty_parameters(
    front: tuple[int, ...], shape: tuple[int, ...], last: bool, like: Tensor
) -> Tensor:
    """float32 `[*front, *shape]`, the parameters in the order of a step's elements in memory."""
    if last and len(shape) > 1:
        made = like.new_empty((*front, *shape[1:], shape[0]), dtype=torch.float32)
        return made.movedim(-1, len(front))
    return like.new_empty((*front, *shape), dtype=torch.float32)


def sizes(shape: tuple[int, ...], last: bool, elementwise: bool) -> tuple[int, int, int]:
    """`(rows, groups, inner)` of a step `[N, C, *spatial]`; see `Problem`."""
    batch, channels, *spatial = shape
    pixels = math.prod(spatial)
    if elementwise:
        return batch, channels * pixels, 1
    return (batch * pixels, channels, 1) if last else (batch, channels, pixels)
