"""Linear layers as plain float64 numbers, which change before they are written."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikefold.export._known import refused
from spikefold.export._walk import Operation

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution without groups, or a linear layer: no sizes.

    Attributes:
        weight: `[out, in, *kernel]`.
        bias: `[out]`.
        stride, padding, dilation: a number a spatial dimension.
    """

    weight: Tensor
    bias: Tensor
    stride: Shape = ()
    padding: Shape = ()
    dilation: Shape = ()

    def rows(self, factor: Tensor | float, offset: Tensor | float = 0.0) -> "Layer":
        """The layer whose results are factor · result + offset.

        Arguments:
            factor, offset: a number a row `[out]`, or one for all.
        """
        factors = torch.as_tensor(factor, dtype=torch.float64).expand(len(self.bias))
        weight = self.weight * factors.reshape(-1, *(1,) * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=self.bias * factors + offset)

    def after(self, shape: Shape) -> Shape:
        """The shape of its result.

        Arguments:
            shape: of what it takes.
        """
        if len(shape) == 1:
            return (len(self.bias),)
        kernel = self.weight.shape[2:]
        sizes = zip(shape[1:], kernel, self.stride, self.padding, self.dilation, strict=True)
        spatial = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
        return (len(self.bias), *spatial)

    def among(self, before: int, behind: int) -> "Layer":
        """The layer with so many more channels, which are 0."""
        pad = (0, 0) * (self.weight.ndim - 1) + (before, behind)
        return replace(
            self, weight=F.pad(self.weight, pad), bias=F.pad(self.bias, (before, behind))
        )

    def square(self, shape: Shape) -> "Layer":
        """The layer with zeros around, so that its kernel is square; itself where that cannot be.

        Arguments:
            shape: of what it takes.
        """
        kernel = self.weight.shape[2:]
        if len(set(kernel)) < 2:
            return self
        extra = [max(kernel) - size for size in kernel]
        # as many zeros before the kernel as behind it, or one more
        before = [(count + 1) // 2 for count in extra]
        sides = [(b, count - b) for b, count in zip(before, extra, strict=True)]
        made = replace(
            self,
            weight=F.pad(self.weight, [side for pair in sides[::-1] for side in pair]),
            padding=tuple(
                p + d * b for p, d, b in zip(self.padding, self.dilation, before, strict=True)
            ),
        )
        if made.after(shape) != self.after(shape) and set(self.after(shape)[1:]) == {1}:
            made = replace(made, stride=tuple(2 * max(shape) for _ in kernel))  # one window
        return made if made.after(shape) == self.after(shape) else self


def convolution(weight: Tensor, stride: Shape, padding: Shape, dilation: Shape | None = None
) -> Layer:  # fmt: skip
    """Without a bias."""
    weight = weight.detach().double()
    bias = torch.zeros(len(weight), dtype=torch.float64)
    return Layer(weight, bias, stride, padding, dilation or (1,) * len(stride))


def full(weight: Tensor) -> Layer:
    """A convolution whose kernel sees all of its input."""
    spatial = weight.ndim - 2
    return convolution(weight, (1,) * spatial, (0,) * spatial)


def each(channels: int, kernel: Shape, stride: Shape = (), padding: Shape = ()) -> Layer:
    """The sum over windows of each channel for itself; without windows, the channel itself."""
    one = torch.eye(channels, dtype=torch.float64)
    weight = one.reshape(channels, channels, *(1,) * len(kernel)).expand(-1, -1, *kernel)
    return convolution(weight, stride or (1,) * len(kernel), padding or (0,) * len(kernel))


def layer_of(operation: Operation, shape: Shape, mean: bool) -> Layer:
    """The layer of a connection, for what it takes in NIR.

    Arguments:
        operation: a connection.
        shape: of what it takes: `(C, *spatial)`, also where it was flattened for a linear layer.
        mean: whether a linear layer takes the sum over all of space.

    Raises:
        ExportError: if NIR has no such layer.
    """
    module: Any = operation.module
    layer = _linear(module, shape, mean) if isinstance(module, nn.Linear) else _conv(operation)
    if module.bias is not None:
        layer = replace(layer, bias=module.bias.detach().double())
    return layer


def _linear(module: nn.Linear, shape: Shape, mean: bool) -> Layer:
    weight, outputs = module.weight, module.out_features
    if mean:
        weight = weight.reshape(outputs, shape[0], *(1,) * (len(shape) - 1))
        weight = weight.expand(outputs, *shape)
    return full(weight.reshape(outputs, *shape))


def _conv(operation: Operation) -> Layer:
    module: Any = operation.module
    if isinstance(module, nn.Conv3d):
        raise refused(operation.node, "NIR has no Conv3d")
    weight = module.weight.detach()
    if module.groups > 1:  # which nir's own checks of shapes do not know
        parts = weight.unflatten(0, (module.groups, -1))
        one = torch.eye(module.groups)
        weight = torch.einsum("goi...,gh->gohi...", parts, one).flatten(2, 3).flatten(0, 1)
    return convolution(weight, module.stride, _padding(operation), module.dilation)


def _padding(operation: Operation) -> Shape:
    module: Any = operation.module
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    if module.padding == "valid":
        return (0,) * len(module.stride)
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(size % 2 for size in reach):
        raise refused(operation.node, "padding='same' of an even kernel differs on both sides")
    return tuple(size // 2 for size in reach)
