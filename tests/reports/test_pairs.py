"""Two settings, paired by seed, against a calculation by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spikefold.cli import main
from spikefold.errors import DataError
from spikefold.reports import pair_runs, pair_verdict, plot_pairs


def write(folder: Path, accuracies: dict[int, float], data: str = "digits") -> Path:
    """Runs of these seeds, with validation accuracy half of the test's."""
    for seed, accuracy in accuracies.items():
        experiment = {
            "seed": seed,
            "data": {"name": data},
            "model": {"name": "small", "norm": "none", "steps": 1},
            "optimizer": {"epochs": 2},
        }
        summary = {
            "recipe": "digits",
            "experiment": experiment,
            "validation": {"accuracy": accuracy / 2},
            "test": {"trained": {"accuracy": accuracy}},
        }
        place = folder / f"seed-{seed}"
        place.mkdir(parents=True)
        (place / "summary.json").write_text(json.dumps(summary))
        lines = [
            {"epoch": n, "train_loss": 1 / n, "validation_accuracy": accuracy / 2} for n in (1, 2)
        ]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_differences_interval_and_p_by_hand(tmp_path: Path) -> None:
    """Differences 1, 2, 3, 4: mean 2.5, deviation sqrt(5/3), t(3) at 97.5 % is 3.18245."""
    one = write(tmp_path / "one", {0: 0.50, 1: 0.60, 2: 0.70, 3: 0.80, 9: 0.1})
    other = write(tmp_path / "other", {3: 0.84, 2: 0.73, 1: 0.62, 0: 0.51})
    record = pair_runs(one, other)
    assert record["seeds"] == [0, 1, 2, 3]
    assert record["test"]["differences"] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    half = 3.182446 * (5 / 3) ** 0.5 / 2
    expected = [(2.5 - half) / 100, (2.5 + half) / 100]
    assert record["test"]["interval"] == pytest.approx(expected, rel=1e-5)
    # of 16 ways to choose the signs, two are as far from 0
    assert record["test"]["p"] == pytest.approx(2 / 16)
    assert record["validation"]["mean"] == pytest.approx(0.0125)
    assert pair_verdict(record, "test") == (
        "test: the other less the one +2.50 points over 4 pairs, 95 % interval +0.45 to +4.55, "
        "exact p = 0.125 (at least 0.125 with so many)"
    )


@pytest.mark.filterwarnings("error")
def test_differences_that_are_equal(tmp_path: Path) -> None:
    """No deviation, so no width; scipy warned of its precision on standard error."""
    one = write(tmp_path / "one", {0: 0.25, 1: 0.5})
    other = write(tmp_path / "other", {0: 0.25 + 0.1, 1: 0.5 + 0.1})
    record = pair_runs(one, other)
    assert record["test"]["interval"] == pytest.approx([0.1, 0.1])
    assert record["test"]["p"] == pytest.approx(2 / 4)


def test_settings_that_differ_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write(tmp_path / "one", {0: 0.5}), write(tmp_path / "other", {0: 0.6})
    assert pair_runs(one, other)["differ"] == []
    path = other / "seed-0" / "summary.json"
    summary = json.loads(path.read_text())
    summary["experiment"]["optimizer"]["epochs"] = 3
    summary["experiment"]["model"]["norm"] = "mpbn"
    summary["experiment"]["hardware"] = {"threads": 7}
    path.write_text(json.dumps(summary))
    assert main(["compare", str(one), str(other)]) == 0
    assert "settings that differ: model.norm, optimizer.epochs\n" in capsys.readouterr().out


def test_signs_that_disagree(tmp_path: Path) -> None:
    """Differences 3, -1, 2: sums 4; of 8 signs |sum| >= 4 are 6, 4, -4, -6."""
    one = write(tmp_path / "one", {0: 0.5, 1: 0.5, 2: 0.5})
    other = write(tmp_path / "other", {0: 0.53, 1: 0.49, 2: 0.52})
    assert pair_runs(one, other)["test"]["p"] == pytest.approx(4 / 8)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write(tmp_path / "one", {0: 0.5}), write(tmp_path / "other", {0: 0.6})
    words = ["compare", str(one), str(other)]
    assert main([*words, "--picture", str(tmp_path / "new" / "a.png")]) == 0
    assert "of one pair nothing can be said" in capsys.readouterr().out
    assert Image.open(tmp_path / "new" / "a.png").size[0] > 500
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["mean"] == pytest.approx(0.1)


def test_what_cannot_be_paired(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", {0: 0.5}), write(tmp_path / "other", {1: 0.6})
    with pytest.raises(DataError, match="no seed in common"):
        pair_runs(one, other)
    with pytest.raises(DataError, match="no such directory"):
        pair_runs(one, tmp_path / "other" / "seed-7")
    write(tmp_path / "both" / "one", {0: 0.5})
    write(tmp_path / "both" / "two", {0: 0.5})
    with pytest.raises(DataError, match="both: two runs of seed 0: give the directory"):
        pair_runs(one, tmp_path / "both")
    elsewhere = write(tmp_path / "elsewhere", {0: 0.5}, data="cifar10")
    with pytest.raises(DataError, match=r"different data \(data.name\): not paired"):
        pair_runs(one, elsewhere)
    plot_pairs(one, other, ("one", "other"), tmp_path / "a.png")


def test_other_augmentation_or_another_place_of_the_same_data_is_paired(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", {0: 0.5}), write(tmp_path / "other", {0: 0.6})

    def change(folder: Path, **data: Any) -> None:
        file = folder / "seed-0" / "summary.json"
        summary = json.loads(file.read_text())
        summary["experiment"]["data"] |= data
        file.write_text(json.dumps(summary))

    change(one, root="/here", augmentation={"flip": True}, split_seed=0)
    change(other, root="/there", augmentation={"flip": False}, split_seed=0)
    record = pair_runs(one, other)
    assert record["differ"] == ["data.augmentation.flip"]
    assert record["names"] == ["flip True", "flip False"]
    change(other, split_seed=1)
    with pytest.raises(DataError, match=r"\(data.split_seed\)"):
        pair_runs(one, other)
    for folder in (one, other):
        change(folder, name="folder", split_seed=0)
    with pytest.raises(DataError, match=r"\(data.root\)"):
        pair_runs(one, other)


def test_a_setting_that_an_older_run_had_not_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write(tmp_path / "one", {0: 0.5}), write(tmp_path / "other", {0: 0.6})
    file = other / "seed-0" / "summary.json"
    summary = json.loads(file.read_text())
    summary["experiment"]["model"] |= {"norm": "mpbn", "rate": 0.1}
    file.write_text(json.dumps(summary))
    assert main(["compare", str(one), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differ"] == ["model.norm", "model.rate"]


def test_runs_that_are_left_out_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (write(tmp_path / name, {0: 0.5, 1: 0.6, 2: 0.7}) for name in ("one", "other"))
    summary = json.loads((other / "seed-2" / "summary.json").read_text())
    experiment = summary["experiment"]
    experiment["optimizer"]["epochs"] += 1
    (other / "seed-2" / "config.json").write_text(json.dumps(experiment))
    assert main(["compare", str(one), str(other)]) == 0
    out, err = capsys.readouterr()
    assert "over 2 pairs" in out
    assert f"note: {other / 'seed-2'} has no results yet, and is left out" in err
