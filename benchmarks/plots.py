"""A record as a picture: times at one size, and lines along which work grows."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import Contest, Record, lines, size_of

OURS, PEER, FLOOR = "#d1783c", "#4878a8", "#888888"
STYLES = {
    "spikefold MPBN": (OURS, "-"), "spikefold": (OURS, "-"), "folded": (OURS, "-"),
    "spikefold LIF": (OURS, "--"),
    "SpikingJelly MPBN": (PEER, "-"), "SpikingJelly": (PEER, "-"),
    "SpikingJelly LIF": (PEER, "--"), "snnTorch Leaky": ("#5a9a5a", "--"),
    "Norse LIFBox": ("#8a62a8", "--"),
}  # fmt: skip
BARS = ("neuron", "step", "inference")
LABELS = {"steps": "time steps", "batch": "batch", "width": "channels"}


def draw(record: Record, path: Path) -> None:
    """Write the picture beside the record, as PNG and SVG."""
    figure = picture(record)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=120)


def picture(record: Record) -> Figure:
    """Bars in the first row, lines of layers in the second, of networks in the third."""
    figure = Figure(figsize=(13, 10), layout="constrained")
    grid = figure.subplots(3, 3)
    for axes, suite in zip(grid[0], BARS, strict=True):
        contests = record.get(suite, {"contests": []})["contests"]
        if contests:
            fewest = min(contest["threads"] for contest in contests)
            bars(axes, [c for c in contests if c["threads"] == fewest][-1])
        else:
            axes.set_axis_off()
    panels = {
        (kind, axis): grid[row][column]
        for row, kind in ((1, "neuron"), (2, "step"))
        for column, axis in enumerate(LABELS)
    }
    for kind, axis, name, places, times in lines(record):
        color, line = STYLES.get(name, (FLOOR, ":"))
        milliseconds = [1000 * seconds for seconds in times]
        panels[kind, axis].plot(places, milliseconds, line, marker=".", color=color, label=name)
    for (kind, axis), axes in panels.items():
        growing(axes, kind, axis)
    return figure


def bars(axes: Axes, contest: Contest) -> None:
    """Least time of each contestant at one size; those that failed their check are left out."""
    results = {name: r for name, r in contest["results"].items() if r["passed"]}
    colors = [STYLES.get(name, (FLOOR, ""))[0] for name in results]
    values = [1000 * result["work_min"] for result in results.values()]
    drawn = axes.barh(list(results), values, color=colors)
    axes.bar_label(
        drawn,
        [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in values],
        padding=3,
        fontsize=8,
    )
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set_title(f"{contest['kind']}: {size_of(contest)}", fontsize=9)
    axes.set_xlabel(f"{time_name(contest)} (ms)")


def time_name(contest: Contest) -> str:
    """What was timed."""
    where = "GPU" if contest["device"] == "cuda" else "CPU"
    return f"least {where} time, threads {contest['threads']}"


def growing(axes: Axes, kind: str, axis: str) -> None:
    """Titles of a panel of lines; empty panels are not drawn."""
    if not axes.has_data():
        axes.set_axis_off()
        return
    axes.set(xscale="log", yscale="log", ylabel="least time (ms)")
    networks = kind == "step"
    axes.set_xlabel("width factor" if networks and axis == "width" else LABELS[axis])
    places = sorted({x for line in axes.get_lines() for x in line.get_xdata()})
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set_title("training step" if networks else "neuron layer", fontsize=9)
    axes.grid(alpha=0.3)
    if axis == "steps":
        axes.legend(fontsize=7)
