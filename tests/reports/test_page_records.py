"""A page of runs: records that are broken, stale, of other runs, or not there."""

import csv
import io
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from spikefold.cli import main
from spikefold.errors import DataError
from spikefold.reports import plot_run
from tests.reports.pages import (
    COUNTED,
    LAYER,
    records,
    report,
    summary,
    table,
    write_run,
    write_runs,
)


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


def damaged(name: str) -> list[Any]:
    """A record and what is no such record."""
    whole = records()[name]
    kinds: list[Any] = [[], 3, "text", None, {"features.0.lif": 3}]
    if isinstance(whole, dict):
        kinds += [{k: v for k, v in whole.items() if k != key} for key in list(whole)[:6]
                  if name in ("raster.json", "confusions.json")]  # fmt: skip
    if name == "raster.json":
        kinds += [{**whole, key: value} for key in ("label", "predicted") for value in (-1, 0.5)]
    if name == "verification.json":  # the summary says 0
        layer = {"compared": 5, "mismatches": 2}
        kinds += [{"fold": {"layers": {"features.0.lif": layer}}}]
    if name == "confusions.json":
        kinds += [{**whole, "counts": [count]} for count in ([-1, 0, 1], [0, 0, -1], [0, 0, 0.5])]
        unnamed: list[Any] = [5, [], {}, "ab", [5]]
        kinds += [{"names": names, "counts": []} for names in unnamed]
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
        {"cost": {**COUNTED, "acs": float("nan")}},
        {"seconds": "long"},
        {"hardware": "text"},
        {"cost": {"acs": 1.0}},
        {"cost": {**COUNTED, "layers": [3], "norm_operations": 0.0}},
        {"notes": [3]},
        {"recipe": ["x"]},
        {"firing_rates": 3, "cost": None},
        *(
            {"fuse": fuse}
            for fuse in ({}, 5, None, {"mismatches": 1}, {"mismatches": 1, "spikes": -1})
        ),
        {"experiment": {**summary()["experiment"], "data": {"name": "folder", "root": 5}}},
        {"cost": {**COUNTED, "layers": [{**LAYER, "name": 3}], "norm_operations": 0.0}},
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


