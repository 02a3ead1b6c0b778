"""Networks run by another runtime, in Python and on the command line."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import spikefold as sf
from spikefold.cli import main
from spikefold.errors import ExportError, ShapeError
from spikefold.export import RUNTIMES
from spikefold.export._runtimes import Arrays, Call
from tests.export.running import onnx, trained


def folded() -> Any:
    made = sf.models.small(in_channels=1, steps=3, image_size=8, width=0.2)
    return sf.fold(trained(made, torch.rand(8, 1, 8, 8)))


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_the_same_logits_for_any_batch(runtime: str) -> None:
    network = folded()
    fast = sf.deploy(network, torch.rand(3, 1, 8, 8), runtime)
    for batch in (1, 4):
        x = torch.rand(batch, 1, 8, 8)
        torch.testing.assert_close(fast(x), network(x).detach(), atol=1e-6, rtol=0)
    assert (fast.runtime, fast.record.samples, fast.record.passed) == (runtime, 3, True)
    assert fast.record.runtime == runtime
    with pytest.raises(ShapeError, match="made for 3 time steps, got steps=4"):
        fast(torch.rand(1, 1, 8, 8), steps=4)
    fused = sf.deploy(network, torch.rand(3, 1, 8, 8), fuse=True, steps=5)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(fused(x), network(x, steps=5).detach(), atol=1e-5, rtol=0)


def deaf(model: bytes) -> Call:
    """A runtime in which nothing fires."""
    parsed = onnx.load_from_string(model)
    for constant in parsed.graph.initializer:
        if ".theta" in constant.name:
            array = np.full(onnx.numpy_helper.to_array(constant).shape, np.inf, np.float32)
            constant.CopyFrom(onnx.numpy_helper.from_array(array, constant.name))
    call = RUNTIMES["onnxruntime"](parsed.SerializeToString())

    def run(feed: Arrays) -> Arrays:
        return call(feed)

    return run


def test_a_runtime_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(RUNTIMES, "deaf", deaf)
    with pytest.raises(ExportError, match="deaf computes something else than the network: FAILED"):
        sf.deploy(folded(), torch.rand(3, 1, 8, 8), "deaf")


def test_evaluate_and_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = folded()
    network.input_spec = sf.InputSpec(1, sf.data.Framing(size=8, margin=1.0))
    file = str(tmp_path / "network.safetensors")
    sf.save(network, file)
    records = []
    for options in ([], ["--runtime", "onnxruntime"]):
        assert main(["evaluate", file, "--data", "digits", "--json", *options]) == 0
        records.append(json.loads(capsys.readouterr().out))
    plain, fast = records
    assert fast["correct"] == plain["correct"]
    assert fast["loss"] == pytest.approx(plain["loss"], abs=1e-5)
    assert fast["runtime"] == "onnxruntime"
    assert fast["checked"]["samples"] == 32
    assert "runtime" not in plain
    picture = str(tmp_path / "seven.png")
    Image.new("L", (8, 8), 90).save(picture)
    assert main(["predict", file, picture, "--json", "--runtime", "reference"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert main(["predict", file, picture, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert seen["label"] == expected["label"]
    assert seen["runtime"] == "reference"
    assert seen["spikes"] == {}


def test_a_runtime_that_cannot_be_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    file = str(tmp_path / "network.safetensors")
    sf.save(folded(), file)
    wrong = {
        "tflite": "unknown runtime 'tflite'",
        "openvino": "the runtime needs openvino: pip install 'spikefold[openvino]'",
        "onnxruntime --device meta": "--runtime onnxruntime runs on the CPU: leave out --device",
    }
    data = ["--data", "cifar10", "--root", str(tmp_path / "nowhere")]
    for words in (["evaluate", file, *data], ["predict", file, str(tmp_path / "nothing.png")]):
        for runtime, told in wrong.items():
            assert main([*words, "--runtime", *runtime.split()]) == 1
            assert told in capsys.readouterr().err
