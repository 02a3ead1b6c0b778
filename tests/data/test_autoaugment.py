"""AutoAugment's operations, each against Pillow's; the policy as a whole."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from spikefold.data import Augmentation, cutout, random_flip
from spikefold.data._autoaugment import (
    OPERATIONS,
    POLICY,
    auto_augment,
    autocontrast,
    magnitude_of,
)
from spikefold.errors import ConfigError

GRAY = (128, 128, 128)
AFFINE = Image.Transform.AFFINE
CUBIC = Image.Resampling.BICUBIC


def affine(
    matrix: Callable[[float], tuple[float, ...]], resample: Image.Resampling
) -> Callable[[Image.Image, float], Image.Image]:
    return lambda i, m: i.transform(i.size, AFFINE, matrix(m), resample, fillcolor=GRAY)


def over_gray(turned: Image.Image) -> Image.Image:
    """What came in from outside is transparent."""
    gray = Image.new("RGBA", turned.size, (128,) * 4)
    return Image.composite(turned, gray, turned).convert("RGB")


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear_x": affine(lambda m: (1, m, 0, 0, 1, 0), CUBIC),
    "shear_y": affine(lambda m: (1, 0, 0, m, 1, 0), CUBIC),
    "translate_x": lambda i, m: i.transform(
        i.size, AFFINE, (1, 0, m * i.size[0], 0, 1, 0), fillcolor=GRAY
    ),
    "translate_y": lambda i, m: i.transform(
        i.size, AFFINE, (1, 0, 0, 0, 1, m * i.size[1]), fillcolor=GRAY
    ),
    "rotate": lambda i, m: over_gray(i.convert("RGBA").rotate(m)),
    "color": lambda i, m: ImageEnhance.Color(i).enhance(1 + m),
    "posterize": lambda i, m: ImageOps.posterize(i, int(m)),
    "solarize": lambda i, m: ImageOps.solarize(i, m),
    "contrast": lambda i, m: ImageEnhance.Contrast(i).enhance(1 + m),
    "sharpness": lambda i, m: ImageEnhance.Sharpness(i).enhance(1 + m),
    "brightness": lambda i, m: ImageEnhance.Brightness(i).enhance(1 + m),
    "autocontrast": lambda i, m: ImageOps.autocontrast(i),
    "equalize": lambda i, m: ImageOps.equalize(i),
    "invert": lambda i, m: ImageOps.invert(i),
}


def pictures(size: int = 32) -> np.ndarray:
    """Noise, dim noise, a slope, a single level, two levels."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (6, size, size, 3))
    dim = rng.integers(40, 90, (6, size, size, 3))
    slope = np.broadcast_to(np.linspace(0, 255, size).astype(int)[:, None, None], (size, size, 3))
    flat = np.full((size, size, 3), 77)
    two = np.where(rng.random((size, size, 3)) < 0.02, 200, 13)
    return np.concatenate([noise, dim, [slope, flat, two]]).astype(np.uint8)


@pytest.mark.parametrize("size", [32, 17])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_gives_pillows_pixels(name: str, size: int) -> None:
    images = pictures(size)
    operation, *_, signed = OPERATIONS[name]
    for index in range(10):
        for sign in (1, -1) if signed else (1,):
            magnitude = sign * magnitude_of(name, index)
            expected = np.stack(
                [np.asarray(PILLOW[name](Image.fromarray(i), magnitude)) for i in images]
            )
            levels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
            got = operation(levels, torch.full((len(images),), magnitude, dtype=torch.float64))
            difference = np.abs(got.permute(0, 2, 3, 1).numpy() - expected)
            # a sum in another order may fall on the other side of a whole number
            assert difference.max() <= 1
            assert (difference > 0).mean() < 1e-4, (index, sign)


def test_autocontrast_gives_pillows_levels_for_any_lowest_and_highest() -> None:
    for low in range(256):
        lines = np.arange(256).clip(low, np.arange(low, 256, 7)[:, None]).astype(np.uint8)
        images = [Image.fromarray(line[None]) for line in lines]
        expected = np.stack([np.asarray(ImageOps.autocontrast(image)) for image in images])
        levels = torch.from_numpy(lines)[:, None, None].expand(-1, 3, 1, 256).float()
        got = autocontrast(levels, torch.zeros(len(lines)))
        assert np.array_equal(got[:, 0], expected), low


def test_the_policy_turns_one_way_and_shears_both(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pictures()[0]
    images = torch.from_numpy(image).permute(2, 0, 1).expand(64, 3, 32, 32) / 255

    def results(name: str) -> torch.Tensor:
        pair = ((name, 1.0, 9), ("invert", 0.0, 0))
        monkeypatch.setattr("spikefold.data._autoaugment.POLICY", (pair,))
        return auto_augment(images, torch.Generator().manual_seed(0)).unique(dim=0)

    turned = np.asarray(PILLOW["rotate"](Image.fromarray(image), 30))
    assert np.array_equal(results("rotate") * 255, turned.transpose(2, 0, 1)[None])
    assert len(results("shear_x")) == 2


def test_the_policy_names_only_operations_and_uses_each_stage() -> None:
    assert len(POLICY) == 25
    assert {name for pair in POLICY for name, _, _ in pair} == set(OPERATIONS) - {"shear_x"}


def test_magnitudes() -> None:
    assert magnitude_of("rotate", 2) == pytest.approx(30 * 2 / 9)
    assert magnitude_of("posterize", 7) == 5
    assert magnitude_of("solarize", 0) == 256


def test_the_same_seed_gives_the_same_images_and_another_others() -> None:
    images = torch.from_numpy(pictures()).permute(0, 3, 1, 2).repeat(4, 1, 1, 1) / 255
    one, again, other = (
        auto_augment(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1
    changed = (one != images).flatten(1).any(1).float().mean()
    assert 0.4 < changed < 0.95


def test_both_operations_of_a_pair_come_in_order_with_their_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = (("invert", 1.0, 0), ("posterize", 0.25, 9))  # posterize keeps 4 bits
    monkeypatch.setattr("spikefold.data._autoaugment.POLICY", (pair,))
    levels = torch.randint(256, (2000, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    result = (auto_augment(levels / 255, torch.Generator().manual_seed(0)) * 255).round().long()
    inverted = 255 - levels
    both = inverted // 16 * 16
    is_both = (result == both).flatten(1).all(1)
    assert ((result == inverted).flatten(1).all(1) | is_both).all()
    assert is_both.float().mean() == pytest.approx(0.25, abs=0.04)  # 4 deviations


def test_it_comes_between_the_flip_and_the_hole() -> None:
    images = torch.from_numpy(pictures()).permute(0, 3, 1, 2) / 255
    whole = Augmentation(flip=True, auto_augment=True, cutout=8)
    one, other = (torch.Generator().manual_seed(0) for _ in range(2))
    by_hand = cutout(auto_augment(random_flip(images, one), one), 8, one)
    assert torch.equal(whole(images, other), by_hand)


def test_gray_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="images of 3 channels"):
        Augmentation(auto_augment=True)(torch.rand(2, 1, 8, 8), torch.Generator())
