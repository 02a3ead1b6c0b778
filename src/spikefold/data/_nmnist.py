"""N-MNIST: MNIST's digits seen by a moving event camera."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from spikefold.data._bytes import opened_zip, read_bytes
from spikefold.data._five_bytes import read_nmnist
from spikefold.data._frames import Framing, frames_of
from spikefold.data._samples import TensorSamples
from spikefold.data._sources import cached, folder
from spikefold.data._splits import Parts
from spikefold.errors import DataError

# two steps for each of the three saccades
FRAMING = Framing(steps=6, size=34, by="time", sensor=(34, 34))
NAMES = tuple("0123456789")
PARTS = ("Train", "Test")


def find_nmnist(root: Path | None) -> Path | None:
    """A folder with Train/ or Test/, or a zip file named *nmnist*.zip, if there is one."""
    for place in (folder(root), folder(root) / "nmnist"):
        if any((place / part).is_dir() for part in PARTS):
            return place
        archives = sorted(place.glob("*nmnist*.zip")) if place.is_dir() else []
        if archives:
            return archives[0]
    return None


def nmnist(root: Path | None, framing: Framing) -> Parts:
    """N-MNIST as frames `[N, T, 2, H, W]` of event counts.

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
    return Parts(
        NAMES,
        lambda: _read(place, "Train", framing),
        lambda: _read(place, "Test", framing),
        sizes=(60_000, 10_000),
        framing=framing,
    )


def _read(place: Path, part: str, framing: Framing) -> TensorSamples:
    def compute() -> dict[str, np.ndarray]:
        frames, labels = [], []
        recordings = tqdm(_recordings(place, part), "nmnist", unit="recording", disable=None)
        for label, name, data in recordings:
            frames.append(frames_of(read_nmnist(data, name), framing, name))
            labels.append(label)
        if not frames:
            raise DataError(f"{place}: no recordings under {part}/")
        return {"frames": np.stack(frames), "labels": np.array(labels)}

    files = [place] if place.is_file() else sorted((place / part).glob("*/*.bin"))
    arrays = cached(f"nmnist-{part}-{framing.key}", files, compute)
    labels = torch.from_numpy(arrays["labels"]).long()
    return TensorSamples(torch.from_numpy(arrays["frames"]), labels)


def _recordings(place: Path, part: str) -> Iterator[tuple[int, str, bytes]]:
    """Digit, name and bytes of every recording of a part, in order of their names."""
    if place.is_dir():
        for path in sorted((place / part).glob("*/*.bin")):
            if _is_recording(path):
                yield NAMES.index(path.parts[-2]), str(path), read_bytes(path)
        return
    with opened_zip(place) as archive:
        for name in sorted(archive.namelist()):
            path = Path(name)
            if path.suffix == ".bin" and path.parts[-3:-2] == (part,) and _is_recording(path):
                yield NAMES.index(path.parts[-2]), f"{place}: {name}", archive.read(name)


def _is_recording(path: Path) -> bool:
    """Whether a file is in a digit's folder, and not hidden (systems add such files)."""
    return path.parts[-2] in NAMES and not path.name.startswith(".")
