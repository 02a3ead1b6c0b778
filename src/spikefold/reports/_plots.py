"""Pictures beside a run's records."""

import json
from pathlib import Path

from matplotlib.figure import Figure

from spikefold.replacing import replacing
from spikefold.reports._figures import drawing, learning_curves, potential_figure, threshold_figure


def plot_run(directory: Path) -> list[Path]:
    """Draw the pictures of a run's records into its directory.

    Arguments:
        directory: of a finished run: `metrics.jsonl`, `potentials.json`, and if it was folded
            `thresholds.json`.

    Returns:
        the PNG files.
    """
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    thresholds = directory / "thresholds.json"
    paths = []
    with drawing():
        figures = {
            "learning_curves.png": learning_curves([json.loads(line) for line in lines]),
            "potentials.png": potential_figure(
                json.loads((directory / "potentials.json").read_text())
            ),
        }
        if thresholds.exists():
            figures["thresholds.png"] = threshold_figure(json.loads(thresholds.read_text()))
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
