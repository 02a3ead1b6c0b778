"""`spikefold cost`, and the cost in every run's summary."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import spikefold as sf
from spikefold.cli import main
from spikefold.data import TensorSamples, load_dataset
from spikefold.errors import DataError, GraphError
from spikefold.models import Options
from spikefold.recipes import _run, find_recipe, run
from spikefold.reports import removed, run_table
from spikefold.training import Experiment
from tests.recipes.test_run import trained

REMOVED = "norms that fold and fusion removed"
LINE = "operations and energy at 45 nm, a sample, mean of 128"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of digits, folded and fused."""
    torch.manual_seed(0)
    network = sf.models.small(in_channels=1, image_size=8, width=0.25, steps=2)
    for _ in range(8):
        network(torch.rand(32, 1, 8, 8))
    path = tmp_path_factory.mktemp("cost") / "network.safetensors"
    sf.save(sf.fuse_conv_bn(sf.fold(network)), path)
    return path


def test_json_is_the_record(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cost", str(file), "--data", "digits", "--json", "--samples", "100"]
    assert main([*words, "--batch-size", "48"]) == 0
    told = json.loads(capsys.readouterr().out)
    test = load_dataset("digits").test
    chosen = torch.arange(100) * len(test) // 100
    expected = sf.cost(sf.load(file), [test.read(chosen)]).to_dict()
    assert told == expected | {"file": str(file), "data": "digits", "split": "test"}
    assert told["samples"] == 100
    assert main([*words[:-1], "100000", "--split", "validation"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 143  # all there are


def test_the_table_has_a_row_a_layer(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.rand(1, 1, 8, 8)
    assert main(["cost", str(file), "--data", "digits", "--samples", "9"]) == 0
    out, err = capsys.readouterr()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    rows = {row[0]: row[1:] for row in cells if row}
    names = ["layer", "features.0", "features.1", "features.3", "features.5", "classifier", "all"]
    assert list(rows) == names
    assert rows["features.0"][:4] == ["values of the input", "", f"{22 * 22 * 8:,}", "0"]
    assert rows["features.3"][0] == "values of 'features.2.0' (AvgPool2d)"
    assert rows["features.1"][0] == "spikes of 'features.0.lif' (FoldedLIF)"
    assert "mean of 9) in 2 time steps" in out
    assert "of an ANN of its shape)" in out
    assert "norms left:" not in out
    assert f"fold and fusion removed: {removed(sf.cost(sf.load(file), [x]).to_dict())}\n" in out
    assert "cost 1/1" in err


def test_refused_in_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = tmp_path / "three.safetensors"
    sf.save(sf.models.small(steps=2, width=0.25), three)
    experiment = Experiment()
    data = dataclasses.replace(experiment.data, name="digits", validation=0.0)
    dataclasses.replace(experiment, data=data).save(tmp_path / "config.json")
    (tmp_path / "folded.safetensors").write_bytes(file.read_bytes())
    cases = [
        ([str(file)], "--data names the data set"),
        ([str(tmp_path / "none"), "--data", "digits"], "no such file"),
        ([str(three), "--data", "digits"], "takes images of 3"),
        ([str(file), "--data", "mnist"], "unknown data set"),
        ([str(tmp_path), "--split", "validation"], "no samples in this split"),
    ]
    for words, message in cases:
        assert main(["cost", *words]) == 1
        out, err = capsys.readouterr()
        assert message in err
        assert (out, err.count("\n")) == ("", 1)
    assert main(["cost", str(file), "--data", "digits", "--samples", "0"]) == 2
    assert "samples must lie in [1, 1e12], got 0" in capsys.readouterr().err


def test_samples_are_spread_over_all() -> None:
    samples = TensorSamples(torch.arange(10.0).view(10, 1, 1, 1), torch.arange(10))
    assert samples.spread(4).labels.tolist() == [0, 2, 5, 7]
    assert samples.spread(99).labels.tolist() == list(range(10))
    with pytest.raises(DataError, match="no samples in this split"):
        samples.subset(torch.arange(0)).spread(4)


@pytest.mark.parametrize("norm", ["mpbn", "none"])
def test_a_run_records_the_cost_of_what_ships(
    norm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "train", trained)
    monkeypatch.setattr(_run, "ROUNDS", 2)
    recipe = find_recipe("digits").experiment
    model = dataclasses.replace(recipe.model, options=Options(norm, width=0.1, steps=2))
    experiment = dataclasses.replace(recipe, model=model)
    summary = run("digits", experiment, tmp_path / "run")
    read = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert read["cost"] == summary["cost"]
    cost = summary["cost"]
    assert (cost["samples"], cost["steps"], cost["norm_operations"]) == (128, 2, 0)
    assert (cost["threshold_bytes"] > 0) is (norm == "mpbn")
    rows = dict(run_table(summary))
    line = rows[LINE]
    assert line.startswith(f"{cost['macs']:,.0f} MACs and {cost['acs']:,.0f} ACs, ")
    del summary["cost"]
    assert set(rows) - set(dict(run_table(summary))) == {LINE, REMOVED}
    assert rows[REMOVED].startswith("MPBN of" if norm == "mpbn" else "BatchNorm2d of 4 layers (")

    def refuse(*_: Any, **__: Any) -> None:
        raise GraphError("a loop")

    monkeypatch.setattr(_run, "cost", refuse)
    summary = run("digits", experiment, tmp_path / "other")
    assert dict(run_table(summary))["cost"] == summary["cost"]["not_counted"] == "a loop"
