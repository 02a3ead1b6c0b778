"""VGG-16 of the paper, as its official code has it."""

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

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

READOUT = 0.01  # deviation of its first weights, whatever the width


def _vgg16(builder: Builder, width: float) -> list[nn.Module]:
    units: list[nn.Module] = []
    for stage in STAGES:
        units += [builder.conv(scaled(channels, width), bias=True) for channels in stage]
        units.append(builder.pool())
    return units


def vgg16(num_classes: int = 10, norm: Norm = "mpbn", **options: Unpack[Options]) -> Network:
    """VGG-16: 3x3 convolutions with bias, 2x2 average pooling after each of five stages.

    64 64, 128 128, 256x3, 512x3, 512x3 channels; the input is at least 32x32; 14,736,714
    parameters with 10 classes, 13 spiking layers.

    Arguments:
        num_classes: K, the number of logits.
        norm, options: see `Arguments`.

    Source: Guo et al., ICCV 2023, official code, `vgg16_bn`.
    """
    network = assemble("vgg16", _vgg16, Arguments(num_classes, norm, **options))
    nn.init.normal_(network.classifier.weight, std=READOUT)
    return network
