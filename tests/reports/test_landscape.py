"""Pictures of landscapes: what is drawn is what the record says."""

from pathlib import Path
from typing import Any

import matplotlib.contour
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from spikefold.errors import ConfigError
from spikefold.reports import _landscape, plot_landscape
from spikefold.reports._landscape import names


def record(*losses: list[Any], paths: tuple[str, ...] = ("runs/a", "runs/b")) -> dict[str, Any]:
    """Of networks with these losses."""
    half = len(losses[0]) // 2
    return {
        "data": "digits",
        "split": "test",
        "networks": [
            {
                "network": path,
                "distances": [place / half for place in range(-half, half + 1)],
                "loss": loss,
                "samples": 1500,
                "seed": 7,
                "batch_statistics": False,
            }
            for path, loss in zip(paths, losses, strict=False)
        ],
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_curves_in_one_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_landscape(record([2.0, 1.0, 3.0], [2.5, 0.5, 4.0]), tmp_path / "new" / "a.png")
    assert Image.open(tmp_path / "new" / "a.png").size[0] > 800
    (axes,) = drawn[0].axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [[-1, 0, 1]] * 2
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2, 1, 3], [2.5, 0.5, 4]]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a", "b"]
    title = drawn[0].get_suptitle()
    assert title.splitlines() == [
        "Loss along a filter-normalized direction (seed 7)",
        "trained statistics; digits, 1,500 samples (test)",
    ]


def test_what_is_not_finite_stands_at_the_edge_and_says_so(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    plot_landscape(record([None, 1.0, 3.0], [2.5, 0.0, 1e30]), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    edge, one, other = drawn[0].axes[0].lines
    assert (edge.get_xdata().tolist(), edge.get_ydata().tolist()) == ([-1], [1])
    assert np.isnan(one.get_ydata()[0])
    assert other.get_ydata().tolist() == [2.5, 1e-6, 1e30]
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts == ["a (1 not finite: at the edge)", "b"]


def test_contours_side_by_side_on_one_scale(tmp_path: Path, drawn: list[Figure]) -> None:
    low = [[1.0, 2.0, 3.0], [4.0, 0.5, 6.0], [7.0, 8.0, 9.0]]
    high = [[10.0, 20.0, 30.0], [40.0, None, 60.0], [70.0, 80.0, 90.0]]
    made = record(low, high, low, low, paths=("a", "b", "c", "d"))
    plot_landscape(made, tmp_path / "a.png")
    panels = [axes for axes in drawn[0].axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == (["a", "b\n1 not finite: hatched", "c", "d"])
    levels = [
        part.levels
        for axes in panels
        for part in axes.collections
        if isinstance(part, matplotlib.contour.QuadContourSet)
    ]
    assert all(np.array_equal(one, levels[0]) for one in levels)
    assert levels[0][0] < 0.5 < 90 < levels[0][-1]
    # the first direction lies along x: the loss at (1, -1) is 7, at (-1, 1) it is 3
    lines: Any = panels[0].collections[1]
    nearest = lines.find_nearest_contour
    assert nearest(1, -1, pixel=False)[0] > nearest(-1, 1, pixel=False)[0]


@pytest.mark.parametrize("loss", [[2.0] * 3, [[2.0] * 3] * 3, [[0.0] * 3] * 3])
def test_flat_landscapes_are_drawn(loss: list[Any], tmp_path: Path) -> None:
    plot_landscape(record(loss), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_names_are_what_tells_networks_apart(tmp_path: Path, drawn: list[Figure]) -> None:
    assert names(["runs/a"]) == ["a"]
    assert names(["runs/x/a", "runs/x/b"]) == ["a", "b"]
    assert names(["runs/x/a/best.safetensors", "runs/y/a"]) == ["x/a/best.safetensors", "y/a"]
    assert names(["runs/abc/x", "runs/abd/x"]) == ["abc/x", "abd/x"]
    made = record([2.0, 1.0, 3.0], [2.0, 1.0, 3.0], paths=("$\\frac{$", "_b"))
    plot_landscape(made, tmp_path / "a.png")  # no formula
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [r"$\frac{$", "./_b"]


def test_pictures_of_unknown_kind(tmp_path: Path) -> None:
    for name in ("a.pdf", "a", "png"):
        with pytest.raises(ConfigError, match=r"a picture is a \.png or \.svg file"):
            plot_landscape(record([2.0, 1.0, 3.0]), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert _landscape.picture_format(Path("A.PNG")) == "png"
