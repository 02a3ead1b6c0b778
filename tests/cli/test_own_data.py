"""Recordings of one's own through the command line, as a user would."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from spikefold.cli import main
from tests.data.formats import dat


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def fill(place: Path, count: int) -> None:
    """Two classes on a sensor of 60x40: events on its left and on its right."""
    rng = np.random.default_rng(0)
    for name, first in (("left", 0), ("right", 30)):
        (place / name).mkdir(parents=True)
        for n in range(count):
            x, y = first + rng.integers(0, 30, 200), rng.integers(0, 40, 200)
            rows = list(zip(x.tolist(), y.tolist(), range(200), (x % 2).tolist(), strict=True))
            (place / name / f"{n}.dat").write_bytes(dat(rows, b"% Height 40\n% Width 60\n"))


def words(root: Path, out: Path, *more: str) -> list[str]:
    settings = {
        "data.name": "recordings", "data.root": str(root), "data.size": "16", "model.steps": "1",
        "model.width": "0.125", "optimizer.epochs": "4", "optimizer.batch-size": "10",
    }  # fmt: skip
    options = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return ["run", "nmnist", *options, "--out", str(out), *more]


def test_from_training_to_evaluation_without_the_training_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "mine" / "train", 20)
    fill(tmp_path / "mine" / "test", 5)
    assert (
        main([*words(tmp_path / "mine", tmp_path / "run", "--data.validation", "0"), "--json"]) == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert summary["samples"] == {"train": 40, "validation": 0, "test": 10}
    assert summary["validation"] is None
    assert summary["fold"]["mismatches"] == 0
    assert summary["test"]["trained"]["accuracy"] == 1
    shutil.rmtree(tmp_path / "mine" / "train")
    command = ["evaluate", str(tmp_path / "run" / "folded.safetensors"), "--data", "recordings"]
    assert main([*command, "--root", str(tmp_path / "mine"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] == 10
    assert main([*command, "--root", str(tmp_path / "mine"), "--split", "train"]) == 1
    assert "no train/ with a folder per class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.validation", "0.01"], "0.01 of the 20 training samples of class 'left'"),
        (["--data.sensor", "32", "32"], "lies outside the 32x32 sensor"),
        (["--data.train-fraction", "0.01"], "train_fraction 0.01 of 36 training samples: none"),
    ],
)
def test_mistakes_are_one_line_before_training(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "mine" / "train", 20)
    fill(tmp_path / "mine" / "test", 5)
    assert main(words(tmp_path / "mine", tmp_path / "run", *more)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("spikefold: ")
    assert message in last
    assert not (tmp_path / "run").exists()
