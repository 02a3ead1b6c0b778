"""Residual networks of the paper, as its official code has them."""

from torch import Tensor, nn

from spikefold.models._arguments import Arguments
from spikefold.models._network import Builder, register, scaled
from spikefold.nn import OverTime, SpikingLayer, States, Stream


class BasicBlock(nn.Module):
    """Two units; the shortcut is added before the second one fires.

    Arguments:
        first: unit that may change channels and size.
        second: unit that keeps them.
        shortcut: from the block's input to the second unit's currents.
    """

    def __init__(self, first: SpikingLayer, second: SpikingLayer, shortcut: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Spikes `[T, N, C, H, W]` to spikes."""
        return self.second(self.first(x), self.shortcut(x))

    def step(self, x: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Spikes `[N, C, H, W]` of one time step of a stream, and its state."""
        stream = Stream(state)
        shortcut = stream.step("shortcut", self.shortcut, x)
        y = stream.step("first", self.first, x)
        return stream.step("second", self.second, y, shortcut), stream.states()


def _block(builder: Builder, channels: int, stride: int, pooled: bool) -> BasicBlock:
    """A block; where channels or size change, the shortcut is a 1x1 convolution with a norm.

    With `pooled` the shortcut is average-pooled before an unstrided convolution (resnet20),
    else the convolution itself is strided.
    """
    shortcut: nn.Module = nn.Identity()
    if stride != 1 or builder.channels != channels:
        parts: list[nn.Module] = []
        if pooled:
            parts.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        parts.append(
            nn.Conv2d(builder.channels, channels, 1, stride=1 if pooled else stride, bias=False)
        )
        parts.append(builder.current_norm(channels, branches=2))
        shortcut = OverTime(*parts)
    first, second = builder.conv(channels, stride=stride), builder.conv(channels, branches=2)
    return BasicBlock(first, second, shortcut)


def _stages(
    builder: Builder, channels: list[int], blocks: list[int], pooled: bool
) -> list[nn.Module]:
    """Stages of blocks; each but the first halves the size."""
    return [
        _block(builder, width, 2 if stage > 0 and block == 0 else 1, pooled)
        for stage, (width, count) in enumerate(zip(channels, blocks, strict=True))
        for block in range(count)
    ]


@register(Arguments)
def resnet20(builder: Builder, width: float) -> list[nn.Module]:
    """ResNet-20 of the paper: stem of three 3x3 convolutions, pooling, four stages of two blocks.

    64, 128, 256, 512 channels; shortcuts are pooled, then 1x1 convolution and BN; 11,256,010
    parameters with 10 classes, 19 spiking layers.

    Source: Guo et al., ICCV 2023, official code, `resnet20_cifar_modified`.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.resnet20(num_classes=10, norm="mpbn", width=0.125)
        >>> network(torch.randn(2, 3, 32, 32), steps=2).shape
        torch.Size([2, 10])
    """
    channels = [scaled(c, width) for c in (64, 128, 256, 512)]
    stem = [*(builder.conv(channels[0]) for _ in range(3)), builder.pool()]
    return [*stem, *_stages(builder, channels, [2, 2, 2, 2], pooled=True)]


@register(Arguments)
def resnet19(builder: Builder, width: float) -> list[nn.Module]:
    """ResNet-19 of the paper: 3x3 convolution, then stages of 3, 3 and 2 blocks.

    128, 256, 512 channels; shortcuts are strided 1x1 convolutions with BN; 12,578,186 parameters
    with 10 classes, 17 spiking layers.

    Source: Guo et al., ICCV 2023, official code, `resnet19_cifar`.
    """
    channels = [scaled(c, width) for c in (128, 256, 512)]
    return [builder.conv(channels[0]), *_stages(builder, channels, [3, 3, 2], pooled=False)]


def _imagenet(builder: Builder, width: float, blocks: list[int]) -> list[nn.Module]:
    """7x7 stem of stride 2, 3x3 average pooling of stride 2, four stages of so many blocks."""
    channels = [scaled(c, width) for c in (64, 128, 256, 512)]
    stem = [builder.conv(channels[0], kernel=7, stride=2), builder.pool(3, 2, 1)]
    return [*stem, *_stages(builder, channels, blocks, pooled=False)]


@register(Arguments, num_classes=1000, image_size=224)
def resnet18(builder: Builder, width: float) -> list[nn.Module]:
    """ResNet-18 for ImageNet: 7x7 stem, average pooling, stages of 2, 2, 2 and 2 blocks.

    64, 128, 256, 512 channels; shortcuts are strided 1x1 convolutions with BN; 11,697,320
    parameters with 1,000 classes, 17 spiking layers.

    Source: Guo et al., ICCV 2023, official code, `ResNet18`.
    """
    return _imagenet(builder, width, [2, 2, 2, 2])


@register(Arguments, num_classes=1000, image_size=224)
def resnet34(builder: Builder, width: float) -> list[nn.Module]:
    """ResNet-34 for ImageNet: as `resnet18`, with stages of 3, 4, 6 and 3 blocks.

    21,812,904 parameters with 1,000 classes, 33 spiking layers.

    Source: Guo et al., ICCV 2023, official code, `ResNet34`.
    """
    return _imagenet(builder, width, [3, 4, 6, 3])
