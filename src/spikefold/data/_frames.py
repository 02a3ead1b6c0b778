"""Events into frames."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer, UInt8

from spikefold.errors import DataError
from spikefold.ranges import require_within

# one event: column, row, time in microseconds, polarity (0: darker, 1: brighter)
EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "u1")])


# beyond these a file or an option is wrong
LARGEST = 2**27  # pixels
LONGEST = 2**49  # microseconds; times 10,000 steps is still an int64


@dataclass(frozen=True)
class Framing:
    """How recordings become frames, or image files tensors of one size.

    Arguments:
        steps: T.
        size: height and width.
        by: "time" (slices of equal duration) or "count" (equal numbers of events).
        sensor: width and height of the camera, which need not be equal: each is scaled to `size`
            on its own.
        margin: of image files: the shorter side is scaled to `margin * size`, then the centre is
            cut out; 1 leaves nothing off the shorter side.

    What is None is left to the data set.

    Raises:
        DataError: if a number is not positive, or the margin below 1.
    """

    steps: int | None = None
    size: int | None = None
    by: Literal["time", "count"] | None = None
    sensor: tuple[int, int] | None = None
    margin: float | None = None

    def __post_init__(self) -> None:
        sides = "[1, 10000]"
        require_within("frames", self, DataError, steps=sides, size=sides, margin="[1, 2]")
        if self.sensor and not all(1 <= side <= 65_536 for side in self.sensor):
            raise DataError(
                f"frames: sensor must be of [1, 65536] pixels a side, got {self.sensor}"
            )
        if self.size is not None and self.size**2 * (self.steps or 1) > LARGEST:
            raise DataError(
                f"frames: {self.steps or 1} of {self.size}x{self.size} are more than the "
                f"{LARGEST:,} pixels a sample may have"
            )

    @property
    def key(self) -> str:
        """Part of a cache file's name."""
        sensor = "x".join(str(side) for side in self.sensor or ())
        return f"{self.steps}x{self.size}-{self.by}-{sensor}"

    def over(self, default: "Framing") -> "Framing":
        """This framing, completed with the default's values."""
        return replace(default, **{k: v for k, v in vars(self).items() if v is not None})


def structured(events: Any) -> np.ndarray:
    """Any structured array of t, x, y and polarity as `EVENT`."""
    out = np.empty(len(events), dtype=EVENT)
    for name in ("x", "y", "t"):
        out[name] = events[name]
    out["p"] = events["on" if "on" in events.dtype.names else "p"]
    return out


def by_time(events: np.ndarray, steps: int) -> Integer[np.ndarray, "N"]:
    """The step of each event where the recording's duration is cut into equal slices."""
    if not len(events):
        return np.zeros(0, dtype=np.int64)
    start = events["t"].min()
    duration = int(events["t"].max()) - int(start) + 1
    if duration > LONGEST:
        raise DataError(
            f"times span {duration:,} microseconds, over {LONGEST // 10**6 // 86400 // 365} years: "
            "the recording is damaged"
        )
    return (events["t"] - start) * steps // duration


def by_count(events: np.ndarray, steps: int) -> Integer[np.ndarray, "N"]:
    """The step of each event where every step gets the same number of events, in order of time."""
    step = np.empty(len(events), dtype=np.int64)
    step[np.argsort(events["t"], kind="stable")] = (
        np.arange(len(events)) * steps // max(1, len(events))
    )
    return step


SLICERS = {"time": by_time, "count": by_count}


def to_frames(
    events: np.ndarray, steps: int, sensor: tuple[int, int], size: tuple[int, int], by: str = "time"
) -> UInt8[np.ndarray, "T 2 H W"]:
    """How many events of each polarity fell on each pixel in each step, at most 255.

    Arguments:
        events: structured as `EVENT`, in any order.
        steps: T.
        sensor: width and height of the camera.
        size: width and height of the frames; pixels of the camera are binned into them.
        by: "time" (equal slices of the duration) or "count" (equal numbers of events).

    Raises:
        DataError: if an event lies outside the sensor, or `by` is unknown.
    """
    if by not in SLICERS:
        raise DataError(f"frames by {by!r}: one of {', '.join(SLICERS)}")
    if len(events) and (events["x"].max() >= sensor[0] or events["y"].max() >= sensor[1]):
        raise DataError(
            f"an event at ({events['x'].max()}, {events['y'].max()}) lies outside the "
            f"{sensor[0]}x{sensor[1]} sensor: --sensor WIDTH HEIGHT (sensor) names another"
        )
    step = SLICERS[by](events, steps)
    column = events["x"].astype(np.int64) * size[0] // sensor[0]
    row = events["y"].astype(np.int64) * size[1] // sensor[1]
    polarity = (events["p"] > 0).astype(np.int64)
    place = ((step * 2 + polarity) * size[1] + row) * size[0] + column
    counts = np.bincount(place, minlength=steps * 2 * size[0] * size[1])
    return np.minimum(counts, 255).astype(np.uint8).reshape(steps, 2, size[1], size[0])


def frames_of(events: np.ndarray, framing: Framing, name: str) -> UInt8[np.ndarray, "T 2 S S"]:
    """Square frames as a framing without gaps says; see `to_frames`.

    Arguments:
        events: structured as `EVENT`, in any order.
        framing: with steps, size, by and sensor.
        name: of the recording, for messages.

    Raises:
        DataError: if the framing has a gap, or an event lies outside the sensor.
    """
    steps, size, by, sensor = framing.steps, framing.size, framing.by, framing.sensor
    if steps is None or size is None or by is None or sensor is None:
        raise DataError(f"{name}: steps, size, by and sensor are all needed, got {framing}")
    try:
        return to_frames(events, steps, sensor, (size, size), by)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
