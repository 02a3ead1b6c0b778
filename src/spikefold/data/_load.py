"""Data sets by name."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import torch

from spikefold.data._cameras import (
    CALTECH_FRAMING,
    cifar10_dvs,
    dvs_gesture,
    find_cifar10_dvs,
    find_dvs_gesture,
    find_n_caltech101,
    n_caltech101,
)
from spikefold.data._cameras import FRAMING as CAMERA_FRAMING
from spikefold.data._cifar import cifar10, cifar100, find_cifar10, find_cifar100
from spikefold.data._digits import digits, find_digits
from spikefold.data._fashion_mnist import fashion_mnist, find_fashion_mnist
from spikefold.data._frames import Framing
from spikefold.data._image_folder import (
    MARGIN,
    find_folder,
    find_imagenet,
    image_folder,
    imagenet,
)
from spikefold.data._nmnist import FRAMING as NMNIST_FRAMING
from spikefold.data._nmnist import find_nmnist, nmnist
from spikefold.data._recording_folder import recordings
from spikefold.data._saccades import digits_events
from spikefold.data._samples import Dataset, Samples, SplitName
from spikefold.data._splits import Parts, empty_classes, require_every_class, split_off
from spikefold.errors import DataError
from spikefold.registry import Registry

VALIDATION_HINT = "take another fraction of each class, or 0 to train on all samples"


def anywhere(root: Path | None) -> Path:
    """The place of a data set that is always there."""
    return root or Path()


@dataclass(frozen=True)
class DatasetInfo:
    """A data set that can be loaded by name; `register` takes one of your own.

    Attributes:
        name: what the command line and configurations call it.
        summary: what is in it.
        size: of its files.
        licence: of its contents.
        origin: where it comes from.
        load: its parts, from a folder, or None where none is named (and a framing, if there is
            one).
        find: where it is, if it is there; default: it always is.
        framing: how its recordings or files become tensors unless one asks for another form;
            None where the data have one form only.
        shape: of a sample, where the data have one form only and it is known.
    """

    name: str
    summary: str
    size: str = "yours"
    licence: str = "yours"
    origin: str = "yours"
    _: KW_ONLY
    load: Callable[..., Parts]
    find: Callable[[Path | None], Path | None] = anywhere
    framing: Framing | None = None
    shape: tuple[int, ...] | None = None


DATASETS: Registry[DatasetInfo] = Registry("data set", DataError)


def register(info: DatasetInfo) -> DatasetInfo:
    """Let configurations and the command line name a data set of your own.

    Arguments:
        info: with a name of its own.

    Returns:
        the same.

    Raises:
        DataError: if another data set has the name.
    """
    return DATASETS.add(info.name, info)


for _info in (
    DatasetInfo(
        "digits",
        "1,797 gray images 8x8 of handwritten digits, 10 classes",
        "in scikit-learn",
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/80",
        load=digits,
        find=find_digits,
        shape=(1, 8, 8),
    ),
    DatasetInfo(
        "fashion-mnist",
        "70,000 gray images 28x28 of clothes, 10 classes",
        "31 MB",
        "MIT",
        "https://github.com/zalandoresearch/fashion-mnist",
        load=fashion_mnist,
        find=find_fashion_mnist,
        shape=(1, 28, 28),
    ),
    DatasetInfo(
        "cifar10",
        "60,000 colour images 32x32, 10 classes",
        "170 MB",
        "not stated",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        load=cifar10,
        find=find_cifar10,
        shape=(3, 32, 32),
    ),
    DatasetInfo(
        "cifar100",
        "60,000 colour images 32x32, 100 classes",
        "169 MB",
        "not stated",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        load=cifar100,
        find=find_cifar100,
        shape=(3, 32, 32),
    ),
    DatasetInfo(
        "nmnist",
        "70,000 event recordings 34x34 of handwritten digits, 10 classes",
        "1.2 GB",
        "CC BY-SA 4.0",
        "https://www.garrickorchard.com/datasets/n-mnist",
        load=nmnist,
        find=find_nmnist,
        framing=NMNIST_FRAMING,
    ),
    DatasetInfo(
        "digits-events",
        "simulated: the 1,797 digits before a simulated event camera, 34x34, 10 classes",
        "made from scikit-learn's digits",
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/80",
        load=digits_events,
        find=find_digits,
        framing=NMNIST_FRAMING,
    ),
    DatasetInfo(
        "cifar10-dvs",
        "10,000 event recordings 128x128 of CIFAR-10 images, 10 classes",
        "8 GB",
        "CC BY 4.0",
        "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
        load=cifar10_dvs,
        find=find_cifar10_dvs,
        framing=CAMERA_FRAMING,
    ),
    DatasetInfo(
        "dvs-gesture",
        "1,341 event recordings 128x128 of gestures, 11 classes",
        "3 GB",
        "CC BY 4.0",
        "https://research.ibm.com/interactive/dvsgesture",
        load=dvs_gesture,
        find=find_dvs_gesture,
        framing=CAMERA_FRAMING,
    ),
    DatasetInfo(
        "n-caltech101",
        "8,709 event recordings up to 240x180 of Caltech101 images, 101 classes",
        "4 GB",
        "CC BY 4.0",
        "https://www.garrickorchard.com/datasets/n-caltech101",
        load=n_caltech101,
        find=find_n_caltech101,
        framing=CALTECH_FRAMING,
    ),
    DatasetInfo(
        "imagenet",
        "1,331,167 colour images of many sizes, 1,000 classes (train/ and val/)",
        "150 GB",
        "research only",
        "https://image-net.org",
        load=imagenet,
        find=find_imagenet,
        framing=Framing(size=224, margin=MARGIN),
    ),
    DatasetInfo(
        "folder",
        "image files of your own, a folder a class, in the folder given as root",
        "yours",
        "yours",
        "a local folder",
        load=image_folder,
        find=find_folder,
        framing=Framing(size=32, margin=MARGIN),
    ),
    DatasetInfo(
        "recordings",
        "event recordings of your own, a folder a class, in the folder given as root",
        "yours",
        "yours",
        "a local folder",
        load=recordings,
        find=find_folder,
        framing=Framing(steps=10, size=48, by="time"),
    ),
):
    register(_info)


def load_dataset(
    name: str,
    validation: float = 0.1,
    seed: int = 0,
    root: str | Path | None = None,
    framing: Framing | None = None,
    only: SplitName | None = None,
) -> Dataset:
    """The data set of this name.

    Arguments:
        name: one of `DATASETS`.
        validation: fraction of the training samples held out, by class, for choosing; 0: none.
        seed: decides which.
        root: folder in which it lies; default: $SPIKEFOLD_DATA, or the cache of downloads.
        framing: of recordings and image files; default: the data set's own.
        only: the split that is needed. The test set is read without the training set, which need
            not be there, and the other way round; what was not read is empty.

    Raises:
        DataError: if the data set is unknown, absent or damaged, has one form only and another is
            asked for, or a class is left without samples in a split.
    """
    place = None if root is None else Path(root)
    parts = _parts(find_dataset(name), place, framing or Framing())
    read: dict[SplitName, Samples] = {}
    if only != "test":
        read["train"], read["validation"] = split_off(
            parts.train(), validation, seed, parts.names, "validation", VALIDATION_HINT
        )
    notes = [parts.note]
    if only in (None, "test"):
        read["test"] = parts.test()
        if only is None:
            require_every_class(read["test"].labels, parts.names, "test")
        missing = empty_classes(read["test"].labels, parts.names, "test")
        notes.append(f"no test samples of {missing}" if missing else "")
    notes.append(_sizes_note(parts, read))
    some = next(iter(read.values()))
    nothing = some.subset(torch.zeros(0, dtype=torch.int64))
    return Dataset(
        name,
        len(parts.names),
        read.get("train", nothing),
        read.get("validation", nothing),
        read.get("test", nothing),
        "; ".join(filter(None, notes)),
        parts.names,
        parts.framing,
    )


def _parts(info: DatasetInfo, root: Path | None, asked: Framing) -> Parts:
    """The data set's parts, in the form that is asked for."""
    own = info.framing
    if own is None:
        if asked != Framing():
            names = ", ".join(k for k, v in vars(asked).items() if v is not None)
            raise DataError(f"{info.name} has one form only: leave out {names}")
        return info.load(root)
    if own.steps is None and replace(asked, size=None, margin=None) != Framing():
        raise DataError(f"{info.name} holds images, not recordings: only a size can be chosen")
    if own.steps is not None and asked.margin is not None:
        raise DataError(f"{info.name} holds recordings: a margin is for image files")
    if own.sensor and asked.sensor not in (None, own.sensor):
        raise DataError(f"{info.name}: its sensor is {own.sensor[0]}x{own.sensor[1]}")
    return info.load(root, asked.over(own))


