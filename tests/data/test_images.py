"""Image files of every mode, against numpy; what Pillow does not write is written by hand."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikefold.data import Framing, load_dataset, read_image
from spikefold.errors import DataError

MARGIN = 256 / 224

SIZE = 56  # scaled to 64, of which the middle 56 are cut out: files of 64x64 are not resampled
EDGE = 4


def stored(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    """What is read of an image once it is saved."""
    image.save(path, **options)
    return read_image(path, SIZE, MARGIN)


def middle(array: np.ndarray) -> np.ndarray:
    return array[..., EDGE:-EDGE, EDGE:-EDGE]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.ppm"])
def test_eight_bits_are_divided_by_255(name: str, tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(16).reshape(64, 64)
    pixels = np.stack([levels, levels[::-1], levels.T], axis=2)
    read = stored(Image.fromarray(pixels), tmp_path / name)
    assert read.dtype == np.float32
    assert np.array_equal(read, middle(pixels.transpose(2, 0, 1)).astype(np.float32) / 255)
    gray = stored(Image.fromarray(levels), tmp_path / name)
    assert np.array_equal(gray, np.broadcast_to(middle(levels) / np.float32(255), (3, 56, 56)))


RAMP = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)


def tiff(levels: np.ndarray, photometric: int, bits: int = 16) -> bytes:
    """A little-endian TIFF of one strip; photometric 0: white is level 0."""
    data = levels.astype("<u2").tobytes()
    if bits == 12:  # two levels in three bytes
        pairs = levels.reshape(-1, 2).astype(np.uint32)
        joined = (pairs[:, 0] << 12) | pairs[:, 1]
        data = b"".join(int(value).to_bytes(3, "big") for value in joined)
    height, width = levels.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 0),
            (277, 1), (278, height), (279, len(data))]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def png(levels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16-bit gray."""
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in levels)
    header = struct.pack(">IIBBBBB", *levels.shape[::-1], 16, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.png", png(RAMP), RAMP / 65535),
        ("a.tif", tiff(RAMP, 1), RAMP / 65535),
        ("a.tif", tiff(RAMP, 0), 1 - RAMP / 65535),
        ("a.tif", tiff(RAMP // 16, 1, bits=12), (RAMP // 16) / 4095),
        ("a.ppm", b"P5 64 64 65535\n" + RAMP.astype(">u2").tobytes(), RAMP / 65535),
    ],
    ids=["png", "tiff", "tiff-white-is-zero", "tiff-12-bits", "pgm"],
)
def test_a_ramp_of_16_bits_is_a_ramp(
    name: str, data: bytes, expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    read = read_image(tmp_path / name, SIZE, MARGIN)
    assert np.abs(read - middle(expected)).max() < 1e-6
    assert read.mean() == pytest.approx(middle(expected).mean(), abs=1e-6)
    small = read_image(tmp_path / name, 16, MARGIN)  # resampled: still a ramp
    assert small.min() >= 0
    assert small.mean() == pytest.approx(0.5, abs=0.01)


def test_16_bits_a_colour_keep_their_upper_eight(tmp_path: Path) -> None:
    rgb = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)
    (tmp_path / "a.ppm").write_bytes(b"P6 64 64 65535\n" + rgb.astype(">u2").tobytes())
    read = read_image(tmp_path / "a.ppm", SIZE, MARGIN)
    assert np.abs(read - middle(rgb.transpose(2, 0, 1) / 65535)).max() <= 1 / 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_shows_white(mode: str, tmp_path: Path) -> None:
    channels = len(mode)
    pixels = noise(64, 64, channels)
    pixels[:8, :, -1], pixels[8:16, :, -1] = 0, 255
    alpha = pixels[..., -1:] / 255
    expected = (alpha * (pixels[..., :-1] / 255) + 1 - alpha).transpose(2, 0, 1)
    read = stored(Image.fromarray(pixels, mode), tmp_path / "a.png")
    assert np.abs(read - middle(np.broadcast_to(expected, (3, 64, 64)))).max() <= 1 / 255
    assert (read[:, :4] == 1).all()
    opaque = np.broadcast_to(pixels[8:16, EDGE:-EDGE, :-1].transpose(2, 0, 1), (3, 8, 56))
    assert np.array_equal(read[:, 4:12], opaque.astype(np.float32) / 255)


def test_palettes_and_their_transparent_entries(tmp_path: Path) -> None:
    indices, palette = noise(64, 64) % 7, noise(7, 3)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    expected = palette[indices].transpose(2, 0, 1).astype(np.float32) / 255
    assert np.array_equal(stored(image, tmp_path / "a.png"), middle(expected))
    expected[:, indices == 3] = 1
    read = stored(image, tmp_path / "a.png", transparency=3)
    assert np.array_equal(read, middle(expected))


def test_a_transparent_level_of_gray(tmp_path: Path) -> None:
    levels = noise(64, 64) % 5
    read = stored(Image.fromarray(levels), tmp_path / "a.png", transparency=2)
    expected = np.where(levels == 2, 1, levels.astype(np.float32) / 255)
    assert np.array_equal(read[0], middle(expected).astype(np.float32))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = noise(64, 64) > 99
    read = stored(Image.fromarray(bits), tmp_path / "a.png")
    assert np.array_equal(read[1], middle(bits).astype(np.float32))


def test_printers_colours(tmp_path: Path) -> None:
    pixels = noise(64, 64, 4)
    read = stored(Image.fromarray(pixels, "CMYK"), tmp_path / "a.tif")
    inks = pixels / 255
    expected = ((1 - inks[..., :3]) * (1 - inks[..., 3:])).transpose(2, 0, 1)
    assert np.abs(read - middle(expected)).max() <= 1.01 / 255


def test_jpeg_of_printers_colours_is_not_a_negative(tmp_path: Path) -> None:
    light = Image.new("CMYK", (64, 64), (10, 10, 10, 0))
    assert stored(light, tmp_path / "a.jpg", quality=95).min() > 0.9


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (Image.fromarray(np.ones((64, 64), np.int32)), {}, r"mode I \(TIFF\)"),
        (Image.fromarray(np.ones((64, 64), np.float32)), {}, r"mode F \(TIFF\)"),
        (Image.new("LAB", (64, 64)), {}, r"mode LAB \(TIFF\)"),
    ],
)
def test_levels_without_a_scale_are_refused(
    image: Image.Image, options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"a.tif: an image of {message}: the scale of its levels"):
        stored(image, tmp_path / "a.tif", **options)


