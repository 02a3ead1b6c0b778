"""Pictures of a run: learning curves, membrane potentials, folded thresholds."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spikefold.replacing import replacing

COLUMNS = 4
BEFORE, AFTER, MARK = "#4878a8", "#d1783c", "#444444"


def plot_run(directory: Path) -> list[Path]:
    """Draw the pictures of a run's records into its directory.

    Arguments:
        directory: of a finished run: `metrics.jsonl`, `potentials.json`, and if it was folded
            `thresholds.json`.

    Returns:
        the PNG files.
    """
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    figures = {
        "learning_curves.png": learning_curves([json.loads(line) for line in lines]),
        "potentials.png": potential_figure(json.loads((directory / "potentials.json").read_text())),
    }
    thresholds = directory / "thresholds.json"
    if thresholds.exists():
        figures["thresholds.png"] = threshold_figure(json.loads(thresholds.read_text()))
    paths = []
    for name, figure in figures.items():
        path = directory / name
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
        paths.append(path)
    return paths


def learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Loss and error of training and validation by epoch."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    for name, color in (("train", BEFORE), ("validation", AFTER)):
        # Of a run that trained on all samples there is no validation.
        if f"{name}_loss" not in history[0]:
            continue
        label = "training (augmented)" if name == "train" else name
        loss.plot(epochs, [r[f"{name}_loss"] for r in history], color=color, label=label)
        errors = [100 * (1 - r[f"{name}_accuracy"]) for r in history]
        error.plot(epochs, errors, color=color, label=label)
    loss.set(title="Loss", xlabel="epoch", ylabel="cross entropy (nats)", yscale="log")
    error.set(title="Error", xlabel="epoch", ylabel="wrong (%)", ylim=(0, None))
    for axes in (loss, error):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def potential_figure(record: dict[str, Any]) -> Figure:
    """Distribution of the membrane potential before and after MPBN, one panel a layer."""
    figure, panels = _panels(len(record), height=2.6)
    figure.suptitle("Membrane potential before and after MPBN (middle 99.8 % of the values)")
    for axes, (name, layer) in zip(panels, record.items(), strict=False):
        for key, label, color in (("before", "u", BEFORE), ("after", "h = MPBN(u)", AFTER)):
            if key in layer:
                edges, density = layer[key]["edges"], layer[key]["density"]
                axes.stairs(density, edges, fill=True, alpha=0.45, color=color, label=label)
        axes.axvline(layer["threshold"], color=MARK, linestyle="--", linewidth=1, label="threshold")
        axes.set(title=_short(name), xlabel="potential", yscale="log")
    _finish(figure, panels, "density (log)")
    return figure


def threshold_figure(record: dict[str, Any]) -> Figure:
    """Folded thresholds, one panel a layer: sorted, with the threshold before the fold."""
    figure, panels = _panels(len(record), height=2.6)
    figure.suptitle("Folded thresholds: one a neuron or channel, in ascending order")
    for axes, (name, layer) in zip(panels, record.items(), strict=False):
        theta = [float(value) for value in layer["theta"]]
        finite = sorted(value for value in theta if math.isfinite(value))
        axes.plot(range(1, len(finite) + 1), finite, ".", color=BEFORE, ms=3, label="theta")
        axes.axhline(layer["threshold"], color=MARK, ls="--", lw=1, label="before the fold")
        notes = []
        if len(finite) < len(theta):
            notes.append(f"{len(theta) - len(finite)} constant")
        if layer["negative_polarity"]:
            notes.append(f"{layer['negative_polarity']} negative")
        axes.set(title=_short(name) + (f" ({', '.join(notes)})" if notes else ""))
        axes.set_xlabel("rank")
    _finish(figure, panels, "threshold on u")
    return figure


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, max(1, count))
    rows = math.ceil(max(1, count) / columns)
    size = (max(6.0, 3.0 * columns), height * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _finish(figure: Figure, panels: list[Axes], ylabel: str) -> None:
    """Grid, the label of the left column, and one legend for all panels."""
    for number, axes in enumerate(panels):
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(9)
        if number % COLUMNS == 0:
            axes.set_ylabel(ylabel)
    if panels:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _short(name: str) -> str:
    """A layer's name without what all names share."""
    return "layer " + name.removeprefix("features.").removesuffix(".lif")
