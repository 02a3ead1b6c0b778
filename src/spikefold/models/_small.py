"""A small network for demonstrations, tests and small computers."""

from typing import Unpack

from torch import nn

from spikefold.models._network import (
    Arguments,
    Builder,
    Network,
    Norm,
    Options,
    assemble,
    scaled,
)


def _small(builder: Builder, width: float) -> list[nn.Module]:
    narrow, wide = scaled(32, width), scaled(64, width)
    return [
        builder.conv(narrow),
        builder.conv(narrow),
        builder.pool(),
        builder.conv(wide),
        builder.pool(),
        builder.conv(wide),
    ]


def small(num_classes: int = 10, norm: Norm = "mpbn", **options: Unpack[Options]) -> Network:
    """Four 3x3 convolutions with 32, 32, 64, 64 channels, pooled after the second and the third.

    Arguments:
        num_classes: K, the number of logits.
        norm, options: see `Arguments`.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4)
        >>> network(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    return assemble("small", _small, Arguments(num_classes, norm, **options))


def _compact(builder: Builder, width: float) -> list[nn.Module]:
    units: list[nn.Module] = []
    for channels in (32, 64, 128, 128):
        units += [builder.conv(scaled(channels, width)), builder.pool()]
    return units


def compact(num_classes: int = 10, norm: Norm = "mpbn", **options: Unpack[Options]) -> Network:
    """Four 3x3 convolutions with 32, 64, 128, 128 channels, each pooled: for images of about 32x32.

    Arguments:
        num_classes: K, the number of logits.
        norm, options: see `Arguments`.
    """
    return assemble("compact", _compact, Arguments(num_classes, norm, **options))
