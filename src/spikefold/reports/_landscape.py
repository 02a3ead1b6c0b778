"""A picture of the loss around trained networks: curves, or contours side by side."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from spikefold.errors import ConfigError
from spikefold.replacing import replacing
from spikefold.reports._figures import COLORS, MARKERS, drawing, in_legend, logarithmic

COLUMNS = 3
LEVELS = 16
LEAST = 1e-6  # on the logarithmic axis a loss of 0 is drawn there


def picture_format(path: Path) -> str:
    """Of what kind a picture is by its name: "png" or "svg".

    Raises:
        ConfigError: if it is neither.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise ConfigError(f"{path}: a picture is a .png or .svg file")
    return kind


def plot_landscape(record: dict[str, Any], path: Path) -> None:
    """Draw the losses of all networks of a record into a file.

    Arguments:
        record: as `landscape_figure` takes it.
        path: PNG or SVG file.

    Raises:
        ConfigError: if it is neither.
    """
    kind = picture_format(path)
    with drawing(), replacing(path) as temporary:
        landscape_figure(record).savefig(temporary, dpi=150, format=kind)


def landscape_figure(record: dict[str, Any]) -> Figure:
    """Losses of all networks of a record.

    Along one direction they are curves in one panel, along two contours side by side on one
    scale. Where a loss is not finite a mark stands at the upper edge, or the panel is hatched;
    both say so.

    Arguments:
        record: `data`, `split`, and for each of `networks` its `network` (a name), `distances`,
            `loss` (a list, or a list of lists), `samples`, `seed` and `batch_statistics`.
    """
    networks = record["networks"]
    two = isinstance(networks[0]["loss"][0], list)
    figure = (_contours if two else _curves)(networks, names([n["network"] for n in networks]))
    figure.suptitle(_title(record, two), fontsize=10)
    return figure


def names(paths: Sequence[str]) -> list[str]:
    """What tells the networks apart: their paths without the folders that all are in."""
    if len(set(paths)) < 2:
        return [Path(path).name for path in paths]
    folders = {Path(os.path.abspath(path)).parent for path in paths}
    shared = os.path.commonpath(folders)
    return [os.path.relpath(path, shared) for path in paths]


def _title(record: dict[str, Any], two: bool) -> str:
    first = record["networks"][0]
    along = "two filter-normalized directions" if two else "a filter-normalized direction"
    by = "each batch's" if first["batch_statistics"] else "trained"
    return (
        f"Loss along {along} (seed {first['seed']})\n{by} statistics; "
        f"{record['data']}, {first['samples']:,} samples ({record['split']})"
    )


def _losses(network: dict[str, Any]) -> np.ndarray:
    """With NaN where a loss was not finite."""
    return np.maximum(np.array(network["loss"], dtype=float), LEAST)


def _curves(networks: Sequence[dict[str, Any]], labels: Sequence[str]) -> Figure:
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for place, (network, label) in enumerate(zip(networks, labels, strict=True)):
        loss, distances = _losses(network), np.array(network["distances"])
        color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        missing = np.isnan(loss)
        if missing.any():
            label = f"{label} ({missing.sum()} not finite: at the edge)"
            _mark_edge(axes, distances[missing], marker, color)
        axes.plot(distances, loss, color=color, marker=marker, ms=3.5, label=in_legend(label))
    axes.set(xlabel="distance (1: the length of each filter)", ylabel="cross entropy (nats)")
    logarithmic(axes)
    axes.grid(alpha=0.3, which="both")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center")
    return figure


def _mark_edge(axes: Axes, distances: np.ndarray, marker: str, color: str) -> None:
    """Marks at the upper edge."""
    at_edge = axes.get_xaxis_transform()  # distances, and heights from 0 to 1
    heights = np.ones(len(distances))
    axes.plot(distances, heights, marker, color=color, ms=6, transform=at_edge, clip_on=False)


def _contours(networks: Sequence[dict[str, Any]], labels: Sequence[str]) -> Figure:
    columns = min(COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    figure = Figure(figsize=(3.4 * columns + 1.2, 3.1 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    losses = [_losses(network) for network in networks]
    levels = _levels(losses)
    norm = LogNorm(levels[0], levels[-1])
    for axes in grid.flat[len(networks) :]:
        axes.set_axis_off()
    for axes, network, loss, label in zip(grid.flat, networks, losses, labels, strict=False):
        axes.set_facecolor("white")
        axes.patch.set(hatch="////", edgecolor="#999999")
        # the first direction lies along x
        where = (network["distances"], network["distances"], loss.T)
        axes.contourf(*where, levels=levels, norm=norm)
        axes.contour(*where, levels=levels, colors="black", linewidths=0.3)
        axes.plot(0, 0, "+", color="white", ms=9, mew=1.5)
        missing = int(np.isnan(loss).sum())
        note = f"\n{missing} not finite: hatched" if missing else ""
        axes.set_title(label + note, fontsize=9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        axes.set(aspect="equal", xlabel="first direction", ylabel="second direction")
    bar = figure.colorbar(
        ScalarMappable(norm), ax=grid, label="cross entropy (nats), logarithmic", shrink=0.9
    )
    bar.ax.yaxis.set_major_locator(FixedLocator(levels[::3].tolist()))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:.2g}"))
    bar.ax.minorticks_off()
    return figure


def _levels(losses: Sequence[np.ndarray]) -> np.ndarray:
    """Of all panels alike, evenly spaced in the logarithm."""
    low, high = min(map(np.nanmin, losses)), max(map(np.nanmax, losses))
    # the ends lie a little further out, so that rounding leaves no point outside; flat losses too
    return np.geomspace(low / 1.01, high * 1.01, LEVELS)
