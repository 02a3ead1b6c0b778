"""Image files as arrays in [0, 1], whatever their mode."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from spikefold.data._bytes import require_file
from spikefold.errors import DataError

EIGHT_BITS = {
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr",
}  # fmt: skip
# Pillow widens these formats' 16 bits to 32
SIXTEEN_BITS_IN_32 = {"PNG", "PPM"}
LARGEST = 2**26  # pixels of a scaled image
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF


def read_image(
    path: Path, size: int, margin: float, *, gray: bool = False
) -> Float32[np.ndarray, "C S S"]:
    """An image file as red, green and blue in [0, 1]: scaled, then the centre cut out.

    16 bits a pixel are taken whole; what is transparent shows white.

    Arguments:
        path: of the file.
        size: height and width of what is cut out.
        margin: the shorter side is scaled to `margin * size` (bilinear).
        gray: one channel, the luminance, instead of three.

    Raises:
        DataError: if the file is absent, damaged or no image, or its levels have no scale that is
            known (32 bits a pixel), or it is so far from square that it would become huge.
    """
    require_file(path)
    try:
        with Image.open(path) as image:
            _require_modest(image, path, round(size * margin))
            plain = _plain(image, path)
            levels = plain.convert("L") if gray and plain.mode == "RGB" else plain
            pixels = np.asarray(_centre(levels, round(size * margin), size), dtype=np.float32)
            depth = 1 if levels.mode == "F" else 255
    except DataError:
        raise
    except Exception as error:  # Pillow's readers have no common type
        raise DataError(f"{path} is damaged, or not a readable image ({error})") from error
    channels = np.atleast_3d(pixels.clip(0, depth) / np.float32(depth)).transpose(2, 0, 1)
    return np.broadcast_to(channels, (1 if gray else 3, size, size)).astype(np.float32)


def _require_modest(image: Image.Image, path: Path, shorter: int) -> None:
    """Refuse an image that would become too large: it is scaled whole, before the centre is cut."""
    longer = shorter * max(image.size) // max(1, min(image.size))
    if shorter * longer > LARGEST:
        raise DataError(
            f"{path}: {image.width}x{image.height} would be scaled to {shorter}x{longer}: too far "
            "from square"
        )


def _plain(image: Image.Image, path: Path) -> Image.Image:
    """The image without palette, transparency or 16 bits: RGB, or gray levels in [0, 1] ("F")."""
    if image.mode in EIGHT_BITS:
        if not image.has_transparency_data:
            return image.convert("RGB")
        whole = image.convert("LA") if image.mode == "La" else image
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, whole.convert("RGBA")).convert("RGB")
    wide = image.mode == "I" and image.format in SIXTEEN_BITS_IN_32
    if (wide or image.mode.startswith("I;16")) and "transparency" not in image.info:
        levels = np.asarray(image).astype(np.float32) / _highest(image)
        return Image.fromarray(1 - levels if _is_negative(image) else levels)
    raise DataError(
        f"{path}: an image of mode {image.mode} ({image.format}): the scale of its levels is not "
        "known: save it with 8 bits a colour, or as gray with 16"
    )


def _highest(image: Image.Image) -> np.float32:
    """The level of white: TIFF may have 12 of the 16 bits."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
    return np.float32(2**bits - 1)


def _is_negative(image: Image.Image) -> bool:
    """Whether level 0 is white, which Pillow handles for 8 bits only."""
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO


def _centre(image: Image.Image, shorter: int, size: int) -> Image.Image:
    """The centre of the scaled image, rounded as torchvision's Resize and CenterCrop do."""
    width, height = (shorter * side // min(image.size) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
