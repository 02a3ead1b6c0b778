"""A picture of what a network saw."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from spikefold.reports._plots import write_png


def plot_input(frames: np.ndarray, title: str, path: Path) -> None:
    """Draw an image, or frames of events with one panel a time step.

    Arguments:
        frames: an image `[C, H, W]` in [0, 1] with 1 or 3 channels, or event counts `[T, 2, H, W]`:
            channel 0 (darker) is drawn blue, channel 1 (brighter) red.
        title: of the picture.
        path: PNG file.
    """
    panels = [_colours(frame) for frame in frames] if frames.ndim == 4 else [_image(frames)]
    figure = Figure(figsize=(max(3.0, 1.9 * len(panels)), 2.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for step, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        axes.imshow(panel, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        if frames.ndim == 4:
            axes.set_title(f"step {step + 1}", fontsize=8)
    if frames.ndim == 4:
        figure.supxlabel("red: brighter, blue: darker", fontsize=8)
    write_png(figure, path)


def _image(image: np.ndarray) -> np.ndarray:
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def _colours(frame: np.ndarray) -> np.ndarray:
    """Counts of both polarities on white, the strongest of the frame in full colour."""
    darker, brighter = frame / max(1.0, float(frame.max()))
    return np.stack([1 - darker, 1 - np.maximum(darker, brighter), 1 - brighter], axis=-1)
