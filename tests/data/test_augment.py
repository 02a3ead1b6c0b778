"""Augmentation against explicit loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikefold.data import Augmentation, cutout, random_crop, random_flip, random_roll
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
