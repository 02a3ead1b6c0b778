"""Event-camera data sets, fetched and unpacked by tonic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from spikefold.data._cifar import NAMES10
from spikefold.data._frames import Framing, frames_of
from spikefold.data._recordings import read_recordings
from spikefold.data._samples import TensorSamples
from spikefold.data._sources import cached, folder
from spikefold.data._splits import HELD_OUT, Parts, held_out
from spikefold.errors import DataError

FRAMING = Framing(steps=10, size=48, by="time", sensor=(128, 128))
# the sensor is the largest recording's; smaller ones begin at the same corner
CALTECH_FRAMING = Framing(steps=10, size=48, by="time", sensor=(240, 180))
GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise",
    "right arm counter-clockwise", "left arm clockwise", "left arm counter-clockwise", "arm roll",
    "air drums", "air guitar", "other gestures",
)  # fmt: skip


def find_cifar10_dvs(root: Path | None) -> Path | None:
    """The folder with CIFAR10-DVS, if there is one."""
    return _find("CIFAR10DVS", "aedat4", root)


def find_dvs_gesture(root: Path | None) -> Path | None:
    """The folder with DVS128 Gesture, if there is one."""
    return _find("DVSGesture", "npy", root)


def find_n_caltech101(root: Path | None) -> Path | None:
    """The folder with N-Caltech101, if there is one."""
    return _find("NCALTECH101", "bin", root)


def cifar10_dvs(root: Path | None, framing: Framing) -> Parts:
    """CIFAR10-DVS as frames `[N, T, 2, H, W]`: 9,000 for training, 1,000 for test.

    Raises:
        DataError: if it cannot be fetched, or tonic is not installed.

    Source: Li et al., "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", 2017.
    """
    recordings = _tonic("CIFAR10DVS", "aedat4", root)
    return _unsplit("cifar10-dvs", recordings, NAMES10, framing, 10_000)


def n_caltech101(root: Path | None, framing: Framing) -> Parts:
    """N-Caltech101 as frames `[N, T, 2, H, W]`; classes in the order of their folders' names.

    Raises:
        DataError: if it cannot be fetched, or tonic is not installed.

    Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets
    Using Saccades", 2015.
    """
    recordings = _tonic("NCALTECH101", "bin", root)
    names = tuple(sorted({recordings.targets[n] for n in _places(recordings)}))
    return _unsplit("n-caltech101", recordings, names, framing, 8_709)


def dvs_gesture(root: Path | None, framing: Framing) -> Parts:
    """DVS128 Gesture as frames `[N, T, 2, H, W]`; test are the official test users.

    Source: Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017.
    """

    def read(part: str) -> TensorSamples:
        options = {"train": part == "Train"}
        recordings = _tonic("DVSGesture", "npy", root, f"ibmGesture{part}", **options)
        return _frames(f"dvs-gesture-{part}", recordings, GESTURES, framing)

    return Parts(
        GESTURES,
        lambda: read("Train"),
        lambda: read("Test"),
        sizes=(1_077, 264),
        framing=framing,
    )


def _find(name: str, ending: str, root: Path | None) -> Path | None:
    place = folder(root) / name
    return place if any(place.rglob(f"*.{ending}")) else None


def _tonic(name: str, ending: str, root: Path | None, part: str = "", **options: Any) -> Any:
    """Tonic's data set; fetched unless the unpacked recordings are there."""
    try:
        from tonic import datasets
    except ImportError as error:
        raise DataError(f"{name} comes through tonic: pip install 'spikefold[events]'") from error
    place = folder(root) / name
    base = getattr(datasets, name)

    def present(self: Any) -> bool:
        return any((place / part).rglob(f"*.{ending}")) or base._check_exists(self)

    try:
        return type(name, (base,), {"_check_exists": present})(str(folder(root)), **options)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"{name} cannot be downloaded ({error}): put its unpacked files into {place / part}"
        ) from error
    except (KeyError, ValueError) as error:
        raise DataError(f"{place / part}: a folder in it is none of {name}'s ({error})") from error


def _places(recordings: Any) -> list[int]:
    """Places of the recordings in the order of their files' names, without hidden files."""
    files = [Path(path) for path in recordings.data]
    base = Path(recordings.location_on_system)
    shown = [
        n
        for n, path in enumerate(files)
        if not any(part.startswith(".") for part in path.relative_to(base).parts)
    ]
    return sorted(shown, key=lambda n: files[n])


def _unsplit(
    key: str, recordings: Any, names: Sequence[str], framing: Framing, official: int
) -> Parts:
    """Nine to one, by class, with a note of that; and of the number, where it is not official."""
    count = len(_places(recordings))
    part = f"{count:,} of {official:,} recordings: a part of the data"
    return Parts(
        tuple(names),
        *held_out(lambda: _frames(key, recordings, names, framing), names),
        note=HELD_OUT if count == official else f"{HELD_OUT}; {part}",
        framing=framing,
    )


def _frames(key: str, recordings: Any, names: Sequence[str], framing: Framing) -> TensorSamples:
    """All recordings as frames; labels are numbers already, or places of their names."""
    order = _places(recordings)
    paths = [Path(recordings.data[n]) for n in order]

    def compute() -> dict[str, np.ndarray]:
        shown = tqdm(paths, key, unit="recording", disable=None)
        # Tonic would move each recording of N-Caltech101 to the corner.
        read = zip(shown, read_recordings(paths), strict=True)
        frames = [frames_of(recording.events, framing, str(path)) for path, recording in read]
        targets = [recordings.targets[n] for n in order]
        labels = [names.index(t) if isinstance(t, str) else t for t in targets]
        return {"frames": np.stack(frames), "labels": np.array(labels)}

    arrays = cached(f"{key}-{framing.key}", paths, compute)
    labels = torch.from_numpy(arrays["labels"]).long()
    return TensorSamples(torch.from_numpy(arrays["frames"]), labels)
