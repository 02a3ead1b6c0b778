"""Small networks for demonstrations, tests and small computers."""

from torch import nn

from spikefold.models._arguments import Arguments
from spikefold.models._network import Builder, register, scaled


@register(Arguments)
def small(builder: Builder, width: float) -> list[nn.Module]:
    """Four 3x3 convolutions with 32, 32, 64, 64 channels, pooled after the second and the third.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4)
        >>> network(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    narrow, wide = scaled(32, width), scaled(64, width)
    return [
        builder.conv(narrow),
        builder.conv(narrow),
        builder.pool(),
        builder.conv(wide),
        builder.pool(),
        builder.conv(wide),
    ]


@register(Arguments)
def compact(builder: Builder, width: float) -> list[nn.Module]:
    """Four 3x3 convolutions with 32, 64, 128, 128 channels, each pooled: for about 32x32 pixels."""
    units: list[nn.Module] = []
    for channels in (32, 64, 128, 128):
        units += [builder.conv(scaled(channels, width)), builder.pool()]
    return units
