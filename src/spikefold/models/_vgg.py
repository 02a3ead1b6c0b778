"""VGG-16 of the paper, as its official code has it."""

from torch import nn

from spikefold.models._arguments import Arguments
from spikefold.models._network import Builder, register, scaled

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@register(Arguments, readout=0.01)
def vgg16(builder: Builder, width: float) -> list[nn.Module]:
    """VGG-16: 3x3 convolutions with bias, 2x2 average pooling after each of five stages.

    64 64, 128 128, 256x3, 512x3, 512x3 channels; the input is at least 32x32; 14,736,714
    parameters with 10 classes, 13 spiking layers.

    Source: Guo et al., ICCV 2023, official code, `vgg16_bn`.
    """
    units: list[nn.Module] = []
    for stage in STAGES:
        units += [builder.conv(scaled(channels, width), bias=True) for channels in stage]
        units.append(builder.pool())
    return units
