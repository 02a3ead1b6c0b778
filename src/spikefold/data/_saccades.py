"""Digits moved in front of a simulated event camera, as N-MNIST was made with a real one."""

import itertools
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from spikefold.data._digits import digits
from spikefold.data._frames import EVENT, Framing, frames_of
from spikefold.data._samples import Samples, TensorSamples
from spikefold.data._splits import Parts
from spikefold.errors import DataError

SENSOR = (34, 34)
PIXELS_A_DIGIT = 24  # height and width of a digit on the sensor
CORNERS = ((0.0, 0.0), (3.5, 7.0), (7.0, 0.0), (0.0, 0.0))  # right-down, right-up, left; pixels
SACCADE = 100_000  # µs
VIEWS = 20  # of each saccade; between two of them light changes linearly
CONTRAST = 0.4  # change of the logarithm of light that makes an event
DARK = 0.1  # light of black, where white is 1
NOTE = "simulated: scikit-learn's digits before a simulated event camera, not recordings"


def digits_events(root: Path | None, framing: Framing) -> Parts:
    """The digits as frames `[N, T, 2, H, W]` of simulated events, split as `digits`.

    Raises:
        DataError: if scikit-learn is not installed, or a folder is named.

    Source: after Orchard et al. 2015, whose camera made three saccades before each digit.
    """
    images = digits(root)
    return Parts(
        images.names,
        lambda: _seen(images.train(), framing),
        lambda: _seen(images.test(), framing),
        note=NOTE,
        framing=framing,
    )


def _seen(images: Samples, framing: Framing) -> TensorSamples:
    pixels = images.read(torch.arange(len(images))).numpy()
    frames = [frames_of(saccades(image[0]), framing, "digits-events") for image in pixels]
    return TensorSamples(torch.from_numpy(np.stack(frames)), images.labels)


def saccades(image: Float[np.ndarray, "H W"]) -> np.ndarray:
    """Events of a noiseless camera that sees the image during three saccades.

    A pixel keeps the logarithm of the light at its last event; each time the light has moved by
    CONTRAST from there, it makes an event of that polarity.

    Arguments:
        image: light in [0, 1].

    Returns:
        events structured as `EVENT`, in order of time.

    Raises:
        DataError: if the image holds other values.
    """
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise DataError("saccades: the image's values must lie in [0, 1]")
    path = np.concatenate(
        [
            np.linspace(start, end, VIEWS, endpoint=False)
            for start, end in itertools.pairwise(CORNERS)
        ]
        + [np.array(CORNERS[-1:])]
    )
    light = np.stack([np.log(DARK + (1 - DARK) * _view(image, x, y)) for x, y in path])
    level = light[0].copy()
    events = []
    for view in range(1, len(light)):
        count = np.trunc((light[view] - level) / CONTRAST).astype(np.int64)
        rows, columns = np.nonzero(count)
        number, sign = np.abs(count[rows, columns]), np.sign(count[rows, columns])
        pixel = np.repeat(np.arange(len(rows)), number)
        nth = np.arange(len(pixel)) - np.repeat(number.cumsum() - number, number) + 1
        row, column = rows[pixel], columns[pixel]
        before, after = light[view - 1][row, column], light[view][row, column]
        crossed = level[row, column] + sign[pixel] * nth * CONTRAST
        share = (crossed - before) / (after - before)
        made = np.empty(len(pixel), dtype=EVENT)
        made["x"], made["y"], made["p"] = column, row, sign[pixel] > 0
        made["t"] = (view - 1 + share.clip(0, 1)) * (SACCADE // VIEWS)
        events.append(made)
        level += count * CONTRAST
    together = np.concatenate(events)
    return together[np.argsort(together["t"], kind="stable")]


def _view(image: Float[np.ndarray, "H W"], x: float, y: float) -> Float[np.ndarray, "rows columns"]:
    """The image on the sensor, moved by (x, y) pixels; bilinear, black around it."""
    width, height = SENSOR
    return _weights(height, image.shape[0], y) @ image @ _weights(width, image.shape[1], x).T


def _weights(sensor: int, image: int, shift: float) -> Float[np.ndarray, "S I"]:
    """Share of each image row in each sensor row, for linear interpolation."""
    place = (np.arange(sensor) + 0.5 - shift) * image / PIXELS_A_DIGIT - 0.5
    return np.clip(1 - np.abs(place[:, None] - np.arange(image)), 0, None)