def _sizes_note(parts: Parts, read: Mapping[SplitName, Samples]) -> str:
    """A note on what is missing from the parts that were read, or an empty one."""
    if parts.sizes is None:
        return ""
    sizes = dict(zip(("training", "test"), parts.sizes, strict=True))
    counts = {}
    if "train" in read:
        counts["training"] = len(read["train"]) + len(read["validation"])
    if "test" in read:
        counts["test"] = len(read["test"])
    if all(count == sizes[part] for part, count in counts.items()):
        return ""
    told = (f"{count:,} of {sizes[part]:,} {part} samples" for part, count in counts.items())
    return f"{' and '.join(told)}: a part of the data set"


def is_framed(name: str) -> bool:
    """Whether the samples are event recordings, which become frames."""
    framing = find_dataset(name).framing
    return framing is not None and framing.steps is not None


def known_shape(name: str, framing: Framing) -> tuple[int, ...] | None:
    """The shape of a sample before anything is read, where it is known.

    Arguments:
        name: of the data set.
        framing: that is asked for.
    """
    info = find_dataset(name)
    if info.framing is None:
        return info.shape
    form = framing.over(info.framing)
    if form.steps is None or form.size is None:
        return None  # image files: their channels are seen when they are read
    return (form.steps, 2, form.size, form.size)


def find_dataset(name: str) -> DatasetInfo:
    """The entry of this name.

    Raises:
        DataError: if there is none; names the nearest.
    """
    return DATASETS.find(name)
