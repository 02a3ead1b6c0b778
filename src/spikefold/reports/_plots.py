"""Pictures beside a run's records."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from spikefold.replacing import replacing
from spikefold.reports._figures import drawing, learning_curves, potential_figure, threshold_figure
from spikefold.reports._runs import read_history, read_record


def plot_run(directory: Path) -> list[Path]:
    """Draw the pictures of a run's records into its directory.

    Arguments:
        directory: of a finished run: `metrics.jsonl`, `potentials.json`, and if it was folded
            `thresholds.json`.

    Returns:
        the PNG files.
    """
    paths = []
    with drawing():
        figures = {
            "learning_curves.png": learning_curves(read_history(directory)),
            "potentials.png": potential_figure(
                json.loads((directory / "potentials.json").read_text())
            ),
        }
        thresholds = read_record(directory / "thresholds.json")
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
