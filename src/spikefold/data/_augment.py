"""Random changes to training samples: batched, seeded, on the device where the batch is."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from spikefold.data._autoaugment import auto_augment
from spikefold.data._color_jitter import Strengths, color_jitter
from spikefold.errors import ConfigError
from spikefold.ranges import require_within


def random_crop(
    images: Float[Tensor, "N C H W"], padding: int, generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Shift each image by up to `padding` pixels each way; zeros come in at the edges.

    Arguments:
        images: a batch.
        padding: zeros put around, of which a random crop of the old size is taken.
        generator: source of the shifts, on the CPU.
    """
    n, _, height, width = images.shape
    offsets = torch.randint(2 * padding + 1, (2, n), generator=generator).to(images.device)
    padded = F.pad(images, (padding,) * 4)
    return _window(padded, offsets[0], offsets[1], height, width)


def random_resized_crop(
    images: Float[Tensor, "N C H W"], generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Scale a random rectangle of each image to the whole; bilinear.

    Its area is 8 % to 100 % of the image's, its aspect 3/4 to 4/3, both uniform (the aspect in
    its logarithm); where it would not fit it is cut to the image.

    Arguments:
        images: a batch.
        generator: source of the rectangles, on the CPU.

    Source: Szegedy et al., "Going Deeper with Convolutions", 2015.
    """
    n = len(images)
    area, aspect, x, y = torch.rand(4, n, generator=generator)
    ratio = (torch.log(torch.tensor(4 / 3)) * (2 * aspect - 1)).exp()
    side = (0.08 + 0.92 * area).sqrt()
    width, height = (side * ratio.sqrt()).clamp(max=1), (side / ratio.sqrt()).clamp(max=1)
    zero = torch.zeros(n)
    rows = [
        torch.stack([width, zero, (2 * x - 1) * (1 - width)], 1),
        torch.stack([zero, height, (2 * y - 1) * (1 - height)], 1),
    ]
    maps = torch.stack(rows, 1).to(images.device)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_roll(
    images: Float[Tensor, "N C H W"], pixels: int, generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Roll each image by up to `pixels` each way; what leaves at one edge comes in at the other.

    Arguments:
        images: a batch.
        pixels: largest shift.
        generator: source of the shifts, on the CPU.

    Source: Guo et al., ICCV 2023, official code for CIFAR10-DVS (5 pixels).
    """
    n, _, height, width = images.shape
    offsets = torch.randint(-pixels, pixels + 1, (2, n), generator=generator).to(images.device)
    return _window(images, -offsets[0], -offsets[1], height, width)


def _window(images: Tensor, tops: Tensor, lefts: Tensor, height: int, width: int) -> Tensor:
    """A window of each image from its own corner on; beyond the edges it goes round."""
    device = images.device
    rows = (tops[:, None] + torch.arange(height, device=device)) % images.shape[2]
    columns = (lefts[:, None] + torch.arange(width, device=device)) % images.shape[3]
    sample = torch.arange(len(images), device=device)[:, None, None]
    picked = images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


def random_flip(
    images: Float[Tensor, "N C H W"], generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Mirror each image left to right with probability 1/2.

    Arguments:
        images: a batch.
        generator: source of the choice, on the CPU.
    """
    chosen = torch.randint(2, (len(images), 1, 1, 1), generator=generator).bool()
    return torch.where(chosen.to(images.device), images.flip(-1), images)


def cutout(
    images: Float[Tensor, "N C H W"], size: int, generator: torch.Generator
) -> Float[Tensor, "N C H W"]:
    """Zero a square of size x size around a random pixel of each image, clipped at the edges.

    Arguments:
        images: a batch.
        size: side of the square.
        generator: source of the centres, on the CPU.

    Source: DeVries and Taylor, "Improved Regularization of CNNs with Cutout", 2017.
    """
    n, _, height, width = images.shape

    def hidden(extent: int) -> Tensor:
        start = torch.randint(extent, (n, 1), generator=generator) - size // 2
        place = torch.arange(extent)
        return (place >= start) & (place < start + size)

    hole = hidden(height)[:, None, :, None] & hidden(width)[:, None, None, :]
    return images.masked_fill(hole.to(images.device), 0)


NO_JITTER: Strengths = (0.0, 0.0, 0.0, 0.0)
MOST: Strengths = (1.0, 1.0, 1.0, 0.5)


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a batch, in this order, each only if it is set.

    Arguments:
        resized_crop: scale a random rectangle to the whole, as for ImageNet.
        crop_padding: shift by up to so many pixels, zeros come in.
        flip: mirror half of the samples left to right.
        color_jitter: strengths of random brightness, contrast, saturation (at most 1) and hue (at
            most 0.5), on colour images.
        auto_augment: AutoAugment's policy for CIFAR-10, on colour images.
        cutout: side of a square that is zeroed.
        roll: roll by up to so many pixels.

    Raises:
        ConfigError: if a number is negative, or a strength too large.
    """

    resized_crop: bool = False
    crop_padding: int = 0
    flip: bool = False
    color_jitter: Strengths = NO_JITTER
    auto_augment: bool = False
    cutout: int = 0
    roll: int = 0

    def __post_init__(self) -> None:
        pixels = "[0, 1000]"
        require_within("augmentation", self, crop_padding=pixels, cutout=pixels, roll=pixels)
        within = [0 <= s <= most for s, most in zip(self.color_jitter, MOST, strict=False)]
        if not all(within) or len(self.color_jitter) != len(MOST):
            raise ConfigError(
                "augmentation: color_jitter is brightness, contrast and saturation in [0, 1] and "
                f"hue in [0, 0.5], got {self.color_jitter}"
            )

    def __call__(self, x: Float[Tensor, "..."], generator: torch.Generator) -> Tensor:
        """The batch, changed.

        Arguments:
            x: images `[N, C, H, W]`, or frames `[T, N, C, H, W]`: the same change at all times.
            generator: source of all choices, on the CPU.

        Raises:
            ConfigError: if a change of colours is asked for on what has not 3 channels.
        """
        for name, wanted in (
            ("auto_augment", self.auto_augment),
            ("color_jitter", any(self.color_jitter)),
        ):
            if wanted and x.shape[-3] != 3:
                raise ConfigError(
                    f"augmentation: {name} is for images of 3 channels, got {list(x.shape)}"
                )
        if x.ndim == 5:  # time goes beside the channels
            steps = x.shape[0]
            changed = self(x.transpose(0, 1).flatten(1, 2), generator)
            return changed.unflatten(1, (steps, -1)).transpose(0, 1)
        if self.resized_crop:
            x = random_resized_crop(x, generator)
        if self.crop_padding:
            x = random_crop(x, self.crop_padding, generator)
        if self.flip:
            x = random_flip(x, generator)
        if any(self.color_jitter):
            x = color_jitter(x, self.color_jitter, generator)
        if self.auto_augment:
            x = auto_augment(x, generator)
        if self.cutout:
            x = cutout(x, self.cutout, generator)
        if self.roll:
            x = random_roll(x, self.roll, generator)
        return x