def test_a_transparent_level_of_16_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(RAMP, (b"tRNS", b"\0\7")))
    with pytest.raises(DataError, match=r"mode I;16 \(PNG\)"):
        read_image(tmp_path / "a.png", SIZE, MARGIN)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (343, 256), (60, 41), (64, 64)])
def test_scaled_and_cut_as_torchvision_does(size: tuple[int, int], tmp_path: Path) -> None:
    """Resize(256 / 224 of the size), CenterCrop(size), written down from their documentation."""
    image = Image.fromarray(noise(size[1], size[0], 3))
    image.save(tmp_path / "a.png")
    for side in (224, 32):
        short = {224: 256, 32: 37}[side]
        w, h = size
        scaled = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
        resized = image.resize(scaled, Image.Resampling.BILINEAR) if scaled != size else image
        left, top = (round((extent - side) / 2.0) for extent in scaled)
        expected = np.asarray(resized)[top : top + side, left : left + side].transpose(2, 0, 1)
        assert np.array_equal(
            read_image(tmp_path / "a.png", side, MARGIN), expected / np.float32(255)
        )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        png(RAMP)[:-900],
        png(RAMP, (b"IDAT", b"x\x9c"), (b"\xffDAT", b"")),
        tiff(RAMP, 1)[:100],
    ],
    ids=["empty", "text", "cut-png", "strange-chunk", "cut-tiff"],
)
def test_broken_files_are_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a.png is damaged, or not a readable image"):
        read_image(tmp_path / "a.png", SIZE, MARGIN)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.png: no such file"):
        read_image(tmp_path / "none.png", SIZE, MARGIN)


def test_modes_may_be_mixed_in_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(10):
            image = Image.fromarray(RAMP) if n % 2 else Image.fromarray(noise(64, 64, 4), "RGBA")
            image.save(tmp_path / name / f"{n}.png")
    dataset = load_dataset("folder", validation=0.2, root=tmp_path, framing=Framing(size=8))
    images, _ = next(dataset.train.batches(100))
    assert images.shape == (14, 3, 8, 8)
    assert images.min() >= 0
    assert images.max() <= 1
