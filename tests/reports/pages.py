"""Hand-made records of runs for pages, and a parser of pages."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from spikefold.cli import main

HISTOGRAM = {"edges": [0.0, 1.0, 2.0], "density": [0.25, 0.75], "mean": 1.0, "deviation": 0.5}
COUNTED = {
    "macs": 10.0, "acs": 30.0, "ann": 40.0, "updates": 8.0, "parameters": 5, "weight_bytes": 20,
    "threshold_bytes": 4, "firing_rate": 0.25, "picojoules": 2e6, "ann_picojoules": 4e6,
}  # fmt: skip


LAYER = {"source": "<the input>", "spikes": False, "norms": {"BNTT": 3}, **COUNTED}


def summary(seed: int = 0, norm: str = "mpbn", data: str = "digits", **changed: Any) -> dict:
    """As `run` writes it, with little in it."""
    accuracy = {"accuracy": 0.75 + 0.05 * seed, "correct": 3, "samples": 4}
    layers = [{"name": name, **LAYER} for name in ("features.0", "features.1")]
    folded = {"fold": {"spikes": 1000, "mismatches": 0}} if norm != "none" else {}
    return {
        "recipe": "digits",
        "experiment": {
            "seed": seed,
            "data": {"name": data, "root": None},
            "model": {"name": "small", "norm": norm, "steps": 2},
            "optimizer": {"epochs": 2, "learning_rate": 0.1},
            "hardware": {"precision": "float32"},
        },
        "hardware": {"processor": "P", "torch": "2.13"},
        "samples": {"train": 1295, "validation": 143, "test": 4},
        "notes": "few & small",
        "seconds": 90.0,
        "validation": accuracy,
        "test": {"trained": accuracy},
        "cost": {**COUNTED, "layers": layers, "norm_operations": 24.0},
        **folded,
        **changed,
    }


def records(norm: str = "mpbn") -> dict[str, Any]:
    """The other files."""
    names = ["features.0.lif", "features.1.lif"]
    raster = {"shape": [3, 2, 2], "neurons": [0, 4, 8], "fired": [[0, 2], [1]]}
    classes = ["cat", "dog", "<b>&$x_1$"]
    found: dict[str, Any] = {
        "potentials.json": {n: {"threshold": 0.5, "before": HISTOGRAM, "after": HISTOGRAM}
                            for n in names},
        "raster.json": {"split": "test", "index": 0, "label": 2, "predicted": 0,
                        "names": classes, "layers": dict.fromkeys(names, raster)},
        "confusions.json": {"names": classes,
                            "counts": [[0, 0, 2], [1, 0, 1], [2, 2, 1]]},
    }  # fmt: skip
    if norm != "none":
        theta = {"threshold": 0.5, "steps": 2, "theta": [0.3, "inf", 0.2, -0.2]}
        layer = {"compared": 500, "mismatches": 0}
        found["thresholds.json"] = {name: {**theta, "negative_polarity": 1} for name in names}
        found["verification.json"] = {"fold": {"layers": dict.fromkeys(names, layer)}}
    return found


def write_run(place: Path, of: dict, files: dict[str, Any] | None = None) -> Path:
    """A run's folder."""
    place.mkdir(parents=True)
    (place / "summary.json").write_text(json.dumps(of))
    epoch = {"train_loss": 1.0, "validation_loss": 1.0, "train_accuracy": 0.5}
    lines = [{"epoch": n, "validation_accuracy": n / 4, **epoch} for n in (1, 2)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, record in (files or {}).items():
        (place / name).write_text(json.dumps(record))
    return place


def write_runs(folder: Path) -> Path:
    """Two settings, the first of two seeds."""
    for seed in (0, 1):
        write_run(folder / "mpbn" / f"seed-{seed}", summary(seed), records())
    write_run(folder / "none", summary(norm="none"), records("none"))
    return folder


VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements in balance, their identifiers, links, tables and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.labels: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.headings: list[tuple[str, str]] = []
        self._text = self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.add(tag)
        self.ids += [name] if (name := found.get("id")) else []
        for key in ("href", "xlink:href", "src"):
            self.links += [found[key] or ""] if key in found else []
        if found.get("role") == "img":
            self.labels.append(found["aria-label"] or "")
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption", "h1", "h2", "h3"):
            self._text = ""

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self._rows[-1].append(self._text)
        elif tag == "caption":
            self._caption = self._text
        elif tag == "table":
            self.tables[self._caption] = self._rows
        elif tag in ("h1", "h2", "h3"):
            self.headings.append((tag, self._text))


def report(folder: Path, out: Path) -> tuple[Page, str]:
    """The page of a folder's runs."""
    assert main(["report", str(folder), "-o", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    return Page(text), text


def table(page: Page, caption: str) -> list[list[str]]:
    (found,) = (rows for name, rows in page.tables.items() if name.startswith(caption))
    return found
