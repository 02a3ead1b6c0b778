"""Random brightness, contrast, saturation and hue, batched, with Pillow's pixels."""

import torch
from jaxtyping import Float
from torch import Tensor

from spikefold.data._autoaugment import brightness, color, contrast

Strengths = tuple[float, float, float, float]


def hue(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Turn the hue by `magnitude` of the circle, in Pillow's 8-bit HSV.

    Arguments:
        levels: images `[N, 3, H, W]` of whole numbers 0..255.
        magnitude: of each sample, in [-0.5, 0.5]; cut to whole 255ths.
    """
    h, s, v = _hsv(levels)
    turned = (h + (magnitude * 255).trunc()[:, None, None]) % 256
    return _rgb(turned, s, v)


OPERATIONS = (brightness, contrast, color, hue)


def color_jitter(
    images: Float[Tensor, "N 3 H W"], strengths: Strengths, generator: torch.Generator
) -> Float[Tensor, "N 3 H W"]:
    """Brightness, contrast and saturation times a random factor, and the hue turned at random.

    The four follow each other in an order of each image's own. A factor is uniform in
    [1 - strength, 1 + strength], the hue's turn in [-strength, strength] of the circle.

    Arguments:
        images: in [0, 1]; rounded to 256 levels.
        strengths: of brightness, contrast, saturation and hue; 0: not changed.
        generator: source of all choices, on the CPU.

    Source: torchvision's ColorJitter on Pillow images, as the official code uses it for ImageNet.
    """
    n = len(images)
    orders = torch.rand(n, 4, generator=generator).argsort(1)
    magnitudes = (2 * torch.rand(n, 4, generator=generator) - 1) * torch.tensor(strengths)
    levels = (images * 255).round()
    for stage in range(4):
        for number, operation in enumerate(OPERATIONS):
            chosen = (orders[:, stage] == number).nonzero().flatten()
            if len(chosen) and strengths[number]:
                magnitude = magnitudes[chosen, number].to(levels.device)
                chosen = chosen.to(levels.device)
                levels[chosen] = operation(levels[chosen], magnitude)
    return levels / 255


def _hsv(levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value of each pixel, `[N, H, W]`, cut to whole numbers 0..255.

    Single and double precision take turns as they do in Pillow, which follows colorsys.
    """
    v, low = levels.amax(1), levels.amin(1)
    spread = (v - low).clamp(min=1)
    to_red, to_green, to_blue = ((v - channel) / spread for channel in levels.unbind(1))
    green = (2 + to_red.double() - to_blue).float()
    blue = (4 + to_green.double() - to_red).float()
    sector = torch.where(
        levels[:, 0] == v, to_blue - to_green, torch.where(levels[:, 1] == v, green, blue)
    )
    turn = (sector.double() / 6 + 1).fmod(1).float()
    h = (turn.double() * 255).trunc().float()
    s = (((v - low) / v.clamp(min=1)).double() * 255).trunc().float()
    return torch.where(v == low, 0, h), s, v


def _rgb(h: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Levels `[N, 3, H, W]` of hue, saturation and value, rounded."""
    place = h.double() * 6 / 255
    sector = place.floor()
    part, saturation = (place - sector).float(), (s.double() / 255).float()

    def darkened(share: Tensor) -> Tensor:
        return (v.double() * (1 - share.double()) + 0.5).floor().float()

    p, q, t = (darkened(saturation * x) for x in (torch.ones_like(part), part, 1 - part.double()))
    places = ((v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q))
    out = torch.stack([v, v, v], 1)
    for number, channels in enumerate(places):
        here = ((sector % 6 == number) & (s > 0))[:, None]
        out = torch.where(here, torch.stack(channels, 1), out)
    return out
