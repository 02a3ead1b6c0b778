"""Folders of image files, one folder a class; read when they are needed, in worker threads."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spikefold.data._folders import ClassFiles, find_classes
from spikefold.data._frames import Framing
from spikefold.data._images import read_image
from spikefold.data._samples import Samples
from spikefold.data._sources import folder
from spikefold.data._splits import Parts
from spikefold.errors import DataError

ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
IMAGENET = (1_281_167, 50_000)
# the official code scales ImageNet's shorter side to 256 for 224 pixels
MARGIN = 256 / 224


@dataclass(frozen=True, repr=False)
class FileSamples(Samples):
    """Image files, each read by `read_image`.

    Arguments:
        paths: of the files.
        labels: class of each, `[N]`.
        size: height and width of what is read.
        margin: as of `read_image`.
    """

    paths: tuple[Path, ...]
    labels: Int64[Tensor, "N"]
    size: int
    margin: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return (3, self.size, self.size)

    def read(self, chosen: Int64[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
        """Some images, decoded in worker threads."""
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            paths = (self.paths[n] for n in chosen.tolist())
            read = partial(read_image, size=self.size, margin=self.margin)
            return torch.from_numpy(np.stack(list(workers.map(read, paths))))

    def subset(self, chosen: Int64[Tensor, "M"]) -> "FileSamples":
        """The samples at these places."""
        paths = tuple(self.paths[n] for n in chosen.tolist())
        return replace(self, paths=paths, labels=self.labels[chosen])

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


def find_imagenet(root: Path | None) -> Path | None:
    """The folder with val/ (and train/), if there is one: the user's, or imagenet/ in it."""
    for place in (folder(root), folder(root) / "imagenet"):
        if (place / "val").is_dir():
            return place
    return None


def find_folder(root: Path | None) -> Path | None:
    """The user's folder; only if one is named."""
    return root if root is not None and root.is_dir() else None


def imagenet(root: Path | None, framing: Framing) -> Parts:
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
    return replace(image_folder(place, framing), sizes=IMAGENET)


def image_folder(root: Path | None, framing: Framing) -> Parts:
    """Images by class: train/CLASS/* and test/CLASS/* (or val/), or CLASS/* alone.

    Classes are numbered in the order of their names. Without a test folder a tenth of each class
    is held out, and the note says so.

    Raises:
        DataError: if the folder is not named or absent, or its parts have no folders of classes.
    """
    size, margin = framing.size, framing.margin
    if size is None or margin is None:
        raise DataError(f"{root}: to what size and margin are its images to be scaled?")

    def read(files: ClassFiles) -> FileSamples:
        return FileSamples(files.paths, files.labels, size, margin)

    parts = find_classes(root, ENDINGS, "images").parts(read)
    return replace(parts, framing=framing)
