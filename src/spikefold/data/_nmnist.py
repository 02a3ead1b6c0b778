"""N-MNIST: MNIST's digits seen by a moving event camera."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from spikefold.data._frames import EVENT, Framing, frames_of
from spikefold.data._samples import TensorSamples
from spikefold.data._sources import cached, folder
from spikefold.errors import DataError

SENSOR = (34, 34)
FRAMING = Framing(steps=6, size=34, by="time")  # two steps for each of the three saccades
PARTS = ("Train", "Test")


def find_nmnist(root: Path | None) -> Path | None:
    """A folder with Train/ and Test/, or a zip file named *nmnist*.zip, if there is one."""
    for place in (folder(root), folder(root) / "nmnist"):
        if all((place / part).is_dir() for part in PARTS):
            return place
        archives = sorted(place.glob("*nmnist*.zip")) if place.is_dir() else []
        if archives:
            return archives[0]
    return None


def nmnist(root: Path | None, framing: Framing) -> tuple[TensorSamples, TensorSamples, str]:
    """N-MNIST as frames `[N, T, 2, H, W]` of event counts; the note tells its size.

    Raises:
        DataError: if it is not there, or damaged.

    Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets
    Using Saccades", 2015.
    """
    place = find_nmnist(root)
    if place is None:
        raise DataError(
            f"N-MNIST is not in {folder(root)}: download Train.zip and Test.zip from "
            "https://www.garrickorchard.com/datasets/n-mnist and unpack them there"
        )

    def compute() -> dict[str, np.ndarray]:
        arrays: dict[str, list[np.ndarray]] = {f"{part}-{k}": [] for part in PARTS for k in "xy"}
        recordings = tqdm(_recordings(place), "nmnist", unit="recording", disable=None)
        for part, label, name, data in recordings:
            events = read_nmnist(data, name)
            arrays[f"{part}-x"].append(frames_of(events, SENSOR, framing))
            arrays[f"{part}-y"].append(np.array(label))
        for part in PARTS:
            if not arrays[f"{part}-x"]:
                raise DataError(f"{place}: no recordings under {part}/")
        return {key: np.stack(values) for key, values in arrays.items()}

    files = [place] if place.is_file() else sorted(place.glob("*/*/*.bin"))
    arrays = cached(f"nmnist-{framing.key}", files, compute)
    training, test = (
        TensorSamples(
            torch.from_numpy(arrays[f"{part}-x"]), torch.from_numpy(arrays[f"{part}-y"]).long()
        )
        for part in PARTS
    )
    if (len(training), len(test)) == (60_000, 10_000):
        return training, test, ""
    note = f"{len(training)} training and {len(test)} test recordings: a part of N-MNIST"
    return training, test, note


def read_nmnist(data: bytes, name: str) -> np.ndarray:
    """Events of one recording: 5 bytes each: x, y, polarity bit and 23 bits of microseconds.

    Raises:
        DataError: if the bytes are no whole number of events.
    """
    if not data or len(data) % 5:
        raise DataError(f"{name}: {len(data)} bytes are no whole number of 5-byte events")
    raw = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64)
    events = np.empty(len(raw), dtype=EVENT)
    events["x"], events["y"] = raw[:, 0], raw[:, 1]
    events["p"] = raw[:, 2] >> 7
    events["t"] = ((raw[:, 2] & 127) << 16) | (raw[:, 3] << 8) | raw[:, 4]
    return events


def _recordings(place: Path) -> Iterator[tuple[str, int, str, bytes]]:
    """Part, digit, name and bytes of every recording, in order of their names."""
    if place.is_dir():
        for path in sorted(place.glob("*/*/*.bin")):
            yield path.parts[-3], int(path.parts[-2]), str(path), path.read_bytes()
        return
    try:
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                parts = Path(name).parts
                if name.endswith(".bin") and len(parts) >= 3:
                    yield parts[-3], int(parts[-2]), f"{place}: {name}", archive.read(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{place} is damaged ({error}): fetch it again") from error
