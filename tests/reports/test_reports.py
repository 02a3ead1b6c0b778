"""Tables and pictures from hand-made records."""

import json
from pathlib import Path
from typing import Any

from spikefold.reports import accuracy_table, plot_run, run_table


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


def test_settings_without_a_column_are_named_where_they_differ() -> None:
    def summary(recipe: str, seed: int, rate: float, norm: str = "mpbn") -> dict[str, Any]:
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

    alike = [summary("one", seed, 0.1) for seed in (0, 1)]
    header, row = accuracy_table(alike)
    assert len(header) == len(row) == 10
    assert row[6:8] == ("2", "50.50 ± 0.71")
    # the order of names in a record is that of the version that wrote it
    alike[1]["experiment"]["model"] = dict(reversed(alike[1]["experiment"]["model"].items()))
    assert accuracy_table(alike) == [header, row]
    unchosen = accuracy_table([{**one, "validation": None} for one in alike])[1]
    assert unchosen[6:9] == ("2", "-", "50.50 ± 0.71")
    rows = accuracy_table([*alike, summary("one", 0, 0.2), summary("two", 0, 0.4)])
    assert [row[-1] for row in rows] == [
        "settings",
        "optimizer.learning_rate=0.1",
        "optimizer.learning_rate=0.2",
        "",
    ]
