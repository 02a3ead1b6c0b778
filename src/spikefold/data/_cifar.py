"""CIFAR-10 and CIFAR-100 from their official binary versions."""

import lzma
import tarfile
from pathlib import Path

import numpy as np
import torch

from spikefold.data._samples import TensorSamples, stratified_split
from spikefold.data._sources import cached, download, find
from spikefold.errors import DataError

URL10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
URL100 = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
MD5_10 = "c32a1d4ab5d03f1284b67883e8d87530"
MD5_100 = "03b5dce01913d631647c71ecec9e9cb8"
PIXELS = 3 * 32 * 32
TRAIN10 = [f"data_batch_{n}.bin" for n in range(1, 6)]
PLACES10 = ("cifar10", "cifar-10-batches-bin")
PLACES100 = ("cifar100", "cifar-100-binary")
NO_TEST = "no official test batch: 5,000 training images (500 a class, seed 0) are the test set"


def find_cifar10(root: Path | None) -> Path | None:
    """The folder with CIFAR-10's training batches (`.bin` or `.bin.xz`), if there is one."""
    packed = [f"{name}.xz" for name in TRAIN10]
    return find(TRAIN10, root, *PLACES10) or find(packed, root, *PLACES10)


def find_cifar100(root: Path | None) -> Path | None:
    """The folder with CIFAR-100's `train.bin` and `test.bin`, if there is one."""
    return find(["train.bin", "test.bin"], root, *PLACES100)


def cifar10(root: Path | None) -> tuple[TensorSamples, TensorSamples, str]:
    """CIFAR-10: training and test images `[N, 3, 32, 32]`, and a note.

    Where the official test batch is not there, a stratified tenth of the training images is
    held out instead, and the note says so.

    Raises:
        DataError: if a file is absent, damaged or cannot be downloaded.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    place = find_cifar10(root) or _unpacked(URL10, MD5_10, root)
    training = _read([_present(place, name) for name in TRAIN10], label_bytes=1)
    if (place / "test_batch.bin").exists() or (place / "test_batch.bin.xz").exists():
        return training, _read([_present(place, "test_batch.bin")], label_bytes=1), ""
    kept, held_out = stratified_split(training.labels, fraction=0.1, seed=0)
    return training.subset(kept), training.subset(held_out), NO_TEST


def cifar100(root: Path | None) -> tuple[TensorSamples, TensorSamples, str]:
    """CIFAR-100 with fine labels: training and test images `[N, 3, 32, 32]`; no note.

    Raises:
        DataError: if a file is absent, damaged or cannot be downloaded.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    place = find_cifar100(root) or _unpacked(URL100, MD5_100, root)
    training, test = (_read([place / name], label_bytes=2) for name in ("train.bin", "test.bin"))
    return training, test, ""


def _present(place: Path, name: str) -> Path:
    """The file, unpacked or packed."""
    for path in (place / name, place / f"{name}.xz"):
        if path.exists():
            return path
    raise DataError(f"{place / name} is missing (neither it nor {name}.xz is there)")


def _unpacked(url: str, md5: str, root: Path | None) -> Path:
    """Download and unpack the archive; the folder in it."""
    archive = download(url, md5, root)
    with tarfile.open(archive) as tar:
        names = [member.name for member in tar.getmembers() if member.name.endswith(".bin")]
        tar.extractall(archive.parent, filter="data")
    return archive.parent / Path(names[0]).parent


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
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again") from error
    if not data or len(data) % size:
        raise DataError(
            f"{path} is cut off: {len(data):,} bytes are no whole number of {size}-byte records: "
            "fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
