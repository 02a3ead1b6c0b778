"""Folders of image files, one folder a class; read when they are needed, in worker threads."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spikefold.data._frames import Framing
from spikefold.data._samples import Samples, stratified_split
from spikefold.data._sources import folder
from spikefold.errors import DataError

ENDINGS = {".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
TESTS = ("test", "val", "validation")
MARGIN = 256 / 224  # shorter side before the centre is cut out
HELD_OUT = "no folder test/ or val/: a tenth of each class (seed 0) is held out as the test set"


@dataclass(frozen=True)
class FileSamples(Samples):
    """Image files: the shorter side scaled to 256/224 of the size, then the centre cut out.

    Arguments:
        paths: of the files.
        labels: class of each, `[N]`.
        size: height and width of what is read.
    """

    paths: tuple[Path, ...]
    labels: Int64[Tensor, "N"]
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (3, self.size, self.size)

    def read(self, chosen: Int64[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
        """Some images, decoded in worker threads."""
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            pixels = list(workers.map(self._pixels, chosen.tolist()))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255

    def subset(self, chosen: Int64[Tensor, "M"]) -> "FileSamples":
        """The samples at these places."""
        paths = tuple(self.paths[n] for n in chosen.tolist())
        return FileSamples(paths, self.labels[chosen], self.size)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `Samples.batches`; the next batch is decoded while one is used."""
        with ThreadPoolExecutor(1) as ahead:
            pending = None
            for chosen in self.order(generator).split(size):
                following = ahead.submit(self.read, chosen), self.labels[chosen]
                if pending is not None:
                    yield pending[0].result(), pending[1]
                pending = following
            if pending is not None:
                yield pending[0].result(), pending[1]

    def _pixels(self, number: int) -> np.ndarray:
        path = self.paths[number]
        try:
            with Image.open(path) as image:
                return _centre(image.convert("RGB"), self.size)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} is damaged or no image ({error})") from error


def _centre(image: Image.Image, size: int) -> np.ndarray:
    """The centre of the scaled image, `[size, size, 3]`."""
    scale = round(size * MARGIN) / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def find_imagenet(root: Path | None) -> Path | None:
    """The folder with train/ and val/, if there is one: the user's, or imagenet/ in it."""
    for place in (folder(root), folder(root) / "imagenet"):
        if (place / "train").is_dir() and (place / "val").is_dir():
            return place
    return None


def find_folder(root: Path | None) -> Path | None:
    """The user's folder; only if one is named."""
    return root if root is not None and root.is_dir() else None


def imagenet(root: Path | None, framing: Framing) -> tuple[FileSamples, FileSamples, str]:
    """ImageNet from a folder: train/CLASS/*.JPEG and val/CLASS/*.JPEG; val is the test set.

    Raises:
        DataError: if it is not there.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015.
    """
    place = find_imagenet(root)
    if place is None:
        raise DataError(
            f"ImageNet is not in {folder(root)}: it must hold train/CLASS/*.JPEG and "
            "val/CLASS/*.JPEG (image-net.org gives it to those who register)"
        )
    return image_folder(place, framing)


def image_folder(root: Path | None, framing: Framing) -> tuple[FileSamples, FileSamples, str]:
    """Images by class: train/CLASS/* and test/CLASS/* (or val/), or CLASS/* alone.

    Classes are numbered in the order of their names. Without a test folder a tenth of each class
    is held out, and the note says so.

    Raises:
        DataError: if the folder is not named or absent, holds no images, or its test folder has
            a class that is not trained.
    """
    if root is None or not root.is_dir():
        raise DataError(f"a folder of images must be named as root, got {root}")
    if framing.size is None:
        raise DataError(f"{root}: to what size are its images to be scaled?")
    training = root / "train" if (root / "train").is_dir() else root
    classes = sorted(path.name for path in training.iterdir() if path.is_dir())
    samples = _samples(training, classes, framing.size)
    tests = [root / name for name in TESTS if (root / name).is_dir()] if training != root else []
    if tests:
        return samples, _samples(tests[0], classes, framing.size), ""
    kept, held_out = stratified_split(samples.labels, fraction=0.1, seed=0)
    return samples.subset(kept), samples.subset(held_out), HELD_OUT


def _samples(place: Path, classes: Sequence[str], size: int) -> FileSamples:
    strangers = {path.name for path in place.iterdir() if path.is_dir()} - set(classes)
    if strangers:
        raise DataError(f"{place / min(strangers)}: a class that is not among those for training")
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (place / name).glob("*") if p.suffix.lower() in ENDINGS)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{place}: no images in folders of their classes (CLASS/*.png, ...)")
    return FileSamples(tuple(paths), torch.tensor(labels), size)
