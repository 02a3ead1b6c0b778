"""The whole job, on the device that trained."""

import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from spikefold.data import Dataset
from spikefold.errors import FoldError, GraphError
from spikefold.models import Network, Options
from spikefold.recipes import _run, find_recipe, run
from spikefold.records import METRICS
from spikefold.reports import run_table
from spikefold.training import Experiment, HardwareConfig, device_of

GPU = torch.device("cuda", 7)


def small(accelerator: str, **options: Any) -> Experiment:
    experiment = find_recipe("digits").experiment
    chosen = Options(width=0.1, steps=1, **options)
    return dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, options=chosen),
        optimizer=dataclasses.replace(experiment.optimizer, epochs=1, batch_size=256),
        hardware=HardwareConfig(accelerator=accelerator),  # type: ignore[arg-type]
    )


def trained(experiment: Experiment, dataset: Dataset, directory: Path, **_: Any) -> Network:
    """What training leaves."""
    directory.mkdir(exist_ok=True)
    record = {"epoch": 1, "seconds": 1.0}
    (directory / METRICS).write_text(json.dumps(record) + "\n")
    return experiment.build(dataset).eval()


def test_after_training_the_rest_is_done_on_the_same_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no GPU here: that the network is sent there, before anything is done with it."""
    done: list[Any] = []

    def asked(hardware: HardwareConfig) -> torch.device:
        assert hardware.accelerator == "cuda"
        return GPU

    def sent(network: Network, to: Any) -> Network:
        done.append(to)
        return network

    monkeypatch.setattr(_run, "device_of", asked)
    monkeypatch.setattr(_run, "train", trained)
    monkeypatch.setattr(Network, "to", sent)
    monkeypatch.setattr(_run, "hardware", lambda device: {"device": str(device)})
    for name in ("potentials", "evaluate", "fold", "fuse_conv_bn", "verify", "time_in_turns"):
        function = getattr(_run, name)

        def noted(*args: Any, name: str = name, function: Any = function, **kwargs: Any) -> Any:
            done.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(_run, name, noted)
    summary = run("digits", small("cuda"), tmp_path / "run")
    assert done[:2] == [GPU, "potentials"]
    assert set(done[2:-2]) == {"evaluate", "fold", "fuse_conv_bn", "verify"}
    weight, timed = done[-2:]  # the network without MPBN goes where the trained one is
    assert isinstance(weight, torch.Tensor)
    assert timed == "time_in_turns"
    assert summary["hardware"] == {"device": "cuda:7"}


def test_where_training_is_done() -> None:
    assert device_of(HardwareConfig()) == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_of(HardwareConfig(accelerator="auto")).type != "cuda"


@pytest.mark.parametrize(
    ("options", "is_fused"),
    [
        ({"rate": 0.2}, True),
        ({"current_norm": "tdbn"}, True),
        ({"current_norm": "tab", "norm": "mpbn-steps", "rate": 0.3}, True),
        ({"current_norm": "none"}, False),
        ({"current_norm": "bntt", "norm": "none"}, True),
    ],
)
def test_the_whole_job_for_any_norms(
    tmp_path: Path, options: dict[str, Any], is_fused: bool
) -> None:
    summary = run("digits", small("cpu", **options), tmp_path / "run")
    assert summary["cost"]["samples"] > 0
    assert ("fuse" in summary) is is_fused
    assert (tmp_path / "run" / "fused.safetensors").exists() is is_fused
    assert any(name.endswith("fused") for name, _ in run_table(summary)) is is_fused
    assert (tmp_path / "run" / "verification.json").exists()
    folded = options.get("norm") != "none"
    assert (tmp_path / "run" / "folded.safetensors").exists() is folded
    if folded:
        assert summary["fold"]["mismatches"] == 0
        assert "MPBN" in summary["cost"]["removed"]
    if is_fused:
        rows = dict(run_table(summary))
        fuse = summary["fuse"]
        told = f"{fuse['mismatches']:,} of {fuse['spikes']:,} ({fuse['mismatch_rate']:.2g})"
        assert rows["fused: decisions that differ"] == told


def test_a_network_that_cannot_be_followed_loses_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of a user's may have a batch norm where nobody can follow."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise FoldError("forward depends on values")

    monkeypatch.setattr(_run, "is_fusable", refuse)
    monkeypatch.setattr(_run, "cost", Mock(side_effect=GraphError("a loop")))
    for norm in ("none", "mpbn"):
        summary = run("digits", small("cpu", norm=norm), tmp_path / norm)
        assert summary["not_fused"] == "forward depends on values"
        assert summary["cost"] == {"not_counted": "a loop"}
        assert dict(run_table(summary))["not fused"] == "forward depends on values"
        assert (tmp_path / norm / "summary.json").exists()
        assert not (tmp_path / norm / "fused.safetensors").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_whole_job_on_a_gpu(tmp_path: Path) -> None:
    summary = run("digits", small("cuda"), tmp_path / "run")
    assert summary["hardware"]["gpu"]
    assert summary["timing"]["device"] == "cuda"
    assert summary["fold"]["mismatches"] == 0
    assert summary["fold"]["accuracy"][0] == summary["test"]["trained"]["accuracy"]
