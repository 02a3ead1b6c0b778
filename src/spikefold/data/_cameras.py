"""Event-camera data sets, fetched and read by tonic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from spikefold.data._frames import Framing, frames_of, structured
from spikefold.data._samples import TensorSamples, stratified_split
from spikefold.data._sources import cached, folder
from spikefold.errors import DataError

SENSOR = (128, 128)
CALTECH_SENSOR = (240, 180)  # the largest recording; smaller ones begin at the same corner
HELD_OUT = "no official test set: a tenth of each class (seed 0) is held out as the test set"


def find_cifar10_dvs(root: Path | None) -> Path | None:
    """The folder with CIFAR10-DVS, if there is one."""
    return _find("CIFAR10DVS", "aedat4", root)


def find_dvs_gesture(root: Path | None) -> Path | None:
    """The folder with DVS128 Gesture, if there is one."""
    return _find("DVSGesture", "npy", root)


def find_n_caltech101(root: Path | None) -> Path | None:
    """The folder with N-Caltech101, if there is one."""
    return _find("NCALTECH101", "bin", root)


def cifar10_dvs(root: Path | None, framing: Framing) -> tuple[TensorSamples, TensorSamples, str]:
    """CIFAR10-DVS as frames `[N, T, 2, H, W]`: 9,000 for training, 1,000 for test.

    Raises:
        DataError: if it cannot be fetched, a recording is damaged, or tonic is not installed.

    Source: Li et al., "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", 2017.
    """
    recordings = _tonic("CIFAR10DVS", "aedat4", root)
    return _split(_frames("cifar10-dvs", recordings, SENSOR, framing), 10_000)


def n_caltech101(root: Path | None, framing: Framing) -> tuple[TensorSamples, TensorSamples, str]:
    """N-Caltech101 as frames `[N, T, 2, H, W]`; classes in the order of their names.

    Raises:
        DataError: if it cannot be fetched, a recording is damaged, or tonic is not installed.

    Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets
    Using Saccades", 2015.
    """
    recordings = _tonic("NCALTECH101", "bin", root)
    return _split(_frames("n-caltech101", recordings, CALTECH_SENSOR, framing), 8_709)


def dvs_gesture(root: Path | None, framing: Framing) -> tuple[TensorSamples, TensorSamples, str]:
    """DVS128 Gesture as frames `[N, T, 2, H, W]`; test are the official test users.

    Raises:
        DataError: if it cannot be fetched, a recording is damaged, or tonic is not installed.

    Source: Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017.
    """
    training, test = (
        _frames(
            f"dvs-gesture-{part}",
            _tonic("DVSGesture", "npy", root, f"ibmGesture{part}", train=part == "Train"),
            SENSOR,
            framing,
        )
        for part in ("Train", "Test")
    )
    return training, test, _size_note(len(training) + len(test), 1_341)


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


def _frames(key: str, recordings: Any, sensor: tuple[int, int], framing: Framing) -> TensorSamples:
    """All recordings as frames, with classes numbered in the order of their names."""
    files = [Path(path) for path in recordings.data]
    order = sorted(range(len(files)), key=lambda n: files[n])
    names = sorted(set(recordings.targets))

    def compute() -> dict[str, np.ndarray]:
        shown = tqdm(order, key, unit="recording", disable=None)
        frames = [_read(recordings, n, sensor, framing) for n in shown]
        labels = np.array([names.index(recordings.targets[n]) for n in order])
        return {"frames": np.stack(frames), "labels": labels}

    arrays = cached(f"{key}-{framing.key}", [files[n] for n in order], compute)
    labels = torch.from_numpy(arrays["labels"]).long()
    return TensorSamples(torch.from_numpy(arrays["frames"]), labels)


def _read(recordings: Any, number: int, sensor: tuple[int, int], framing: Framing) -> np.ndarray:
    path = recordings.data[number]
    try:
        events = structured(recordings[number][0])
    except Exception as error:  # the readers' own errors have no common type
        raise DataError(f"{path} is damaged or cut off ({error}): fetch it again") from error
    if not len(events):
        raise DataError(f"{path}: no events: is it cut off?")
    try:
        return frames_of(events, sensor, framing)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _split(samples: TensorSamples, official: int) -> tuple[TensorSamples, TensorSamples, str]:
    """Nine to one, by class; and what to say about it."""
    kept, held_out = stratified_split(samples.labels, fraction=0.1, seed=0)
    notes: Sequence[str] = [HELD_OUT, _size_note(len(samples), official)]
    return samples.subset(kept), samples.subset(held_out), "; ".join(filter(None, notes))


def _size_note(count: int, official: int) -> str:
    return "" if count == official else f"{count:,} of {official:,} recordings: a part of the data"
