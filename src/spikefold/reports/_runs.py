"""Runs as they lie on disk: their folders and records."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikefold.errors import DataError, SpikefoldError
from spikefold.records import METRICS, SUMMARY


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders of finished runs: those given, or what lies in them; each once.

    Raises:
        DataError: if a folder holds no finished run.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        found = sorted(path.glob(f"**/{SUMMARY}"))
        if not found:
            what = f"no finished run ({SUMMARY}) in it" if path.exists() else "no such directory"
            raise DataError(f"{path}: {what}")
        files |= {file.resolve(): file for file in found}
    return [file.parent for file in files.values()]


def unfinished_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders in these that hold a run without results."""
    begun = {file.parent for path in paths for file in path.glob(f"**/{METRICS}")}
    return sorted(directory for directory in begun if not (directory / SUMMARY).exists())


@contextmanager
def undamaged(file: Path) -> Iterator[None]:
    """Whatever a record lacks, or has of another form, is told as the file's fault.

    Raises:
        DataError: with the file's name.
    """
    try:
        yield
    except SpikefoldError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise DataError(f"{file}: damaged, or no record of a run ({error!r})") from error


def read_record(file: Path) -> dict[str, Any] | None:
    """A JSON record, or None where there is no such file.

    Raises:
        DataError: if it is damaged.
    """
    if not file.exists():
        return None
    with undamaged(file):
        record = json.loads(file.read_text())
        if not isinstance(record, dict):
            raise TypeError("no JSON object")
    return record


def read_history(directory: Path) -> list[dict[str, Any]]:
    """What was measured after each epoch of a run; at least one.

    Raises:
        DataError: if it is damaged.
    """
    file = directory / METRICS
    with undamaged(file):
        history = [json.loads(line) for line in file.read_text().splitlines()]
        if not history:
            raise ValueError("no epochs")
        for record in history:
            keys = {"epoch", "train_loss", "validation_accuracy"} & {"epoch", "train_loss", *record}
            if not all(type(record[key]) in (int, float) for key in keys):
                raise ValueError("a measurement is no number")
    return history
