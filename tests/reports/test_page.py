"""The page of runs: what stands in it, by a parser that knows nothing of how it was made."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from spikefold.cli import main
from tests.reports.pages import COUNTED, records, summary, write_run, write_runs

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


def test_what_a_page_tells_is_what_the_records_say(tmp_path: Path) -> None:
    page, text = report(write_runs(tmp_path / "runs"), tmp_path / "page.html")
    head, mpbn, none = table(page, "Mean ± deviation")
    assert dict(zip(head, mpbn, strict=True)) == {
        "setting": "norm mpbn",
        "n": "2",
        # 75 and 80 %: deviation 5 / sqrt(2)
        "validation (%)": "77.50 ± 3.54",
        "test (%)": "77.50 ± 3.54",
        "firing rate": "0.250",
        "ACs": "30",
        "MACs": "10",
        "energy (µJ)": "2",
        "of an ANN's": "0.50",
        "training (min)": "1.5",
        "norms left at inference": "BNTT: 24 operations",
        "differ after the fold": "0 of 2,000",
    }
    assert none[:4] == ["norm none", "1", "75.00", "75.00"]
    assert none[-1] == "-"
    assert table(page, "Settings in which")[1] == ["model.norm", "mpbn", "none"]
    confusions = table(page, "Test set, all 2 seeds together")
    assert confusions[0] == ["class", "cat", "dog", "<b>&$x_1$"]
    assert [row[1:] for row in confusions[1:]] == [["4", "", ""], ["2", "", ""], ["", "", "2"]]
    assert "few &amp; small" in text
    assert "test sample 0, of class &lt;b&gt;&amp;$x_1$, taken for cat" in text
    decisions = table(page, "Decisions of each layer, norm mpbn, seed 0")
    assert decisions[1] == ["features.0.lif", "500", "0"]
    assert table(page, "A sample, as the network would ship, norm none")[1][1] == (
        "values of <the input>"
    )
    assert [row[0] for row in table(page, "Where the runs were made")[1:]] == [
        "processor", "torch", "precision"]  # fmt: skip


def test_the_head_tells_what_every_run_was_made_on(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "whole", summary())
    few = {"train": 259, "validation": 0, "test": 4}
    write_run(tmp_path / "runs" / "part", summary(1, samples=few, validation=None))
    _, text = report(tmp_path / "runs", tmp_path / "page.html")
    assert "2 runs on 259 to 1,295 training, 0 to 143 validation and 4 test samples" in text
    assert "The validation samples chose the epoch" in text
    _, text = report(tmp_path / "runs" / "part", tmp_path / "page.html")
    assert "1 run on 259 training, 0 validation and 4 test samples. The last epoch is kept" in text


def test_settings_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    rates = (0.0123456, 0.012345604, 1.0)
    for rate in rates:
        record = summary()
        record["experiment"]["optimizer"]["learning_rate"] = rate
        write_run(tmp_path / "runs" / str(rate), record)
    page, text = report(tmp_path / "runs", tmp_path / "page.html")
    shown = [f"learning_rate {rate}" for rate in ("0.0123456", "0.012345604", "1")]
    assert sorted(row[0] for row in table(page, "Mean ± deviation")[1:]) == sorted(shown)
    assert all(f"{label}: 0.250" in text or f"{label}: layer" in text for label in shown)


def test_a_page_names_the_norm_after_the_connection(tmp_path: Path) -> None:
    record = summary(norm="mpbn-steps")
    record["experiment"]["model"]["current_norm"] = "tab"
    _, text = report(write_run(tmp_path / "run", record), tmp_path / "page.html")
    title = re.search("<title>(.*)</title>", text)
    assert title
    assert "small on digits, norms tab + mpbn-steps, T = 2" in title[1]


def test_confusions_of_other_classes_are_not_added_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, classes in enumerate((["ant", "bee", "cat"], ["ant", "cat"])):
        confusions = {"names": classes, "counts": [[1, 1, 5]]}
        write_run(tmp_path / f"{seed}", summary(seed), {"confusions.json": confusions})
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 1
    told = capsys.readouterr().err
    assert str(Path("1", "confusions.json")) in told
    assert f"other classes than in {tmp_path / '0'}" in told
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_one_file_with_a_structure(tmp_path: Path) -> None:
    page, text = report(write_runs(tmp_path / "runs"), tmp_path / "page.html")
    assert "script" not in page.tags
    # Every link leads to a place in the page, and no two places have one name.
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert len(set(page.ids)) == len(page.ids)
    assert "@import" not in text
    assert "url(http" not in text
    assert [name for level, name in page.headings if level == "h1"] == [
        "digits: 2 settings of norm"
    ]
    assert ("h3", "Membrane potentials of norm mpbn, seed 0") in page.headings
    # curves, rates; potentials and raster of both settings, thresholds of one
    assert len(page.labels) == 7
    assert all(len(label) > 60 for label in page.labels)
    assert any("layer 0: -0.20 to inf, 0.5 before the fold" in label for label in page.labels)
    assert any("layer 1: 3 spikes of 3 neurons in 2 steps" in label for label in page.labels)
    assert any("norm none: 50.00 % of the validation samples wrong" in la for la in page.labels)


@pytest.mark.parametrize(
    "loss", [[2.0, 0.5, None], [[2.0, 1.0, 2.0], [1.0, 0.5, 1.5], [3.0, None, 3.0]]]
)
def test_a_landscape_is_shown_where_it_was_measured(loss: list[Any], tmp_path: Path) -> None:
    network = {"network": "runs/a", "distances": [-1.0, 0.0, 1.0], "loss": loss, "seed": 0}
    record = {"data": "digits", "split": "train"}
    record["networks"] = [{**network, "samples": 9, "batch_statistics": False}]
    place = write_run(tmp_path / "run", summary(), {"landscape.json": record})
    page, text = report(place, tmp_path / "page.html")
    assert "spikefold landscape" not in text
    assert any(f"from 0.5 to {2 if None in loss else 3}" in label for label in page.labels)
    (place / "landscape.json").unlink()
    _, text = report(place, tmp_path / "page.html")
    assert f"spikefold landscape {place} -o {place / 'landscape.json'}" in text
    (place / "landscape.json").write_text('{"networks": [{"loss": []}]}')
    assert main(["report", str(place), "-o", str(tmp_path / "none.html")]) == 1


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs")
    texts = {report(runs, tmp_path / f"{n}.html")[1] for n in (1, 2)}
    assert len(texts) == 1


def test_what_older_runs_lack_is_said(tmp_path: Path) -> None:
    old = summary()
    del old["cost"]
    write_run(tmp_path / "runs", {**old, "firing_rates": {"features.0.lif": 0.2}})
    page, text = report(tmp_path / "runs", tmp_path / "page.html")
    assert dict(zip(*table(page, "Mean"), strict=True))["energy (µJ)"] == "not recorded"
    assert dict(zip(*table(page, "Mean"), strict=True))["firing rate"] == "0.200"
    # potentials, thresholds, raster, confusions, verification, cost; a landscape says how
    assert text.count('<p class="note">not recorded</p>') == 6
    del old["fold"]
    write_run(tmp_path / "other", {**old})
    _, text = report(tmp_path / "other", tmp_path / "page.html")
    assert text.count("nothing was folded") == 2


def test_many_classes_are_listed_by_what_is_confused(tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(30)]
    counts = [[n, n, 9] for n in range(30)] + [[3, 4, 2], [5, 6, 7]]
    files = {"confusions.json": {"names": names, "counts": counts}}
    write_run(tmp_path / "runs", summary(), files)
    page, _ = report(tmp_path / "runs", tmp_path / "page.html")
    assert table(page, "Test set, seed 0: the most frequent")[1:] == [
        ["class 5", "class 6", "7"],
        ["class 3", "class 4", "2"],
    ]


def test_more_settings_than_colours(tmp_path: Path) -> None:
    for number in range(10):
        of = summary()
        of["experiment"]["optimizer"]["learning_rate"] = 0.1 * number
        of["experiment"]["model"]["rate"] = f"{number}"
        write_run(tmp_path / "runs" / str(number), of)
    page, _ = report(tmp_path / "runs", tmp_path / "page.html")
    assert len(table(page, "Mean")) == 11
    assert len(page.tables["Settings in which these runs differ"]) == 3


def damaged(name: str) -> list[Any]:
    """A record and what is no such record."""
    whole = records()[name]
    kinds: list[Any] = [[], 3, "text", None, {"features.0.lif": 3}]
    if isinstance(whole, dict):
        kinds += [{k: v for k, v in whole.items() if k != key} for key in list(whole)[:6]
                  if name in ("raster.json", "confusions.json")]  # fmt: skip
    return kinds


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("name", list(records()))
def test_a_broken_record_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, bad in enumerate(damaged(name)):
        place = write_run(tmp_path / str(number), summary(), {**records(), name: bad})
        out = tmp_path / "page.html"
        assert main(["report", str(place), "-o", str(out)]) == 1, bad
        error = capsys.readouterr().err
        assert f"{place / name}: damaged" in error
        assert error.count("\n") == 1
        assert not out.exists()


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    "change",
    [
        {"samples": {"train": 1}},
        {"seconds": "long"},
        {"hardware": "text"},
        {"cost": {"acs": 1.0}},
        {"cost": {**COUNTED, "layers": [3], "norm_operations": 0.0}},
        {"notes": [3]},
        {"recipe": ["x"]},
        {"firing_rates": 3, "cost": None},
    ],
)
def test_a_broken_summary_is_named(
    change: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "good", summary())
    place = write_run(tmp_path / "runs" / "bad", {**summary(1), **change})
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 1
    error = capsys.readouterr().err
    assert f"{place / 'summary.json'}: damaged" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("line", ["", "{}\n", "3\n", '{"epoch": 1, "train_loss": "x"}\n', "\x00"])
def test_broken_metrics_are_named(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_run(tmp_path / "run", summary())
    (place / "metrics.jsonl").write_text(line)
    assert main(["report", str(place), "-o", str(tmp_path / "page.html")]) == 1
    assert f"{place / 'metrics.jsonl'}: damaged" in capsys.readouterr().err


def test_runs_on_different_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in ("digits", "nmnist"):
        write_run(tmp_path / "runs" / data, summary(data=data))
    own = summary(2, data="folder")
    own["experiment"]["data"]["root"] = "my/pictures"
    write_run(tmp_path / "runs" / "own", own)
    assert main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "page.html")]) == 1
    error = capsys.readouterr().err
    for part in ("one data set", "digits (", "nmnist (", "my/pictures ("):
        assert part in error
    assert main(["report", "-o", str(tmp_path / "page.html")]) == 1
    assert "name at least one" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none"), "-o", str(tmp_path / "page.html")]) == 1
    assert "no such directory" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    words = ["report", str(tmp_path / "runs" / "own"), "-o", str(tmp_path / "file" / "page.html")]
    assert main(words) == 1
    assert "cannot write" in capsys.readouterr().err


def test_unfinished_runs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "a", summary())
    place = write_run(tmp_path / "runs" / "b", summary(1))
    (place / "summary.json").unlink()
    for words in (["table"], ["report", "-o", str(tmp_path / "page.html")]):
        assert main([words[0], str(tmp_path / "runs"), *words[1:]]) == 0
        error = capsys.readouterr().err
        assert error == (
            f"spikefold: note: {place} has no results yet, and is left out "
            f"(spikefold run --resume {place} goes on with it)\n"
        )


def test_json_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", summary())
    words = ["report", str(tmp_path / "run"), "-o", str(tmp_path / "page.html"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "report": str(tmp_path / "page.html"),
        "runs": [str(tmp_path / "run")],
    }
