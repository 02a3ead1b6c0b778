"""The page of runs: what stands in it, by a parser that knows nothing of how it was made."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spikefold.cli import main
from tests.reports.pages import records, report, summary, table, write_run, write_runs


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
    assert table(page, "Settings in which") == [
        ["setting", "model.norm"], ["norm mpbn", "mpbn"], ["norm none", "none"]]  # fmt: skip
    settings = dict(table(page, "Settings; those that differ"))
    assert (settings["model.norm"], settings["model.steps"]) == ("mpbn / none", "2")
    assert "<mark>model.norm</mark>" in text
    assert "<mark>model.steps</mark>" not in text
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


def test_a_pair_of_norms_is_told_as_one(tmp_path: Path) -> None:
    for current, membrane in (("bn", "mpbn"), ("tab", "mpbn"), ("tab", "none")):
        record = summary(norm=membrane)
        record["experiment"]["model"]["current_norm"] = current
        write_run(tmp_path / "runs" / f"{current}-{membrane}", record)
    page, text = report(tmp_path / "runs", tmp_path / "page.html")
    assert "<title>digits: 3 settings of norms" in text
    rows = [row[0] for row in table(page, "Mean ± deviation")[1:]]
    assert sorted(rows) == ["norms bn + mpbn", "norms tab + mpbn", "norms tab + none"]


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
    assert len(page.tables["Settings in which these runs differ"]) == 11


def test_machines_that_differ_are_told_by_setting(tmp_path: Path) -> None:
    for seed, (norm, processor) in enumerate((("mpbn", "P"), ("mpbn", "Q"), ("none", "Q"))):
        record = summary(seed, norm=norm, hardware={"processor": processor, "torch": "2.13"})
        write_run(tmp_path / "runs" / str(seed), record)
    page, text = report(tmp_path / "runs", tmp_path / "page.html")
    machines = dict(table(page, "Where the runs were made"))
    assert (machines["processor"], machines["torch"]) == ("P / Q", "2.13")
    assert "<mark>processor</mark>" in text
    assert table(page, "In what the machines differ") == [
        ["setting", "processor"], ["norm mpbn", "P / Q"], ["norm none", "Q"]]  # fmt: skip
    page, _ = report(tmp_path / "runs" / "2", tmp_path / "page.html")
    assert not any("machines differ" in caption for caption in page.tables)


def test_a_network_that_was_only_fused(tmp_path: Path) -> None:
    """Without MPBN nothing is folded."""
    overview = {"spikes": 1000, "mismatches": 7}
    layers = {"features.0.lif": {"compared": 1000, "mismatches": 7}}
    files = {**records("none"), "verification.json": {"fuse": {"layers": layers}}}
    place = write_run(tmp_path / "run", summary(norm="none", fuse=overview), files)
    page, text = report(place, tmp_path / "page.html")
    assert "changes rounding, over the test set, 1 run: 7 of 1,000 spike decisions differ" in text
    assert table(page, "Decisions of each layer") == [
        ["layer", "compared", "differ after fusing"], ["features.0.lif", "1,000", "7"]]  # fmt: skip


def test_what_was_removed_and_what_was_not_counted(tmp_path: Path) -> None:
    record = summary()
    record["cost"] |= {"removed": {"MPBN": {"layers": 2, "operations": 1200.0}}}
    record["cost"] |= {"uncounted": ["matmul"], "samples": 8}
    _, text = report(write_run(tmp_path / "run", record), tmp_path / "page.html")
    assert "; not counted: matmul. Fold and fusion removed: MPBN of 2 layers (1,200 op" in text
    assert "Operations and energy at 45 nm, a sample, mean of 8: " in text


def test_json_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", summary())
    words = ["report", str(tmp_path / "run"), "-o", str(tmp_path / "page.html"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "report": str(tmp_path / "page.html"),
        "runs": [str(tmp_path / "run")],
    }


def test_older_and_newer_runs_of_a_setting_are_not_mixed(tmp_path: Path) -> None:
    """An older run has no cost: energy is that of the newer, and rates are taken alike of both."""
    older = {"cost": None, "firing_rates": {"features.0.lif": 0.5, "features.1.lif": 0.3}}
    write_run(tmp_path / "runs" / "a", summary(0))
    write_run(tmp_path / "runs" / "b", summary(1, **older))
    page, _ = report(tmp_path / "runs", tmp_path / "page.html")
    head, row = table(page, "Mean")
    told = dict(zip(head, row, strict=True))
    # layers of 0.25 each in the newer one; 0.4 in the mean of the older one
    assert (told["n"], told["firing rate"], told["ACs"]) == ("2", "0.325", "30 (of 1)")
    assert told["energy (µJ)"] == "2 (of 1)"
