"""Tables and pictures from hand-made records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikefold.errors import DataError
from spikefold.reports import (
    accuracy_records,
    accuracy_table,
    plot_run,
    read_summaries,
    run_table,
    run_title,
)
from spikefold.reports._figures import curve_figure


def test_pictures_of_a_record_with_odd_entries(tmp_path: Path) -> None:
    histogram = {"edges": [0.0, 1.0, 2.0], "density": [0.25, 0.75], "mean": 1.0, "deviation": 0.5}
    layers = {f"features.{n}.lif": {"threshold": 0.5, "before": histogram} for n in range(5)}
    layers["features.0.lif"]["after"] = histogram
    thresholds = {
        name: {"threshold": 0.5, "theta": [0.3, "inf", "-inf", -0.2], "negative_polarity": n}
        for n, name in enumerate(layers)
    }
    epoch = {
        "epoch": 1,
        "train_loss": 1.0,
        "validation_loss": 1.0,
        "train_accuracy": 0.5,
        "validation_accuracy": 0.5,
    }
    (tmp_path / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
    (tmp_path / "potentials.json").write_text(json.dumps(layers))
    (tmp_path / "thresholds.json").write_text(json.dumps(thresholds))
    for path in plot_run(tmp_path):
        assert path.read_bytes().startswith(b"\x89PNG")
    epoch = {key: value for key, value in epoch.items() if "validation" not in key}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
    assert len(plot_run(tmp_path)) == 3


def test_the_table_says_what_the_record_says() -> None:
    accuracy = {"accuracy": 0.98, "correct": 98, "samples": 100}
    overview = {
        "spikes": 1_000_000,
        "mismatches": 3,
        "mismatch_rate": 3e-6,
        "max_output_difference": 0.25,
    }
    timing = {
        "batch": 8,
        "threads": 1,
        "rounds": 5,
        "networks": {"folded": {"cpu_seconds": 2e-4, "cpu_ratio": 1.01}},
    }
    summary: dict[str, Any] = {
        "samples": {"train": 1295, "validation": 143, "test": 359},
        "notes": "few",
        "validation": accuracy,
        "test": {"trained": accuracy, "folded": accuracy, "fused": accuracy},
        "fold": overview,
        "fuse": overview,
        "firing_rates": {"features.0.lif": 0.25},
        "timing": timing,
        "hardware": {"processor": "P", "threads": 2, "torch": "2"},
    }
    text = "\n".join(": ".join(row) for row in run_table(summary))
    for part in (
        "1,295 / 143 / 359",
        "98.00%  (98 of 100)",
        "1,000,000",
        "differ: 3",
        "3e-06",
        "0.250",
        "200 µs  (1.01 of without MPBN)",
        "P, torch 2; times: 1 thread",
    ):
        assert part in text, part
    summary = {**summary, "validation": None, "samples": {"train": 9, "validation": 0, "test": 5}}
    rows = dict(run_table(summary))
    assert rows["validation"] == "none: trained on all samples, the last epoch counts"
    assert rows["samples: training / validation / test"] == "9 / 0 / 5"


def test_of_a_gpu_the_time_that_passed_is_told() -> None:
    networks = {"folded": {"cpu_seconds": 1.0, "cpu_ratio": 1.0, "wall_seconds": 2e-4}}
    networks["folded"]["wall_ratio"] = 1.01
    accuracy = {"accuracy": 0.98, "correct": 98, "samples": 100}
    overview = {"spikes": 1, "mismatches": 0, "mismatch_rate": 0.0, "max_output_difference": 0.0}
    rows = run_table(
        {
            "samples": {"train": 1, "validation": 1, "test": 1},
            "validation": accuracy,
            "test": {"trained": accuracy, "folded": accuracy, "fused": accuracy},
            "fold": overview,
            "fuse": overview,
            "firing_rates": {},
            "timing": {
                "device": "cuda",
                "batch": 8,
                "threads": 1,
                "rounds": 5,
                "networks": networks,
            },
            "hardware": {"processor": "P", "gpu": "G", "torch": "2"},
        }
    )
    assert rows[-2:] == [
        ("time per sample, folded", "200 µs  (1.01 of without MPBN)"),
        ("measured on", "G, torch 2; times: batch 8, median of 5 turns"),
    ]


def test_a_report_is_headed_by_the_data_that_were_used() -> None:
    """A recipe may have been run on other data than its name says."""
    model = {"name": "small", "norm": "mpbn", "steps": 4}
    data = {"name": "folder", "root": "my_images"}
    title = run_title({"recipe": "digits", "experiment": {"data": data, "model": model}})
    assert title == "small on my_images, norms bn + mpbn, T = 4"
    elsewhere = {"name": "cifar10", "root": None}
    assert "on cifar10," in run_title({"experiment": {"data": elsewhere, "model": model}})


def summary(recipe: str, seed: int, rate: float, norm: str = "mpbn") -> dict[str, Any]:
    """Of a run whose accuracy tells its seed."""
    experiment = {
        "data": {"name": "digits"},
        "model": {"name": "small", "norm": norm, "steps": 4},
        "optimizer": {"epochs": 2, "learning_rate": rate},
        "hardware": {"devices": seed},
        "seed": seed,
    }
    accuracy = {"accuracy": 0.5 + seed / 100}
    test = {"trained": accuracy}
    return {"recipe": recipe, "experiment": experiment, "validation": accuracy, "test": test}


def table(summaries: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return accuracy_table(accuracy_records(summaries))


def test_settings_without_a_column_are_named_where_they_differ() -> None:
    alike = [summary("one", seed, 0.1) for seed in (0, 1)]
    header, row = table(alike)
    assert len(header) == len(row) == 10
    assert row[3] == "bn + mpbn"
    assert row[6:8] == ("2", "50.50 ± 0.71")
    # the order of names in a record is that of the version that wrote it
    alike[1]["experiment"]["model"] = dict(reversed(alike[1]["experiment"]["model"].items()))
    assert table(alike) == [header, row]
    unchosen = table([{**one, "validation": None} for one in alike])[1]
    assert unchosen[6:9] == ("2", "-", "50.50 ± 0.71")
    other = summary("one", 0, 0.1, "none")
    other["experiment"]["model"]["current_norm"] = "tab"
    assert [row[3:] for row in table([*alike, other])[1:]] == [
        ("bn + mpbn", "4", "2", "2", "50.50 ± 0.71", "50.50 ± 0.71", "-"),
        ("tab + none", "4", "2", "1", "50.00", "50.00", "-"),
    ]
    rows = table([*alike, summary("one", 0, 0.2), summary("two", 0, 0.4)])
    assert [row[-1] for row in rows] == [
        "settings",
        "optimizer.learning_rate=0.1",
        "optimizer.learning_rate=0.2",
        "",
    ]


def test_records_hold_numbers() -> None:
    folded = [
        {**summary("one", seed, 0.1), "fold": {"mismatches": seed, "spikes": 10**6}}
        for seed in (1, 3)
    ]
    record, other = accuracy_records([*folded, summary("one", 2, 0.2)])
    assert (record["n"], record["seeds"], record["steps"]) == (2, [1, 3], 4)
    assert record["test"]["values"] == [0.51, 0.53]
    assert record["test"]["mean"] == 0.52
    assert record["test"]["deviation"] == pytest.approx(2**0.5 / 100)
    assert record["fold"] == {"mismatches": 4, "spikes": 2 * 10**6}
    assert record["settings"] == {"optimizer.learning_rate": 0.1}
    assert (other["fold"], other["test"]["deviation"]) == (None, None)
    assert table(folded)[1][-1] == "4 of 2,000,000"


def cost(rate: float, operations: float, norm: str = "BNTT") -> dict[str, Any]:
    layers = [{"name": "features.0", "firing_rate": rate, "norms": {norm: 2}}]
    return {
        **{"layers": layers, "firing_rate": rate, "norm_operations": operations},
        **{"acs": 3000.0, "macs": 20.0, "picojoules": 3e6, "ann_picojoules": 4e6},
    }


def test_a_table_of_costs_says_over_how_many_runs_each_is() -> None:
    runs = [
        {**summary("one", 0, 0.1), "seconds": 60.0, "cost": cost(0.2, 1000.0)},
        {**summary("one", 1, 0.1), "seconds": 90.0, "cost": cost(0.3, 1002.0, "TAB")},
        {**summary("one", 2, 0.1), "seconds": 120.0, "cost": {"not_counted": "a matmul"}},
    ]
    record, old = records = accuracy_records([*runs, summary("one", 0, 0.2)])
    assert record["cost"]["firing_rate"] == {"mean": 0.25, "n": 2}
    assert record["cost"]["seconds"] == {"mean": 90.0, "n": 3}
    assert record["cost"]["of_ann"] == {"mean": 0.75, "n": 2}
    assert record["cost"]["norms_left"] == {"names": ["BNTT", "TAB"], "operations": 1001.0}
    assert set(old["cost"].values()) == {None}
    header, *rows = accuracy_table(records, costs=True)
    told = [dict(zip(header, row, strict=True)) for row in rows]
    assert [
        (row["ACs"], row["energy (µJ)"], row["training (min)"], row["norms left at inference"])
        for row in told
    ] == [
        ("3,000 (of 2)", "3 (of 2)", "1.5", "BNTT, TAB: 1,001 operations"),
        ("not recorded",) * 4,
    ]
    assert [row["settings"] for row in told] == [
        f"optimizer.learning_rate={rate}" for rate in (0.1, 0.2)
    ]


def test_a_copy_of_a_run_is_not_counted() -> None:
    with pytest.raises(DataError, match="two runs of digits have the same settings and seed 3"):
        accuracy_records(
            [summary("digits", 3, 0.1), summary("digits", 4, 0.1), summary("digits", 3, 0.1)]
        )


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary("one", 0, 0.1)))
    assert len(read_summaries([tmp_path, tmp_path / "run", tmp_path / "run" / ".." / "run"])) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"experiment": 3}', '"text"', "\0"])
def test_a_file_that_is_no_summary_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=r"summary.json: damaged, or no record of a run"):
        read_summaries([tmp_path])
    with pytest.raises(DataError, match="none: no such directory"):
        read_summaries([tmp_path / "none"])


def test_curves_have_a_line_a_seed_and_their_mean_over_the_epochs_of_all() -> None:
    def history(*errors: float) -> list[dict[str, float]]:
        return [
            {"epoch": n, "train_loss": 2.0 * e, "validation_accuracy": 1 - e / 100}
            for n, e in enumerate(errors, 1)
        ]

    figure = curve_figure({"two": [history(60, 40, 30), history(50, 20)], "one": [history(10, 5)]})
    loss, error = ([line.get_xydata() for line in axes.lines] for axes in figure.axes)
    np.testing.assert_allclose(error[2], [(1, 55), (2, 30)])
    np.testing.assert_allclose(error[3], [(1, 10), (2, 5)])
    np.testing.assert_allclose(loss[2], [(1, 110), (2, 60)])
    assert [len(line) for line in error] == [3, 2, 2, 2]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["two", "one"]
