"""Pictures beside a run's records."""

from pathlib import Path

from matplotlib.figure import Figure

from spikefold.records import POTENTIALS, THRESHOLDS
from spikefold.replacing import replacing
from spikefold.reports._figures import drawing, learning_curves, potential_figure, threshold_figure
from spikefold.reports._runs import read_history, read_record, undamaged


def plot_run(directory: Path) -> list[Path]:
    """Draw the pictures of a run's records into its directory.

    Arguments:
        directory: of a run: `metrics.jsonl`, and what is there of `potentials.json` and
            `thresholds.json`.

    Returns:
        the PNG files.
    """
    with drawing():
        paths = [directory / "learning_curves.png"]
        write_png(learning_curves(read_history(directory)), paths[0])
        for name, draw in ((POTENTIALS, potential_figure), (THRESHOLDS, threshold_figure)):
            record, path = read_record(directory / name), (directory / name).with_suffix(".png")
            if record is None:
                continue
            with undamaged(directory / name):
                write_png(draw(record), path)
            paths.append(path)
    return paths


def write_png(figure: Figure, path: Path) -> None:
    """Draw a figure into a file, which is whole or not there.

    Arguments:
        figure: any.
        path: PNG file.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
