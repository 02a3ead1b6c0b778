"""Runs as they lie on disk: their folders and records."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikefold.errors import DataError, SpikefoldError
from spikefold.records import CONFIG, LAST, METRICS, SUMMARY

# of an epoch, and up to where it makes sense
MEASURED = {
    "train_loss": 1e30,
    "validation_loss": 1e30,
    "train_accuracy": 1.0,
    "validation_accuracy": 1.0,
}


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders of finished runs: those given, or what lies in them; each once.

    Raises:
        DataError: if a folder holds no finished run; says how to go on with one that was begun.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        summaries = [file.parent for file in sorted(path.glob(f"**/{SUMMARY}"))]
        finished = [directory for directory in summaries if not _was_trained_on(directory)]
        if not finished:
            what = f"no finished run ({SUMMARY}) in it" if path.exists() else "no such directory"
            begun = "".join(f"; {told}" for _, told in unfinished_runs([path])[:1])
            raise DataError(f"{path}: {what}{begun}")
        found |= {directory.resolve(): directory for directory in finished}
    return list(found.values())


def unfinished_runs(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The folders in these that hold a run without results, and what to do about each."""
    begun = {file.parent for path in paths for file in path.glob(f"**/{METRICS}")}
    return [
        (directory, _how_it_goes_on(directory))
        for directory in sorted(begun)
        if not (directory / SUMMARY).exists() or _was_trained_on(directory)
    ]


def _how_it_goes_on(directory: Path) -> str:
    if not (directory / LAST).exists():
        return f"there is no {LAST} with which to go on"
    return f"spikefold run --resume {shlex.quote(str(directory))} goes on with it"


def _was_trained_on(directory: Path) -> bool:
    """Whether a run was made longer after its results, which are those of fewer epochs."""
    summary, config = (read_record(directory / name) for name in (SUMMARY, CONFIG))
    if summary is None or config is None:
        return False
    with undamaged(directory / CONFIG):
        trained: int = config["optimizer"]["epochs"]
    with undamaged(directory / SUMMARY):
        told: int = summary["experiment"]["optimizer"]["epochs"]
    return trained != told


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
        raise DataError(f"{file}: damaged, or no record of a run ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """What reading came upon, for people who do not know Python."""
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON in line {error.lineno}: {error.msg}"
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]}"
    if isinstance(error, UnicodeDecodeError):
        return "no text in UTF-8"
    if isinstance(error, TypeError | AttributeError | IndexError):
        return f"of another form than a run writes: {error}"
    return str(error)


def read_record(file: Path) -> dict[str, Any] | None:
    """A JSON record, or None where there is no such file.

    Raises:
        DataError: if it is damaged.
    """
    if not file.exists():
        return None
    with undamaged(file):
        record = _parsed(file.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
    return record


def _parsed(text: str) -> Any:
    """The value of JSON, whose halves of characters, which cannot be printed, are question marks.

    Such come of names that are not UTF-8.
    """
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\ud" not in text.lower():
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _refuse_constant(name: str) -> None:
    """Of Python's, not of JSON's; ours are null."""
    raise ValueError(f"{name} is no number of JSON")


def read_history(directory: Path) -> list[dict[str, Any]]:
    """What was measured after each epoch of a run; at least one.

    Raises:
        DataError: if it is damaged.
    """
    file = directory / METRICS
    with undamaged(file):
        # one list, so that the parser tells in which line it failed
        lines = ",\n".join(file.read_text(encoding="utf-8").splitlines())
        history = _parsed(f"[{lines}]")
        if not history:
            raise ValueError("no epochs")
        for number, record in enumerate(history, 1):
            if record["epoch"] != number:
                raise ValueError(f"line {number} is not of epoch {number}")
            if record.keys() & MEASURED != history[0].keys() & MEASURED:
                raise ValueError("epochs differ in what was measured")
            for key in ("train_loss", *(record.keys() & MEASURED)):
                _require_measured(key, record[key])
    return history


def _require_measured(key: str, value: Any) -> None:
    """Refuse what no curve can be drawn of.

    Raises:
        ValueError: says why.
    """
    if key == "validation_loss" and value is None:
        return  # it was not finite
    if type(value) not in (int, float) or not 0 <= value <= MEASURED[key]:
        raise ValueError(f"{key} is no number in [0, {MEASURED[key]:g}]")
