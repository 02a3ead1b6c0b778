"""Augmentation against explicit loops; colour jitter against Pillow and colorsys."""

import colorsys
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from spikefold.data import (
    Augmentation,
    color_jitter,
    cutout,
    random_crop,
    random_flip,
    random_roll,
)
from spikefold.data._color_jitter import hue
from spikefold.errors import ConfigError


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


sizes = st.tuples(*(st.integers(1, 9) for _ in range(4)))


@given(shape=sizes, padding=st.integers(0, 4))
def test_crop_equals_a_crop_of_each_padded_image(shape: tuple[int, ...], padding: int) -> None:
    images = torch.rand(shape)
    out = random_crop(images, padding, seeded())
    offsets = torch.randint(2 * padding + 1, (2, shape[0]), generator=seeded())
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    for n, (row, column) in enumerate(offsets.T.tolist()):
        window = padded[n, :, row : row + shape[2], column : column + shape[3]]
        assert torch.equal(out[n], window)


@given(shape=sizes, pixels=st.integers(0, 4))
def test_roll_equals_torch_roll_of_each_image(shape: tuple[int, ...], pixels: int) -> None:
    images = torch.rand(shape)
    out = random_roll(images, pixels, seeded())
    offsets = torch.randint(-pixels, pixels + 1, (2, shape[0]), generator=seeded())
    for n, (down, right) in enumerate(offsets.T.tolist()):
        assert torch.equal(out[n], torch.roll(images[n], (down, right), (1, 2)))


def test_flip_mirrors_half_of_the_images() -> None:
    images = torch.rand(400, 2, 3, 5)
    out = random_flip(images, seeded())
    same = (out == images).flatten(1).all(1)
    mirrored = (out == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


@given(shape=sizes, size=st.integers(0, 6))
def test_cutout_zeroes_one_clipped_square(shape: tuple[int, ...], size: int) -> None:
    images = torch.rand(shape) + 1
    out = cutout(images, size, seeded())
    generator = seeded()
    rows = torch.randint(shape[2], (shape[0],), generator=generator).tolist()
    columns = torch.randint(shape[3], (shape[0],), generator=generator).tolist()
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        expected = images[n].clone()
        top, left = row - size // 2, column - size // 2
        expected[:, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
        assert torch.equal(out[n], expected)


def colours() -> np.ndarray:
    """Noise, dim noise, few colours, grays; `[4, 64, 64, 3]`."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 64, 64, 3))
    images[1] //= 20
    images[2] = images[2] // 85 * 85
    images[3] = images[3, :, :, :1]
    return images.astype(np.uint8)


def turned(image: Image.Image, magnitude: float) -> Image.Image:
    """The hue as torchvision documents it for Pillow images: 255ths, in 8-bit HSV."""
    h, s, v = image.convert("HSV").split()
    levels = (np.asarray(h).astype(int) + int(magnitude * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(levels.astype(np.uint8)), s, v)).convert("RGB")


@pytest.mark.parametrize("magnitude", [0.0, 0.1, -0.1, 0.037, 0.5, -0.5])
def test_hue_gives_pillows_pixels(magnitude: float) -> None:
    images = colours()
    expected = np.stack([np.asarray(turned(Image.fromarray(i), magnitude)) for i in images])
    levels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    got = hue(levels, torch.full((4,), magnitude)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(got, expected)


def test_hue_turns_as_colorsys_does() -> None:
    """Without Pillow, which cuts hue, turn and saturation to 255ths, and loses one past the end."""
    images = colours()[:1, :16, :16]
    levels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    got = hue(levels, torch.tensor([0.25]))[0].permute(1, 2, 0).numpy()
    for row, column in itertools.product(range(16), range(16)):
        h, s, v = colorsys.rgb_to_hsv(*(images[0, row, column] / 255))
        expected = colorsys.hsv_to_rgb((h + 0.25) % 1, s, v)
        assert (
            np.abs(got[row, column] / 255 - expected).max() < (3 * 6 + 2) / 255
        )  # a 255th of hue is 6 levels


def test_colour_jitter_is_the_four_changes_in_an_order_of_each_images_own() -> None:
    images = colours()[:1].repeat(400, axis=0)[:, :8, :8]
    strengths = (0.2, 0.3, 0.4, 0.1)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    result = color_jitter(x, strengths, seeded())
    generator = seeded()
    orders = torch.rand(400, 4, generator=generator).argsort(1)
    magnitudes = (2 * torch.rand(400, 4, generator=generator) - 1) * torch.tensor(strengths)
    for n in range(60):
        image = Image.fromarray(images[n])
        for number in orders[n].tolist():
            magnitude = magnitudes[n, number].item()
            if number == 3:
                image = turned(image, magnitude)
            else:
                kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[number]
                image = kind(image).enhance(1 + magnitude)
        got = (result[n] * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(got - np.asarray(image)).max() <= 1
    assert len(orders.unique(dim=0)) == 24
    for number, strength in enumerate(strengths):
        assert 0.9 * strength < magnitudes[:, number].max() <= strength
        assert -0.9 * strength > magnitudes[:, number].min() >= -strength


def test_colour_jitter_alone_and_none() -> None:
    x = torch.from_numpy(colours()).permute(0, 3, 1, 2) / 255
    assert torch.equal(color_jitter(x, (0.0, 0.0, 0.0, 0.0), seeded()), x)
    bright = color_jitter(x, (1.0, 0.0, 0.0, 0.0), seeded())
    factors = bright.flatten(1).mean(1) / x.flatten(1).mean(1)
    assert (factors - 1).abs().max() > 0.2
    augmentation = Augmentation(flip=True, color_jitter=(0.2, 0.2, 0.2, 0.1), cutout=4)
    one, other = seeded(), seeded()
    by_hand = cutout(color_jitter(random_flip(x, one), (0.2, 0.2, 0.2, 0.1), one), 4, one)
    assert torch.equal(augmentation(x, other), by_hand)
    with pytest.raises(ConfigError, match="color_jitter is for images of 3 channels"):
        augmentation(torch.rand(2, 1, 8, 8), seeded())


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    "strengths", [(0.2, 0.2, 0.2), (1.1, 0, 0, 0), (0, 0, 0, 0.6), (-0.1, 0, 0, 0), (0,) * 5]
)
def test_strengths_of_colour_jitter_are_checked(strengths: tuple) -> None:
    with pytest.raises(ConfigError, match=r"contrast and saturation in \[0, 1\] and hue in"):
        Augmentation(color_jitter=strengths)


def test_frames_of_a_sample_change_together() -> None:
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=3, roll=2)
    image = torch.rand(5, 2, 8, 8)
    frames = image.expand(4, *image.shape)
    out = augmentation(frames, seeded())
    assert out.shape == frames.shape
    assert all(torch.equal(out[0], out[t]) for t in range(4))
    assert not torch.equal(out[0], image)
    assert torch.equal(out, augmentation(frames, seeded()))
    assert torch.equal(Augmentation()(frames, seeded()), frames)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("name", ["crop_padding", "cutout", "roll"])
def test_negative_numbers_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Augmentation(**{name: -1})  # type: ignore[arg-type]
