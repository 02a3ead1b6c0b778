"""Data sets by name."""

from collections.abc import Callable
from pathlib import Path

from spikefold.data._digits import digits
from spikefold.data._samples import Dataset, Samples, stratified_split
from spikefold.errors import DataError

# name -> samples for training, and for test
LOADERS: dict[str, Callable[[], tuple[Samples, Samples]]] = {"digits": digits}


def load_dataset(
    name: str, validation: float = 0.1, seed: int = 0, root: Path | None = None
) -> Dataset:
    """The data set of this name.

    Arguments:
        name: one of `LOADERS`.
        validation: fraction of the training samples held out, by class, for choosing.
        seed: decides which.
        root: folder in which it lies.

    Raises:
        DataError: if the data set is unknown or absent.
    """
    if name not in LOADERS:
        raise DataError(f"unknown data set {name!r}: one of {', '.join(LOADERS)}")
    training, test = LOADERS[name]()
    kept, held_out = stratified_split(training.labels, validation, seed)
    classes = int(training.labels.max()) + 1
    return Dataset(name, classes, training.subset(kept), training.subset(held_out), test)
