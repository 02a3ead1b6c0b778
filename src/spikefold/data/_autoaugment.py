"""AutoAugment's policy for CIFAR-10, batched; each operation gives Pillow's pixels.

All operations take levels: images `[N, 3, H, W]` whose values are the whole numbers 0..255, and a
magnitude a sample, `[N]`.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FILL = 128  # gray, for what comes in from outside
Operation = Callable[[Tensor, Tensor], Tensor]


def _column(magnitude: Tensor) -> Tensor:
    return magnitude.to(torch.float32)[:, None, None, None]


def _blend(degenerate: Tensor, levels: Tensor, magnitude: Tensor) -> Tensor:
    """Pillow's enhancement: from the degenerate image through the image and beyond, cut down."""
    factor = _column(1 + magnitude)
    return (degenerate + factor * (levels - degenerate)).clamp(0, 255).floor()


def _gray(levels: Tensor) -> Tensor:
    """Luma (ITU-R 601-2) in Pillow's 16-bit fixed point."""
    red, green, blue = levels.long().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).float()[:, None]


def color(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Saturation times 1 + magnitude."""
    return _blend(_gray(levels), levels, magnitude)


def contrast(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Distance from the mean gray times 1 + magnitude."""
    mean = _gray(levels).double().mean((1, 2, 3), keepdim=True).add(0.5).floor()
    return _blend(mean.float(), levels, magnitude)


def brightness(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Intensity times 1 + magnitude."""
    return _blend(torch.zeros_like(levels), levels, magnitude)


def sharpness(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Distance from the smoothed image (3x3, centre 5 of 13) times 1 + magnitude; edges stay."""
    kernel = torch.ones(3, 1, 3, 3, device=levels.device)
    kernel[:, :, 1, 1] = 5
    smooth = levels.clone()
    inner = F.conv2d(levels, kernel, groups=3) / 13
    smooth[:, :, 1:-1, 1:-1] = (inner + 0.5).floor()
    return _blend(smooth, levels, magnitude)


def posterize(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Keep the `magnitude` highest bits."""
    step = 2 ** (8 - _column(magnitude))
    return (levels / step).floor() * step


def solarize(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Invert levels from `magnitude` on."""
    return torch.where(levels < _column(magnitude), levels, 255 - levels)


def invert(levels: Tensor, magnitude: Tensor) -> Tensor:
    """255 minus the level."""
    return 255 - levels


def autocontrast(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    low = levels.amin((2, 3), keepdim=True).double()
    high = levels.amax((2, 3), keepdim=True).double()
    # a number divided by a tensor would be the reciprocal times the number, rounded twice
    scale = torch.full_like(low, 255) / (high - low)
    stretched = (levels.double() * scale - low * scale).clamp(0, 255).floor().float()
    return torch.where(high > low, stretched, levels)


def equalize(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Flatten each channel's histogram."""
    flat = levels.long().flatten(2)
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=levels.device)
    histogram.scatter_add_(2, flat, torch.ones_like(flat))
    last = histogram.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - last) // 255
    below = histogram.cumsum(2) - histogram
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    equal = table.gather(2, flat).reshape(levels.shape).float()
    return torch.where((step > 0)[..., None], equal, levels)


def _pick(levels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels at whole places `[N, H, W]`; gray where a place lies outside."""
    height, width = levels.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    sample = torch.arange(len(levels), device=levels.device)[:, None, None]
    picked = levels.permute(0, 2, 3, 1)[
        sample, rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    ]
    return torch.where(inside[:, None], picked.permute(0, 3, 1, 2), FILL)


def _grid(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, `[1, H, W]`."""
    height, width = levels.shape[2:]
    rows = torch.arange(height, device=levels.device)[None, :, None].expand(1, height, width)
    columns = torch.arange(width, device=levels.device)[None, None].expand(1, height, width)
    return rows, columns


def translate_x(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Move left by `magnitude` of the width."""
    rows, columns = _grid(levels)
    shift = (magnitude.double() * levels.shape[3])[:, None, None]
    place = (columns + 0.5 + shift).floor().long()
    return _pick(levels, rows.expand_as(place), place)


def translate_y(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Move up by `magnitude` of the height."""
    return translate_x(levels.mT, magnitude).mT


def shear_x(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Row y moves left by `magnitude` times y; Pillow's bicubic (a = -1) between pixels."""
    rows, columns = _grid(levels)
    width = levels.shape[3]
    place = columns + 0.5 + magnitude.double()[:, None, None] * (rows + 0.5)
    inside = (place >= 0) & (place < width)
    start = (place - 0.5).floor()
    d = (place - 0.5 - start)[:, None]
    taps = [
        _pick(levels, rows.expand_as(start), (start.long() + k).clamp(0, width - 1)).double()
        for k in (-1, 0, 1, 2)
    ]
    before, left, right, after = taps
    p2 = right - before
    p3 = 2 * (before - left) + right - after
    p4 = left - before - right + after
    sheared = (left + d * (p2 + d * (p3 + d * p4))).clamp(0, 255).floor().float()
    return torch.where(inside[:, None], sheared, FILL)


def shear_y(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Column x moves up by `magnitude` times x; bicubic."""
    return shear_x(levels.mT, magnitude).mT


def rotate(levels: Tensor, magnitude: Tensor) -> Tensor:
    """Turn about the centre by `magnitude` degrees counter-clockwise; nearest pixel.

    In Pillow's 16-bit fixed point, so that the same pixels are nearest.
    """
    height, width = levels.shape[2:]
    angle = -magnitude.double() * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()

    def fixed(value: Tensor) -> Tensor:
        return (value * 65536 + 0.5 * value.sign()).trunc().long()[:, None, None]

    left = width / 2 - cos * width / 2 - sin * height / 2
    top = height / 2 + sin * width / 2 - cos * height / 2
    rows, columns = _grid(levels)
    x = fixed(left + 0.5 * cos + 0.5 * sin) + columns * fixed(cos) + rows * fixed(sin)
    y = fixed(top - 0.5 * sin + 0.5 * cos) - columns * fixed(sin) + rows * fixed(cos)
    return _pick(levels, y >> 16, x >> 16)


# operation, magnitudes 0..9 from..to, whether the sign is random
OPERATIONS: dict[str, tuple[Operation, float, float, bool]] = {
    "shear_x": (shear_x, 0, 0.3, True),
    "shear_y": (shear_y, 0, 0.3, True),
    "translate_x": (translate_x, 0, 150 / 331, True),
    "translate_y": (translate_y, 0, 150 / 331, True),
    # the official code turns one way only
    "rotate": (rotate, 0, 30, False),
    "color": (color, 0, 0.9, True),
    "posterize": (posterize, 8, 4, False),
    "solarize": (solarize, 256, 0, False),
    "contrast": (contrast, 0, 0.9, True),
    "sharpness": (sharpness, 0, 0.9, True),
    "brightness": (brightness, 0, 0.9, True),
    "autocontrast": (autocontrast, 0, 0, False),
    "equalize": (equalize, 0, 0, False),
    "invert": (invert, 0, 0, False),
}

# 25 pairs of operation, probability, magnitude (Cubuk et al. 2019, the policy found on CIFAR-10)
Step = tuple[str, float, int]
POLICY: tuple[tuple[Step, Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.8, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)


def magnitude_of(name: str, index: int) -> float:
    """What the policy's index 0..9 means to an operation; of posterize, whole bits."""
    _, start, end, _ = OPERATIONS[name]
    value = start + (end - start) * index / 9
    return float(round(value)) if name == "posterize" else value


def auto_augment(
    images: Float[Tensor, "N 3 H W"], generator: torch.Generator
) -> Float[Tensor, "N 3 H W"]:
    """A random one of 25 pairs of operations on each image, each with its probability.

    Arguments:
        images: in [0, 1]; rounded to 256 levels.
        generator: source of all choices, on the CPU.

    Source: Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019.
    """
    n = len(images)
    pairs = torch.randint(len(POLICY), (n,), generator=generator).tolist()
    chances = torch.rand(n, 2, generator=generator).tolist()
    signs = (2 * torch.randint(2, (n, 2), generator=generator) - 1).tolist()
    levels = (images * 255).round()
    for stage in range(2):
        chosen: dict[str, list[tuple[int, float]]] = {}
        for sample, pair in enumerate(pairs):
            name, probability, index = POLICY[pair][stage]
            if chances[sample][stage] < probability:
                sign = signs[sample][stage] if OPERATIONS[name][3] else 1
                chosen.setdefault(name, []).append((sample, sign * magnitude_of(name, index)))
        for name, uses in chosen.items():
            samples = torch.tensor([sample for sample, _ in uses], device=levels.device)
            magnitudes = torch.tensor([m for _, m in uses], dtype=torch.float64)
            levels[samples] = OPERATIONS[name][0](levels[samples], magnitudes.to(levels.device))
    return levels / 255
