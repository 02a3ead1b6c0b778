"""Data sets by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spikefold.data._cifar import cifar10, cifar100, find_cifar10, find_cifar100
from spikefold.data._digits import digits, find_digits
from spikefold.data._fashion_mnist import fashion_mnist, find_fashion_mnist
from spikefold.data._nmnist import find_nmnist, nmnist
from spikefold.data._samples import Dataset, Samples, stratified_split
from spikefold.errors import DataError


@dataclass(frozen=True)
class DatasetInfo:
    """A data set that can be loaded by name.

    Attributes:
        name: what the command line and configurations call it.
        summary: what is in it.
        size: of its files.
        licence: of its contents.
        origin: where it comes from.
        load: training samples, test samples and a note, from a folder.
        find: where it is, if it is there.
    """

    name: str
    summary: str
    size: str
    licence: str
    origin: str
    load: Callable[[Path | None], tuple[Samples, Samples, str]]
    find: Callable[[Path | None], Path | None]


DATASETS = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits",
            "1,797 gray images 8x8 of handwritten digits, 10 classes",
            "in scikit-learn",
            "CC BY 4.0",
            "https://archive.ics.uci.edu/dataset/80",
            digits,
            find_digits,
        ),
        DatasetInfo(
            "fashion-mnist",
            "70,000 gray images 28x28 of clothes, 10 classes",
            "31 MB",
            "MIT",
            "https://github.com/zalandoresearch/fashion-mnist",
            fashion_mnist,
            find_fashion_mnist,
        ),
        DatasetInfo(
            "cifar10",
            "60,000 colour images 32x32, 10 classes",
            "170 MB",
            "not stated",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            cifar10,
            find_cifar10,
        ),
        DatasetInfo(
            "cifar100",
            "60,000 colour images 32x32, 100 classes",
            "169 MB",
            "not stated",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            cifar100,
            find_cifar100,
        ),
        DatasetInfo(
            "nmnist",
            "70,000 event recordings 34x34 of handwritten digits, 10 classes",
            "1.2 GB",
            "CC BY-SA 4.0",
            "https://www.garrickorchard.com/datasets/n-mnist",
            nmnist,
            find_nmnist,
        ),
    )
}


def load_dataset(
    name: str, validation: float = 0.1, seed: int = 0, root: Path | None = None
) -> Dataset:
    """The data set of this name.

    Arguments:
        name: one of `DATASETS`.
        validation: fraction of the training samples held out, by class, for choosing.
        seed: decides which.
        root: folder in which it lies; default: $SPIKEFOLD_DATA, or the cache of downloads.

    Raises:
        DataError: if the data set is unknown, absent or damaged.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(DATASETS)}"
        raise DataError(f"unknown data set '{name}': {hint}")
    training, test, notes = DATASETS[name].load(root)
    kept, held_out = stratified_split(training.labels, validation, seed)
    classes = int(training.labels.max()) + 1
    return Dataset(name, classes, training.subset(kept), training.subset(held_out), test, notes)
