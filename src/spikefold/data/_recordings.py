"""Single recordings of event cameras, in the formats of their makers."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikefold.data._aedat4 import aedat4_reader
from spikefold.data._bytes import opened_zip, require_file
from spikefold.data._five_bytes import read_bs2, read_nmnist
from spikefold.data._frames import EVENT
from spikefold.data._prophesee import read_prophesee, stated_sensor
from spikefold.errors import DataError

HEADER = 4096  # bytes in which a format can be told
ENDINGS = (".aedat4", ".raw", ".dat", ".bin", ".bs2", ".npz", ".npy")
KNOWN = (
    "AEDAT 4, EVT 2, EVT 3, Prophesee .dat, N-MNIST's .bin, SLAYER's .bs2, .npz of t, x, y, p, "
    "DVS128 Gesture's .npy"
)
# cameras whose files do not say so, smallest first
NMNIST, CALTECH, DVS128 = (34, 34), (240, 180), (128, 128)


@dataclass(frozen=True)
class Recording:
    """What an event camera saw.

    Attributes:
        events: structured as `EVENT`, in the file's order.
        sensor: width and height; where the file does not say, of the smallest usual camera of the
            format that fits, or of the smallest at all.
        format: of the file: "AEDAT 4", "EVT 2", "EVT 3", "Prophesee DAT", "N-MNIST",
            "N-Caltech101", "bs2", "npz" or "npy".
        stated: whether the file says what sensor it is from.
    """

    events: np.ndarray
    sensor: tuple[int, int]
    format: str
    stated: bool = True


def read_recording(path: Path) -> Recording:
    """Read AEDAT 4, EVT 2, EVT 3, Prophesee .dat, N-MNIST's .bin, SLAYER's .bs2, .npz or .npy.

    Formats are told apart by their content; .bin and .bs2, which have no header, by the name. An
    .npz file holds the arrays t (microseconds), x, y and p (0 or -1: darker, 1: brighter), or one
    structured array `events` with these fields; an .npy file rows of x, y, polarity and
    milliseconds, as DVS128 Gesture is unpacked.

    Raises:
        DataError: if the file is absent, of another format, damaged or without events, or if a
            reader is not installed.
    """
    return next(read_recordings([path]))


def read_recordings(paths: Iterable[Path]) -> Iterator[Recording]:
    """Recordings one after another, as `read_recording` reads them.

    Arguments:
        paths: of files in any of the formats.

    Raises:
        DataError: as `read_recording` does.
    """
    with ExitStack() as stack:
        reader = None
        for path in paths:
            require_file(path)
            try:
                with path.open("rb") as file:
                    head = file.read(HEADER)
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
            if head.startswith(b"#!AER-DAT4"):
                reader = reader or stack.enter_context(aedat4_reader())
                recording = Recording(*reader.read(path), "AEDAT 4")
            else:
                recording = _read(path, head)
            if not len(recording.events):
                raise DataError(
                    f"{path}: no events in this {recording.format} file: is it cut off?"
                )
            yield recording


def _read(path: Path, head: bytes) -> Recording:
    if re.search(rb"% (evt 2\.0|format EVT2;)", head):
        return _read_prophesee(path, "evt2", "EVT 2")
    if re.search(rb"% (evt 3\.0|format EVT3;)", head):
        return _read_prophesee(path, "evt3", "EVT 3")
    if head.startswith(b"% Data file"):
        return _read_prophesee(path, "dat", "Prophesee DAT")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _fitted(_read_npz(path), "npz", ())
    if head.startswith(b"\x93NUMPY"):
        return _fitted(_read_npy(path), "npy", (DVS128,))
    if path.suffix == ".bin" and head:
        events = read_nmnist(path.read_bytes(), str(path))
        small = _fits(events, NMNIST)
        return _fitted(events, "N-MNIST" if small else "N-Caltech101", (NMNIST, CALTECH))
    if path.suffix == ".bs2" and head:
        return _fitted(read_bs2(path.read_bytes(), str(path)), "bs2", (DVS128,))
    raise DataError(f"{path}: not a known format of recordings ({KNOWN})")


def _fitted(events: np.ndarray, name: str, sensors: Sequence[tuple[int, int]]) -> Recording:
    """A recording whose file does not state its sensor: the smallest usual one that fits."""
    if not len(events):
        return Recording(events, (1, 1), name, stated=False)
    smallest = int(events["x"].max()) + 1, int(events["y"].max()) + 1
    sensor = next((sensor for sensor in sensors if _fits(events, sensor)), smallest)
    return Recording(events, sensor, name, stated=False)


def _fits(events: np.ndarray, sensor: tuple[int, int]) -> bool:
    return bool((events["x"] < sensor[0]).all() and (events["y"] < sensor[1]).all())


def _read_prophesee(path: Path, encoding: str, name: str) -> Recording:
    data = path.read_bytes()
    events = read_prophesee(data, encoding, f"{path}: this {name} file")
    sensor = stated_sensor(data[:HEADER])
    return Recording(events, sensor, name) if sensor else _fitted(events, name, ())


def _read_npz(path: Path) -> np.ndarray:
    with opened_zip(path):
        pass  # what is in it is modest
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: Mapping[str, np.ndarray] = dict(stored)
    except Exception as error:  # zipfile, zlib and numpy have no common type
        raise DataError(f"{path}: this npz file is damaged or cut off ({error})") from error
    fields = arrays["events"].dtype.names if "events" in arrays else None
    if fields:
        arrays = {name: arrays["events"][name] for name in fields}
    if not set("txyp") <= set(arrays):
        raise DataError(
            f"{path}: an npz file of events has arrays t, x, y and p, or `events` with these "
            f"fields; this one has {', '.join(arrays) or 'none'}"
        )
    if len({arrays[name].shape for name in "txyp"}) > 1 or arrays["t"].ndim != 1:
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in "txyp")
        raise DataError(f"{path}: t, x, y and p must have the same length, got {shapes}")
    return _checked(arrays, path)


def _read_npy(path: Path) -> np.ndarray:
    try:
        # mapped, so that a header that claims more than the file holds costs nothing
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # mmap, tokenize and numpy have no common type
        raise DataError(f"{path}: this npy file is damaged or cut off ({error})") from error
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: an npy file of events is numbers [N, 4]: x, y, polarity and milliseconds; "
            f"this one is {rows.dtype} {list(rows.shape)}"
        )
    exact = rows.astype(np.float64 if rows.dtype.kind == "f" else np.int64)
    arrays = dict(zip("xypt", exact.T, strict=True))
    return _checked({**arrays, "t": np.rint(arrays["t"] * 1000)}, path)


def _checked(arrays: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """Arrays t, x, y and p as `EVENT`."""
    events = np.empty(len(arrays["t"]), dtype=EVENT)
    limits = {"t": (-(2**63), 2**63), "x": (0, 2**16), "y": (0, 2**16), "p": (-1, 2)}
    for name, (low, high) in limits.items():
        values = arrays[name]
        if (
            values.dtype.kind not in "biuf"
            or not ((values >= low) & (values < high) & (values == np.trunc(values))).all()
        ):
            unit = "whole microseconds" if name == "t" else f"whole numbers in [{low}, {high})"
            raise DataError(f"{path}: {name} must hold {unit}")
        events[name] = values > 0 if name == "p" else values
    return events
