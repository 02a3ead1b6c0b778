"""Pictures beside a run's records."""

from pathlib import Path

from matplotlib.figure import Figure

from spikefold.records import POTENTIALS, THRESHOLDS
from spikefold.replacing import replacing
from spikefold.reports._figures import drawing, learning_curves, potential_figure, threshold_figure
from spikefold.reports._runs import read_history, read_record


def plot_run(directory: Path) -> list[Path]:
    """Draw the pictures of a run's records into its directory.

    Arguments:
        directory: of a run: `metrics.jsonl`, and what is there of `potentials.json` and
            `thresholds.json`.

    Returns:
        the PNG files.
    """
    paths = []
    with drawing():
        figures = {"learning_curves.png": learning_curves(read_history(directory))}
        seen, thresholds = (read_record(directory / name) for name in (POTENTIALS, THRESHOLDS))
        if seen is not None:
            figures["potentials.png"] = potential_figure(seen)
        if thresholds is not None:
            figures["thresholds.png"] = threshold_figure(thresholds)
        for name, figure in figures.items():
            paths.append(directory / name)
            write_png(figure, paths[-1])
    return paths


def write_png(figure: Figure, path: Path) -> None:
    """Draw a figure into a file, which is whole or not there.

    Arguments:
        figure: any.
        path: PNG file.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
