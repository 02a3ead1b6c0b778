"""CIFAR-10 and CIFAR-100 from their official binary versions."""

import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

from spikefold.data._bytes import read_packed
from spikefold.data._samples import TensorSamples
from spikefold.data._sources import cached, download, find
from spikefold.data._splits import Parts, held_out
from spikefold.errors import DataError
from spikefold.replacing import UNFINISHED

URL10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
URL100 = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
MD5_10 = "c32a1d4ab5d03f1284b67883e8d87530"
MD5_100 = "03b5dce01913d631647c71ecec9e9cb8"
PIXELS = 3 * 32 * 32
LARGEST = 50_000  # records in one file
NAMES10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
NAMES100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
    "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
TRAIN10 = [f"data_batch_{n}.bin" for n in range(1, 6)]
TEST10 = "test_batch.bin"
PLACES10 = ("cifar10", "cifar-10-batches-bin")
PLACES100 = ("cifar100", "cifar-100-binary")
NO_TEST = "no official test batch: 5,000 training images (500 a class, seed 0) are the test set"


def find_cifar10(root: Path | None) -> Path | None:
    """The folder with CIFAR-10's training batches, or with its test batch, if there is one."""
    return _find10(TRAIN10, root) or _find10([TEST10], root)


def find_cifar100(root: Path | None) -> Path | None:
    """The folder with CIFAR-100's `train.bin` or `test.bin`, if there is one."""
    return find(["train.bin"], root, *PLACES100) or find(["test.bin"], root, *PLACES100)


def cifar10(root: Path | None) -> Parts:
    """CIFAR-10: 50,000 training and 10,000 test images `[N, 3, 32, 32]`.

    Where only training batches are there, a stratified tenth of their images is held out for
    test, and the note says so.

    Raises:
        DataError: if it cannot be downloaded.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if find_cifar10(root) is None:
        root = _unpacked(URL10, MD5_10, root)

    def read(names: list[str]) -> TensorSamples:
        place = _find10(names, root) or find_cifar10(root)
        assert place is not None
        return _read([_present(place, name) for name in names], label_bytes=1)

    if _find10([TEST10], root) is None:
        return Parts(NAMES10, *held_out(lambda: read(TRAIN10), NAMES10), note=NO_TEST)
    return Parts(NAMES10, lambda: read(TRAIN10), lambda: read([TEST10]), sizes=(50_000, 10_000))


def cifar100(root: Path | None) -> Parts:
    """CIFAR-100 with fine labels: 50,000 training and 10,000 test images `[N, 3, 32, 32]`.

    Raises:
        DataError: if it cannot be downloaded.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if find_cifar100(root) is None:
        root = _unpacked(URL100, MD5_100, root)

    def read(name: str) -> TensorSamples:
        place = find([name], root, *PLACES100) or find_cifar100(root)
        assert place is not None
        return _read([_present(place, name)], label_bytes=2)

    return Parts(
        NAMES100, lambda: read("train.bin"), lambda: read("test.bin"), sizes=(50_000, 10_000)
    )


def _find10(names: list[str], root: Path | None) -> Path | None:
    """The folder with all these batches, unpacked or packed."""
    packed = [f"{name}.xz" for name in names]
    return find(names, root, *PLACES10) or find(packed, root, *PLACES10)


def _present(place: Path, name: str) -> Path:
    """The file, unpacked or packed."""
    for path in (place / name, place / f"{name}.xz"):
        if path.exists():
            return path
    raise DataError(f"{place / name} is missing (neither it nor {name}.xz is there)")


def _unpacked(url: str, md5: str, root: Path | None) -> Path:
    """Download and unpack the archive; the folder in it, which is there whole or not at all."""
    archive = download(url, md5, root)
    with (
        tarfile.open(archive) as tar,
        tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=archive.parent) as temporary,
    ):
        names = [member.name for member in tar.getmembers() if member.name.endswith(".bin")]
        tar.extractall(temporary, filter="data")
        new = Path(temporary, names[0]).parent
        unpacked = archive.parent / new.name
        try:
            new.rename(unpacked)
        except OSError:  # a part of it was there, or another process came first
            for path in new.iterdir():
                path.replace(unpacked / path.name)
    return unpacked


def _read(paths: list[Path], label_bytes: int) -> TensorSamples:
    """Images and (fine) labels of binary batches; decoded once, then from the cache."""

    def decode() -> dict[str, np.ndarray]:
        records = np.concatenate([_records(path, label_bytes + PIXELS) for path in paths])
        return {
            "images": records[:, label_bytes:].reshape(-1, 3, 32, 32),
            "labels": records[:, label_bytes - 1],
        }

    arrays = cached("cifar", paths, decode)
    labels = torch.from_numpy(arrays["labels"]).long()
    return TensorSamples(torch.from_numpy(arrays["images"]), labels, scale=1 / 255)


def _records(path: Path, size: int) -> np.ndarray:
    data = read_packed(path, LARGEST * size)
    if not data or len(data) % size:
        raise DataError(
            f"{path} is cut off: {len(data):,} bytes are not a whole number of {size}-byte "
            "records: fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
