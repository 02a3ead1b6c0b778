"""The page in a browser: wide and narrow, light and dark; skips where there is no Chromium."""

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikefold.cli import main
from tests.reports.pages import LAYER, summary, write_run, write_runs

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium"),
]

# The page has no script: a page around it looks at it, in a frame of the width that is asked for.
AROUND = """<!DOCTYPE html><body style="margin: 0">
<iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<pre id="found"></pre>
<script>
function rgb(color) {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return Array.from(canvas.getImageData(0, 0, 1, 1).data.slice(0, 3));
}
document.querySelector("iframe").onload = event => {
  const page = event.target.contentDocument, view = event.target.contentWindow;
  const look = (element, name) => view.getComputedStyle(element)[name];
  const ids = Array.from(page.querySelectorAll("[id]"), e => e.id);
  const found = {
    paper: rgb(look(page.body, "backgroundColor")),
    inks: Array.from(new Set(Array.from(
      page.querySelectorAll("p, td, th, h1, h2, h3, a, caption, figcaption"),
      e => look(e, "color"))), rgb),
    drawn: Array.from(new Set(Array.from(
      page.querySelectorAll("svg text, svg tspan"), e => look(e, "fill"))), rgb),
    lines: Array.from(new Set(Array.from(
      page.querySelectorAll("#curves path[clip-path], #curves g[clip-path] path"),
      e => look(e, "stroke")).filter(c => c !== "none"))),
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    pictures: Array.from(page.querySelectorAll("svg"), e => e.getBoundingClientRect().width),
    smallest: Math.min(...Array.from(
      page.querySelectorAll("svg text"), e => e.getBoundingClientRect().height)),
    unreachable: Array.from(page.querySelectorAll("div, figure"))
      .filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length,
    repeated: ids.length - new Set(ids).size,
  };
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>
"""


def looked_at(folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """What the browser sees of `page.html`."""
    (folder / "around.html").write_text(AROUND.replace("WIDTH", str(width)))
    assert BROWSER is not None
    shown = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files",
            "--virtual-time-budget=20000", f"--window-size={width + 20},900",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            (folder / "around.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=900, check=True,
    ).stdout  # fmt: skip
    text = shown.partition('<pre id="found">')[2].partition("</pre>")[0]
    found: dict[str, Any] = json.loads(unescape(text))
    return found


def contrast(one: list[int], other: list[int]) -> float:
    """Of two colours: WCAG 2.2's definition."""

    def luminance(color: list[int]) -> float:
        parts = [c / 255 for c in color]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1300])
def test_a_page_is_readable(width: int, dark: bool, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs")
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 0
    found = looked_at(tmp_path, width, dark=dark)
    assert (sum(found["paper"]) < 200) is dark
    # Text stands out as WCAG AA asks, that of the pictures too.
    for ink in [*found["inks"], *found["drawn"]]:
        assert contrast(ink, found["paper"]) >= 4.5, ink
    assert len(found["lines"]) >= 3
    # Wide tables and pictures scroll by themselves, and the keyboard reaches them.
    assert found["overflow"] <= 0
    assert found["unreachable"] == 0
    assert len(found["pictures"]) == 7
    assert min(found["pictures"]) > 300
    assert found["smallest"] > 7
    assert found["repeated"] == 0


def test_nothing_is_cut_off_in_print(tmp_path: Path) -> None:
    """Ten settings on a sheet of A4: print's own rules, where the browser measures widths."""
    for number, rate in enumerate(np.linspace(0.0123456, 0.1, 10).tolist()):
        record = summary(fold={"spikes": 399_360_000, "mismatches": 0})
        record["experiment"]["optimizer"]["learning_rate"] = rate
        record["experiment"]["model"]["current_norm"] = ("bn", "tdbn")[number % 2]
        record["hardware"]["processor"] = f"Processor {number} @ 2.00 GHz"
        million = dict.fromkeys(("macs", "acs", "ann", "updates", "weight_bytes"), 1_234_567.0)
        layers = [{"name": f"features.{n}", **LAYER, **million} for n in range(2)]
        record["cost"] |= {**million, "layers": layers, "norm_operations": 250_368.0}
        write_run(tmp_path / "runs" / str(number), record)
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "runs"), "-o", str(page)]) == 0
    page.write_text(page.read_text().replace("@media print", "@media all"))
    assert looked_at(tmp_path, 718, dark=False)["overflow"] <= 0
