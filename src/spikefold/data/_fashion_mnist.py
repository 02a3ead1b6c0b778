"""Fashion-MNIST from its four idx files."""

from pathlib import Path

import numpy as np
import torch

from spikefold.data._bytes import read_packed
from spikefold.data._samples import TensorSamples
from spikefold.data._sources import download, find
from spikefold.data._splits import Parts
from spikefold.errors import DataError

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
LARGEST = 16 + 60_000 * 28 * 28  # bytes in one file
PLACES = ("fashion-mnist", "/usr/share/datasets/fashion-mnist")  # the latter is Debian's


def find_fashion_mnist(root: Path | None) -> Path | None:
    """The folder with the four files, if there is one."""
    return find(list(FILES), root, *PLACES)


def fashion_mnist(root: Path | None) -> Parts:
    """Fashion-MNIST: 60,000 training and 10,000 test images `[N, 1, 28, 28]`.

    Raises:
        DataError: if a file is damaged, or cannot be downloaded.

    Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST", 2017.
    """
    return Parts(
        NAMES, lambda: _read("train", root), lambda: _read("t10k", root), sizes=(60_000, 10_000)
    )


def _read(part: str, root: Path | None) -> TensorSamples:
    names = [name for name in FILES if name.startswith(part)]
    place = find(names, root, *PLACES)
    images, labels = (
        read_idx(download(URL + name, FILES[name], root) if place is None else place / name)
        for name in names
    )
    if len(images) != len(labels):
        raise DataError(f"{place}: {len(images)} images, but {len(labels)} labels in {part}-*.gz")
    return TensorSamples(images.unsqueeze(1), labels.long(), scale=1 / 255)


def read_idx(path: Path) -> torch.Tensor:
    """The uint8 tensor of a gzipped idx file.

    Raises:
        DataError: if it is not one, or is cut off.
    """
    data = read_packed(path, LARGEST)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"{path} is not an idx file of bytes")
    dimensions = data[3]
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise DataError(f"{path} is cut off in its header")
    shape = tuple(int(n) for n in np.frombuffer(data[4:header], dtype=">u4"))
    if len(data) - header != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} is cut off: {len(data) - header:,} bytes for shape {shape}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy())
