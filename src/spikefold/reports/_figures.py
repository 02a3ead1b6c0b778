"""Figures of run records: learning curves, membrane potentials, thresholds, spikes, firing rates.

Colours are of `COLORS`, `MARK` and matplotlib's own black, white and greys: a page replaces them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLUMNS = 4
# told apart by the colour-blind and in print: their lightness differs as well
COLORS = ("#4878a8", "#d1783c", "#3f8f6b", "#a8487f", "#7d6fb5", "#9a8a2f", "#5f9ea8", "#8c5a3c")
BEFORE, AFTER = COLORS[:2]
MARK = "#444444"
MARKERS = "osD^vP*X"
LINES = ("-", "--", ":", "-.")
# points of a line: sorted thresholds are thousands
POINTS = 256


@contextmanager
def drawing() -> Iterator[None]:
    """Draw names as they are: $ begins no formula in them, and text in SVG stays text."""
    with rc_context(
        {
            "text.parse_math": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "spikefold",
            "font.sans-serif": ["DejaVu Sans"],
        }
    ):
        yield


def learning_curves(history: Sequence[dict[str, Any]]) -> Figure:
    """Loss and error of training and validation by epoch."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    mark = "o" if len(epochs) == 1 else ""  # of which no line can be drawn
    for name, color in (("train", BEFORE), ("validation", AFTER)):
        # Of a run that trained on all samples there is no validation.
        if f"{name}_loss" not in history[0]:
            continue
        label = "training (augmented)" if name == "train" else name
        look = {"color": color, "marker": mark, "label": label}
        loss.plot(epochs, [r[f"{name}_loss"] for r in history], **look)
        errors = [100 * (1 - r[f"{name}_accuracy"]) for r in history]
        error.plot(epochs, errors, **look)
    loss.set(title="Loss", xlabel="epoch", ylabel="cross entropy (nats)")
    error.set(title="Error", xlabel="epoch", ylabel="wrong (%)", ylim=(0, None))
    logarithmic(loss)
    for axes in (loss, error):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def curve_figure(histories: Mapping[str, Sequence[Sequence[dict[str, Any]]]]) -> Figure:
    """Learning curves of settings, a line a seed: training loss, validation error.

    Where there are several seeds, theirs are thin and a thick line is their mean.

    Arguments:
        histories: by setting, of each run the lines of `metrics.jsonl`.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for number, (name, runs) in enumerate(histories.items()):
        look = {
            "color": COLORS[number % len(COLORS)],
            "linestyle": LINES[number // len(COLORS) % len(LINES)],
        }
        validated = [run for run in runs if "validation_accuracy" in run[0]]
        losses = [[(r["epoch"], r["train_loss"]) for r in run] for run in runs]
        wrong = [
            [(r["epoch"], 100 * (1 - r["validation_accuracy"])) for r in run] for run in validated
        ]
        _draw_seeds(loss, losses, in_legend(name), **look)
        _draw_seeds(error, wrong, **look)
    loss.set(title="Training loss", xlabel="epoch", ylabel="cross entropy (nats)")
    error.set(title="Validation error", xlabel="epoch", ylabel="wrong (%)")
    for axes in (loss, error):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_seeds(
    axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], label: str | None = None, **look: Any
) -> None:
    """Epochs and values, a line a seed, and of several their mean over the epochs that all have."""
    lines, width = [np.array(curve, dtype=float) for curve in curves], 1.2
    if len(lines) > 1:
        common = min(map(len, lines))
        for line in lines:
            axes.plot(*line.T, linewidth=0.7, alpha=0.45, **look)
        lines, width = [np.mean([line[:common] for line in lines], axis=0)], 2.0
    for line in lines:
        marker = "o" if len(line) == 1 else ""
        axes.plot(*line.T, linewidth=width, marker=marker, label=label, **look)


def potential_figure(record: dict[str, Any]) -> Figure:
    """Distribution of the membrane potential before and after MPBN, one panel a layer.

    The currents, of which older records have none, are an outline.
    """
    figure, panels = _panels(len(record), height=2.6)
    normed = any("after" in layer for layer in record.values())
    which = "before and after MPBN" if normed else "(no MPBN)"
    figure.suptitle(f"Membrane potential {which}, middle 99.8 % of the values")
    for axes, (name, layer) in zip(panels, record.items(), strict=False):
        for key, label, color in (
            ("before", "potential u", BEFORE),
            ("after", "h = MPBN(u)", AFTER),
        ):
            if key in layer:
                edges, density = layer[key]["edges"], layer[key]["density"]
                axes.stairs(density, edges, fill=True, alpha=0.45, color=color, label=label)
        if "currents" in layer:
            currents = layer["currents"]
            axes.stairs(currents["density"], currents["edges"], color=MARK, label="currents x")
        axes.axvline(layer["threshold"], color=MARK, linestyle="--", linewidth=1, label="threshold")
        axes.set(title=short(name), xlabel="potential")
        logarithmic(axes)
    _finish(figure, panels, "density (log)")
    return figure


def threshold_figure(record: dict[str, Any]) -> Figure:
    """Folded thresholds, one panel a layer: sorted, with the threshold before the fold.

    Those of each time step are a line of their own.
    """
    figure, panels = _panels(len(record), height=2.6)
    figure.suptitle("Folded thresholds: one a neuron or channel, in ascending order")
    for axes, (name, layer) in zip(panels, record.items(), strict=False):
        theta = np.array([float(value) for value in layer["theta"]])
        # Older records have no steps.
        steps = np.split(theta, layer.get("steps") or 1)
        for t, values in enumerate(steps):
            finite = np.sort(values[np.isfinite(values)])
            shown = np.unique(np.linspace(0, len(finite) - 1, POINTS).astype(int))[: len(finite)]
            label = f"theta, step {t + 1}" if len(steps) > 1 else "theta"
            color = COLORS[t % len(COLORS)]
            size = 6 if len(shown) < 20 else 3
            axes.plot(shown + 1, finite[shown], ".", color=color, ms=size, label=label)
        axes.axhline(layer["threshold"], color=MARK, ls="--", lw=1, label="before the fold")
        notes = []
        if constant := int((~np.isfinite(theta)).sum()):
            notes.append(f"{constant} constant")
        if layer["negative_polarity"]:
            notes.append(f"{layer['negative_polarity']} negative")
        axes.set(title=short(name) + (f" ({', '.join(notes)})" if notes else ""))
        axes.set_xlabel("rank")
    _finish(figure, panels, "threshold on u")
    return figure


def raster_figure(record: dict[str, Any]) -> Figure:
    """Spikes of one sample, one panel a layer: time steps from left to right, neurons upwards."""
    layers = record["layers"]
    figure, panels = _panels(len(layers), height=2.4)
    for axes, (name, layer) in zip(panels, layers.items(), strict=False):
        # one line with gaps, which is a hundredth of a mark for each spike
        x, y = [], []
        for t, fired in enumerate(layer["fired"]):
            for row in fired:
                x += [t + 0.6, t + 1.4, math.nan]
                y += [row, row, math.nan]
        axes.plot(x, y, color=BEFORE, linewidth=1.6, solid_capstyle="butt")
        steps, shown = len(layer["fired"]), len(layer["neurons"])
        axes.set(xlim=(0.5, steps + 0.5), ylim=(-1, shown))
        count = math.prod(layer["shape"])
        of = f" ({shown} of {count:,})" if shown < count else ""
        axes.set(title=short(name) + of, xlabel="time step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_yticks([])
    _finish(figure, panels, "neuron")
    return figure


def rate_figure(rates: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Firing rate of each layer, a mark a run; settings side by side.

    Arguments:
        rates: by setting, by layer, of each run.
    """
    layers = list(dict.fromkeys(layer for of in rates.values() for layer in of))
    figure = Figure(figsize=(9, 0.9 + 0.3 * max(6, len(layers))), layout="constrained")
    axes = figure.subplots()
    for number, (name, of) in enumerate(rates.items()):
        # settings of one layer a little apart, from top to bottom
        apart = 0.6 * ((number + 0.5) / len(rates) - 0.5)
        points = [(rate, layers.index(la) + apart) for la, runs in of.items() for rate in runs]
        axes.plot(
            *np.array(points).reshape(-1, 2).T,
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            linestyle="",
            color=COLORS[number % len(COLORS)],
            label=in_legend(name),
        )
    axes.set_yticks(range(len(layers)), [short(layer) for layer in layers])
    axes.set(xlabel="spikes per neuron and time step", xlim=(0, None))
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
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
    handles, labels = panels[0].get_legend_handles_labels() if panels else ([], [])
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def in_legend(name: str) -> str:
    """A name as legends show it: they leave out what begins with _."""
    return f"./{name}" if name.startswith("_") else name


def short(name: str) -> str:
    """A layer's name without what all names share."""
    return "layer " + name.removeprefix("features.").removesuffix(".lif")