def epoch(loss: str, *, number: str = "1", accuracy: str = "0.5") -> str:
    """A line of metrics."""
    return f'{{"epoch": {number}, "train_loss": {loss}, "validation_accuracy": {accuracy}}}\n'


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    "line",
    [
        "", "{}\n", "3\n", '{"epoch": 1, "train_loss": "x"}\n', "\x00", epoch("NaN"), epoch("-1.0"),
        epoch("1e308"), epoch("true"), epoch("0.5", accuracy="1e308"),
        epoch("0.5", accuracy="null"),
        epoch("0.5", number=f"1{400 * '0'}"),
        epoch("0.5") + epoch("0.5"), epoch("0.5", number="2"),
        epoch("0.5") + '{"epoch": 2, "train_loss": 0.5}\n',
        '{"epoch": 1, "train_loss": 0.5}\n' + epoch("0.5"),
    ],
)  # fmt: skip
def test_broken_metrics_are_named(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_run(tmp_path / "run", summary())
    (place / "metrics.jsonl").write_text(line)
    assert main(["report", str(place), "-o", str(tmp_path / "page.html")]) == 1
    assert f"{place / 'metrics.jsonl'}: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ((2 * epoch("0.5")).encode()[:-9], "no JSON in line 2: "),
        (b"{}\n", "there is no epoch)"),
        (b"3\n", "of another form than a run writes: "),
        (b"\xff\n", "no text in UTF-8)"),
    ],
)
def test_what_is_wrong_with_a_record_is_said_plainly(
    content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_run(tmp_path / "run", summary())
    (place / "metrics.jsonl").write_bytes(content)
    assert main(["report", str(place), "-o", str(tmp_path / "page.html")]) == 1
    assert f"damaged, or no record of a run ({reason}" in capsys.readouterr().err


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
    for last, what in (
        (False, "there is no last.safetensors with which to go on"),
        (True, f"spikefold run --resume {place} goes on with it"),
    ):
        if last:
            (place / "last.safetensors").touch()
        for words in (["table"], ["report", "-o", str(tmp_path / "page.html")]):
            assert main([words[0], str(tmp_path / "runs"), *words[1:]]) == 0
            error = capsys.readouterr().err
            told = f"spikefold: note: {place} has no results yet, and is left out ({what})\n"
            assert error.startswith(told)
            assert main([words[0], str(place), *words[1:]]) == 1
            error = capsys.readouterr().err
            assert error == f"spikefold: {place}: no finished run (summary.json) in it; {what}\n"


def test_results_of_fewer_epochs_than_were_trained_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train --resume` with more epochs, after `run`: summary and curves would be of two runs."""
    write_run(tmp_path / "runs" / "a", summary())
    place = write_run(tmp_path / "runs" / "b", summary(1))
    experiment = summary(1)["experiment"]
    (place / "config.json").write_text(json.dumps(experiment))
    page, _ = report(tmp_path / "runs", tmp_path / "page.html")
    assert table(page, "Mean")[1][1] == "2"
    experiment["optimizer"]["epochs"] += 1
    (place / "config.json").write_text(json.dumps(experiment))
    page, _ = report(tmp_path / "runs", tmp_path / "page.html")
    assert table(page, "Mean")[1][1] == "1"
    assert f"note: {place} has no results yet" in capsys.readouterr().err
    assert main(["report", str(place), "-o", str(tmp_path / "none.html")]) == 1
    (place / "config.json").write_text("{}")
    assert main(["report", str(place), "-o", str(tmp_path / "none.html")]) == 1
    assert f"{place / 'config.json'}: damaged" in capsys.readouterr().err


def test_a_table_shows_the_costs_that_a_page_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = write_runs(tmp_path / "runs")
    page, _ = report(runs, tmp_path / "page.html")
    head, *rows = table(page, "Mean")
    capsys.readouterr()
    assert main(["table", str(runs), "--costs", "--format", "csv"]) == 0
    told = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    costs = head[head.index("firing rate") : head.index("norms left at inference") + 1]
    assert len(costs) == 7
    for row, shown in zip(told, rows, strict=True):
        assert {name: row[name] for name in costs} == {
            name: value for name, value in zip(head, shown, strict=True) if name in costs
        }


def test_copies_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (write_run(tmp_path / name, summary()) for name in ("a", "b"))
    for words in (["table"], ["report", "-o", str(tmp_path / "page.html")]):
        assert main([words[0], str(one), str(other), *words[1:]]) == 1
        error = capsys.readouterr().err
        assert f"{one} and {other} have the same settings and seed 0: leave one out" in error


def test_a_folder_is_the_same_however_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, root in enumerate(("my/pictures", str(tmp_path / "my" / "pictures"))):
        own = summary(seed, data="folder")
        own["experiment"]["data"]["root"] = root
        write_run(tmp_path / "runs" / str(seed), own)
    page, _ = report(tmp_path / "runs", tmp_path / "page.html")
    assert [row[1] for row in table(page, "Mean")] == ["n", "2"]
    assert dict(table(page, "Settings; those"))["data.root"] == "my/pictures"  # as it was told


def test_a_landscape_of_other_weights_is_not_shown(tmp_path: Path) -> None:
    network = {"network": "a", "distances": [0.0, 1.0], "loss": [1.0, 2.0], "seed": 0, "samples": 9,
               "batch_statistics": False, "sha256": sha256(b"weights").hexdigest()}  # fmt: skip
    record = {"data": "digits", "split": "train", "networks": [network]}
    place = write_run(tmp_path / "run", summary(), {"landscape.json": record})
    again = f"spikefold landscape {place} -o {place / 'landscape.json'} --overwrite"
    for weights, stale in ((None, False), (b"weights", False), (b"others", True)):
        if weights is not None:
            (place / "best.safetensors").write_bytes(weights)
        page, text = report(place, tmp_path / "page.html")
        assert (f"of other weights: {again}" in text) is stale
        assert any("Loss along" in label for label in page.labels) is not stale


def test_names_that_are_not_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Linux allows any bytes; a recipe's name is that of its file."""
    place = tmp_path / os.fsdecode(b"\xff")
    write_run(place, {**summary(), "recipe": os.fsdecode(b"my\xfe")}, records())
    _, text = report(place, tmp_path / "page.html")
    assert "<title>my?: " in text
    assert "\\udcff" in text
    assert main(["table", str(place)]) == 0
    assert "| my? |" in capsys.readouterr().out
    assert main(["report", str(place), "-o", str(place / "page.html")]) == 0
    assert "\\udcff/page.html" in capsys.readouterr().out


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("name", ["potentials.json", "thresholds.json"])
def test_pictures_of_a_broken_record_name_it(name: str, tmp_path: Path) -> None:
    for number, bad in enumerate([{"features.0.lif": 3}, {"features.0.lif": {}}, []]):
        place = write_run(tmp_path / str(number), summary(), {**records(), name: bad})
        with pytest.raises(DataError, match=f"{name}: damaged"):
            plot_run(place)
        assert not (place / name).with_suffix(".png").exists()
