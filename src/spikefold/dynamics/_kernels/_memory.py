"""How `[T, N, C, *spatial]` lies in memory, so that no kernel needs a copy of it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor


class Spec(NamedTuple):
    """A tensor that is to be made.

    Attributes:
        size, stride, dtype: its own.
        empty: makes it, with anything in it.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    empty: Callable[[], Tensor]

    def arranged(self, x: Tensor, first: int = 0) -> Tensor:
        """The tensor itself if it is like this, else a copy that is.

        Arguments:
            x: of this size, any strides and dtype; of another size, it cannot be copied.
            first: only the strides from this dimension on count.
        """
        alike = x.dtype == self.dtype and x.shape == self.size
        if alike and (x.stride() == self.stride or self.lies(x, first)):
            return x
        return self.empty().copy_(x)

    def lies(self, x: Tensor, first: int) -> bool:
        """Whether a tensor of this size has these strides, from dimension `first` on."""
        strides = zip(x.shape, x.stride(), self.stride, strict=True)
        return all(size <= 1 or one == other for size, one, other in [*strides][first:])


def dense(
    front: Sequence[int],
    shape: Sequence[int],
    channels_last: bool,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Spec:
    """`[*front, C, *spatial]` without gaps, contiguous or with channels last.

    Arguments:
        front: what comes before the channels: time, batch.
        shape: `(C, *spatial)`, or `()`.
        channels_last: else contiguous.
        device: on which it lies.
        dtype: of the elements.
    """
    first = len(front)
    order = (*front, *shape[1:], *shape[:1]) if channels_last else (*front, *shape)
    stride = tuple([math.prod(order[i + 1 :]) for i in range(len(order))])
    if channels_last and shape:
        stride = (*stride[:first], stride[-1], *stride[first:-1])
    size = (*front, *shape)
    make = partial(torch.empty_strided, size, stride, dtype=dtype, device=device)
    return Spec(size, stride, dtype, make)


def _format(x: Tensor, channels_last: bool) -> Spec:
    return dense(x.shape[:2], x.shape[2:], channels_last, x.device, x.dtype)


def is_channels_last(x: Tensor) -> bool:
    """Whether channels are innermost, and not just because there is nothing else."""
    if x.ndim <= 3 or x.is_contiguous():
        return False
    return not _format(x, False).lies(x, 1) and _format(x, True).lies(x, 1)


def arranged(x: Tensor, channels_last: bool, steps_dense: bool = False) -> Tensor:
    """The tensor itself if its steps are dense in this format, else a copy that is.

    Arguments:
        x: `[T, N, C, *spatial]`.
        channels_last: else contiguous.
        steps_dense: whether the steps must follow each other without gaps.
    """
    return _format(x, channels_last).arranged(x, 0 if steps_dense else 1)


def parameter(x: Tensor, channels_last: bool) -> Tensor:
    """The parameters `[steps, *shape]` themselves if they are dense in this format, else a copy."""
    return dense(x.shape[:1], x.shape[1:], channels_last, x.device, x.dtype).arranged(x)


def flat(parameter: Tensor | None, channels_last: bool) -> Tensor | None:
    """Parameters `[steps, *shape]` with every step dense, in the order of a step in memory."""
    if parameter is None:
        return None
    return (in_memory(parameter, channels_last, 1) if channels_last else parameter).contiguous()


def in_memory(parameters: Tensor, channels_last: bool, front: int) -> Tensor:
    """A view with the parameters in the order of memory; `front` dimensions come before them."""
    return (
        parameters.movedim(front, -1)
        if channels_last and parameters.ndim > front + 1
        else parameters
    )


def by_group(decays: Tensor, shape: tuple[int, ...], channels_last: bool) -> Tensor:
    """Decays `[]` or `[C]`, one a group: expanded to what the condition's parameters are.

    Arguments:
        decays: `[]` or `[C]`.
        shape: `(C,)` or `(C, *spatial)`.
        channels_last: else contiguous.
    """
    channels = decays.expand(shape[:1])
    by_channel = channels.reshape(channels.shape + (1,) * (len(shape) - 1))
    return in_memory(by_channel.expand(shape), channels_last, 0).contiguous()


def sizes(shape: tuple[int, ...], channels_last: bool, elementwise: bool) -> tuple[int, int, int]:
    """`(rows, groups, inner)` of a step `[N, C, *spatial]`; see `Problem`."""
    batch, channels, *spatial = shape
    pixels = math.prod(spatial)
    if elementwise:
        return batch, channels * pixels, 1
    return (batch * pixels, channels, 1) if channels_last else (batch, channels, pixels)
