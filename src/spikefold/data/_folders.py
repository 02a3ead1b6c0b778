"""Folders of files by class: train/CLASS/* and test/CLASS/*, or CLASS/* alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from spikefold.data._bytes import require_file
from spikefold.data._samples import Samples
from spikefold.data._splits import HELD_OUT, Parts, held_out
from spikefold.errors import DataError

LEFT_BY_SYSTEMS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
TRAIN, TESTS = "train", ("test", "val", "validation")


@dataclass(frozen=True)
class ClassFiles:
    """Files and the class of each.

    Arguments:
        paths: in the order of classes, then of names.
        labels: class of each, `[N]`.
    """

    paths: tuple[Path, ...]
    labels: Int64[Tensor, "N"]


@dataclass(frozen=True)
class ClassFolders:
    """Where the classes' folders lie.

    Arguments:
        root: the whole.
        names: of the classes, in alphabetical order.
        train: holds a folder a class; None if there is only a test part.
        test: likewise; None if there is no test part.
        endings: of the files' names, in lower case.
        what: the files are, for messages.
        note: what a reader of results must know.
    """

    root: Path
    names: tuple[str, ...]
    train: Path | None
    test: Path | None
    endings: Sequence[str]
    what: str
    note: str = ""

    def files(self, place: Path | None) -> ClassFiles:
        """The files of one part, without hidden ones.

        Raises:
            DataError: if there is no such part or no file in it, it has a class that is not
                trained, or something in it is not a regular file.
        """
        if place is None:
            raise DataError(
                f"{self.root}: no {TRAIN}/ with a folder per class next to the test part"
            )
        strangers = set(visible_folders(place)) - set(self.names)
        if strangers:
            raise DataError(
                f"{place / min(strangers)}: a class that is not among those for training"
            )
        paths, labels = [], []
        for label, name in enumerate(self.names):
            found = sorted(
                path
                for path in (place / name).glob("*")
                if path.suffix.lower() in self.endings and not path.name.startswith(".")
            )
            for path in found:
                require_file(path)
            paths += found
            labels += [label] * len(found)
        if not paths:
            raise DataError(
                f"{place}: no {self.what} in folders of their classes "
                f"(CLASS/*{', CLASS/*'.join(self.endings)})"
            )
        return ClassFiles(tuple(paths), torch.tensor(labels))

    def parts(self, read: Callable[[ClassFiles], Samples]) -> Parts:
        """Training and test samples; a tenth of each class is for test where there is no other.

        Arguments:
            read: makes samples of files.
        """

        def training() -> Samples:
            return read(self.files(self.train))

        if self.test is None:
            return Parts(self.names, *held_out(training, self.names), note=HELD_OUT)
        return Parts(self.names, training, lambda: read(self.files(self.test)), note=self.note)


def find_classes(root: Path | None, endings: Sequence[str], what: str) -> ClassFolders:
    """The folders of classes in a folder; hidden ones (.git, ...) do not count.

    train/, test/, val/ and validation/ are parts if they hold folders; else a class may have such a
    name.

    Arguments:
        root: the user's folder.
        endings: of the files' names, in lower case.
        what: the files are, for messages.

    Raises:
        DataError: if the folder is not named or absent, or its parts have no folders of classes.
    """
    if root is None:
        raise DataError(f"--data.root (root) names the folder of {what}: there is no default")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of {what}")
    folders = visible_folders(root)
    parts = [part for part in (TRAIN, *TESTS) if part in folders and visible_folders(root / part)]
    found = ClassFolders(root, tuple(folders), root, None, endings, what)
    if parts:
        tests = [part for part in parts if part != TRAIN]
        train = root / TRAIN if TRAIN in parts else None
        found = replace(
            found,
            names=tuple(visible_folders(root / parts[0])),
            train=train,
            test=root / tests[0] if tests else None,
            note="" if train is None or not tests[1:] else (
                f"{tests[1]}/ is not used: test samples are {tests[0]}/'s, validation samples are "
                f"some of {TRAIN}/'s"
            ),
        )  # fmt: skip
    elif folders and set(folders) <= {TRAIN, *TESTS}:
        raise DataError(f"{root}: {folders[0]}/ must hold a folder a class ({folders[0]}/CLASS/*)")
    return found


def visible_folders(place: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return sorted(
        path.name
        for path in place.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in LEFT_BY_SYSTEMS
    )
