"""Folders of event recordings, one folder a class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from spikefold.data._folders import ClassFiles, ClassFolders, find_classes
from spikefold.data._frames import Framing, frames_of
from spikefold.data._recordings import ENDINGS, read_recordings
from spikefold.data._samples import TensorSamples
from spikefold.data._sources import cached
from spikefold.data._splits import Parts
from spikefold.errors import DataError


def recordings(root: Path | None, framing: Framing) -> Parts:
    """Recordings by class as frames `[N, T, 2, H, W]`: train/CLASS/* and test/CLASS/*, or CLASS/*.

    Classes are numbered in the order of their names. Without a test folder (test/, val/) a tenth
    of each class is held out, and the note says so. All recordings are from one sensor: the one
    asked for, or the one that the files state, or the smallest that holds them all, which is noted.

    Raises:
        DataError: if the folder is not named or absent, its parts have no folders of classes, a
            recording cannot be read, or files state different sensors.
    """
    folders = find_classes(root, ENDINGS, "recordings")
    note = ""
    if framing.sensor is None:
        sensor, stated = _sensor(folders)
        framing = replace(framing, sensor=sensor)
        if not stated:
            note = (
                f"no file states its sensor: taken to be {sensor[0]}x{sensor[1]}, the smallest "
                "usual one that holds all events"
            )
    parts = folders.parts(lambda files: _frames(files, framing))
    return replace(parts, framing=framing, note="; ".join(filter(None, (parts.note, note))))


def _frames(files: ClassFiles, framing: Framing) -> TensorSamples:
    def compute() -> dict[str, np.ndarray]:
        shown = tqdm(files.paths, "recordings", unit="recording", disable=None)
        frames = [
            frames_of(recording.events, framing, str(path))
            for path, recording in zip(files.paths, read_recordings(shown), strict=True)
        ]
        return {"frames": np.stack(frames)}

    arrays = cached(f"recordings-{framing.key}", files.paths, compute)
    return TensorSamples(torch.from_numpy(arrays["frames"]), files.labels)


def _sensor(folders: ClassFolders) -> tuple[tuple[int, int], bool]:
    """Width and height of the sensor of all recordings, and whether a file states it."""
    places = [place for place in (folders.train, folders.test) if place is not None]
    paths = [path for place in places for path in folders.files(place).paths]

    def compute() -> dict[str, np.ndarray]:
        shown = tqdm(paths, "sensors", unit="recording", disable=None)
        found = [(*read.sensor, read.stated) for read in read_recordings(shown)]
        return {"sensors": np.array(found)}

    sensors = cached("sensors", paths, compute)["sensors"]
    stated = sensors[:, 2] > 0
    if not stated.any():
        return (int(sensors[:, 0].max()), int(sensors[:, 1].max())), False
    first, *others = np.unique(sensors[stated, :2], axis=0).tolist()
    if others:
        one, other = (
            paths[int(((sensors[:, :2] == sensor).all(1) & stated).argmax())]
            for sensor in (first, others[0])
        )
        raise DataError(
            f"recordings of different sensors: {one} is {first[0]}x{first[1]}, {other} is "
            f"{others[0][0]}x{others[0][1]}; give the sensor that is to hold them all, or one "
            "camera's recordings only"
        )
    return (first[0], first[1]), True
