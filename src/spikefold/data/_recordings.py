"""Single recordings of event cameras, in the formats of their makers."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikefold.data._frames import structured
from spikefold.data._nmnist import SENSOR, read_nmnist
from spikefold.errors import DataError

HEADER = 4096  # bytes in which a format can be told


@dataclass(frozen=True)
class Recording:
    """What an event camera saw.

    Attributes:
        events: structured as `EVENT`, in the file's order.
        sensor: width and height; where the file does not say, of the smallest sensor that fits.
        format: of the file: "AEDAT 4", "EVT 2", "EVT 3", "Prophesee DAT" or "N-MNIST".
    """

    events: np.ndarray
    sensor: tuple[int, int]
    format: str


def read_recording(path: Path) -> Recording:
    """Read AEDAT 4, EVT 2, EVT 3, Prophesee .dat or N-MNIST .bin, told apart by their content.

    Raises:
        DataError: if the file is absent, of another format, damaged or without events, or if a
            reader is not installed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if head.startswith(b"#!AER-DAT4"):
        recording = _read_aedat4(path)
    elif re.search(rb"% evt 2\.0", head):
        recording = _read_prophesee(path, "evt2", "EVT 2", head)
    elif re.search(rb"% evt 3\.0", head):
        recording = _read_prophesee(path, "evt3", "EVT 3", head)
    elif head.startswith(b"% Data file"):
        recording = _read_prophesee(path, "dat", "Prophesee DAT", head)
    elif path.suffix == ".bin" and head:
        recording = Recording(read_nmnist(path.read_bytes(), str(path)), SENSOR, "N-MNIST")
    else:
        raise DataError(
            f"{path}: no recording that is known (AEDAT 4, EVT 2, EVT 3, Prophesee .dat, "
            "N-MNIST .bin)"
        )
    if not len(recording.events):
        raise DataError(f"{path}: no events in this {recording.format} file: is it cut off?")
    return recording


def _read_prophesee(path: Path, encoding: str, name: str, head: bytes) -> Recording:
    try:
        from expelliarmus import Wizard
    except ImportError as error:
        raise DataError(f"{name} needs a reader: pip install 'spikefold[events]'") from error
    _require_body(path, name)
    try:
        with _with_suffix(path, ".dat" if encoding == "dat" else ".raw") as named:
            events = structured(Wizard(encoding=encoding).read(str(named)))
    except (RuntimeError, ValueError, OSError, TypeError) as error:
        raise DataError(f"{path}: this {name} file is damaged or cut off ({error})") from error
    sizes = [re.search(rb"% " + key + rb" (\d+)", head) for key in (b"Width", b"Height")]
    geometry = re.search(rb"% geometry (\d+)x(\d+)", head)
    if geometry:
        return Recording(events, (int(geometry[1]), int(geometry[2])), name)
    if sizes[0] and sizes[1]:
        return Recording(events, (int(sizes[0][1]), int(sizes[1][1])), name)
    return Recording(events, _smallest(events), name)


def _require_body(path: Path, name: str) -> None:
    """Refuse a file that ends within its header of "%" lines; the reader would never return."""
    with path.open("rb") as file:
        line = file.readline()
        while line.startswith(b"%") and line.endswith(b"\n"):
            line = file.readline()
    if not line or line.startswith(b"%"):
        raise DataError(f"{path}: no events in this {name} file: it is cut off in its header")


@contextmanager
def _with_suffix(path: Path, suffix: str) -> Iterator[Path]:
    """The file, or a copy with the suffix that the reader insists on."""
    if path.suffix == suffix:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copy(path, Path(folder) / f"recording{suffix}"))


def _read_aedat4(path: Path) -> Recording:
    try:
        import aedat
    except ImportError as error:
        raise DataError("AEDAT 4 needs a reader: pip install 'spikefold[events]'") from error
    try:
        decoder = aedat.Decoder(str(path))
        streams = [s for s in decoder.id_to_stream().values() if s["type"] == "events"]
        packets = [structured(packet["events"]) for packet in decoder if "events" in packet]
    except Exception as error:  # the reader's own errors have no common type
        raise DataError(f"{path}: this AEDAT 4 file is damaged or cut off ({error})") from error
    if not streams or not packets:
        raise DataError(f"{path}: no events in this AEDAT 4 file")
    events = np.concatenate(packets)
    return Recording(events, (int(streams[0]["width"]), int(streams[0]["height"])), "AEDAT 4")


def _smallest(events: np.ndarray) -> tuple[int, int]:
    if not len(events):
        return 1, 1
    return int(events["x"].max()) + 1, int(events["y"].max()) + 1
