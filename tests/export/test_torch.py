"""Programs of torch.export: they load and run in a process that cannot import spikefold."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ExportError
from tests.export.running import trained

RUN = """
import sys
sys.modules["spikefold"] = None  # so that importing it fails
import torch

def run(program, *inputs):
    called = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    known = ("aten.", "<built-in", "sym_")
    assert called and all(name.startswith(known) for name in called), called
    return program.module()(*inputs)

inputs = torch.load("inputs.pt", weights_only=True)
results = {}
for name in ("image", "frames"):
    results[name] = run(torch.export.load(f"{name}.pt2"), inputs[name])
step, v = torch.export.load("step.pt2"), inputs["rest"]
for t, frame in enumerate(inputs["step"]):
    results[f"step {t}"], v = run(step, frame, v)
torch.save({**results, **v}, "results.pt")
"""
IMAGE, FRAMES, STEPS = torch.rand(1, 1, 8, 8), torch.rand(3, 5, 2, 8, 8), torch.rand(2, 3, 1, 8, 8)


@functools.cache
def network(norm: str = "mpbn", channels: int = 1) -> Any:
    x = torch.rand(4, 1, 8, 8) if channels == 1 else torch.rand(3, 4, channels, 8, 8)
    made = sf.models.small(in_channels=channels, steps=3, image_size=8, width=0.2, norm=norm)
    return sf.fold(trained(made, x, x))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What programs give in a process that cannot import spikefold."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("programs")
    sf.to_torch(network(), folder / "image.pt2")
    sf.to_torch(network("mpbn-steps", 2), folder / "frames.pt2", example=FRAMES)
    sf.to_torch(network(), folder / "step.pt2", layout="step")
    _, state = network().step(STEPS[0])
    rest = {name: torch.zeros_like(one.v) for name, one in state.items()}
    inputs = {"image": IMAGE, "frames": FRAMES, "step": STEPS, "rest": rest}
    torch.save(inputs, folder / "inputs.pt")
    subprocess.run([sys.executable, "-c", RUN], check=True, cwd=folder)
    return torch.load(folder / "results.pt", weights_only=True)


@torch.no_grad()
def test_images_and_frames_of_any_batch(elsewhere: dict[str, Tensor]) -> None:
    torch.testing.assert_close(elsewhere["image"], network()(IMAGE), atol=1e-6, rtol=0)
    expected = network("mpbn-steps", 2)(FRAMES)
    torch.testing.assert_close(elsewhere["frames"], expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_steps_with_their_potentials(elsewhere: dict[str, Tensor]) -> None:
    state = None
    for t, frame in enumerate(STEPS):
        expected, state = network().step(frame, state)
        torch.testing.assert_close(elsewhere[f"step {t}"], expected, atol=1e-6, rtol=0)
    for name, one in state.items():
        assert torch.equal(elsewhere[name], one.v), name
        assert elsewhere[name].any()


def test_fused_and_described(tmp_path: Path) -> None:
    folded, path = network(), tmp_path / "network.pt2"
    sf.to_torch(folded, path, fuse=True)
    files = {"spikefold": ""}
    program = torch.export.load(path, extra_files=files)
    assert json.loads(files["spikefold"])["fused"] is True
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(program.module()(x), sf.fuse_conv_bn(folded)(x))
    assert not any("norm" in name for name in program.state_dict)


@pytest.mark.slow
def test_compiled_ahead_of_time(tmp_path: Path) -> None:
    layer = sf.SpikingLayer(nn.Linear(3, 4), nn.BatchNorm1d(4), sf.LIF()).eval()
    x = torch.rand(3, 2, 3)
    sf.to_torch(layer, tmp_path / "layer.pt2", compile=True, example=x)
    compiled = torch._inductor.aoti_load_package(str(tmp_path / "layer.pt2"))
    torch.testing.assert_close(compiled(x), layer(x))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = sf.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(x).mean(0)


def test_what_cannot_be_said(tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    with pytest.raises(ExportError, match="has the layouts merged and step, not 'scan'"):
        sf.to_torch(network(), path, layout="scan")
    with pytest.raises(ExportError, match=r"'features.0.lif' .*: thresholds of each time step"):
        sf.to_torch(network("mpbn-steps"), path, layout="step")
    bntt = sf.models.small(in_channels=1, steps=3, norm="none", current_norm="bntt").eval()
    with pytest.raises(ExportError, match=r"'features.0.norm' .*: parameters of each time step"):
        sf.to_torch(bntt, path, layout="step")
    with pytest.raises(ExportError, match="Own has no step"):
        sf.to_torch(Own(), path, layout="step", example=torch.rand(2, 1, 3))
    with pytest.raises(ExportError, match=r"'features.0.lif' .* not folded"):
        sf.to_torch(sf.models.small(in_channels=1, steps=3), path)
    assert not path.exists()


@torch.no_grad()
def test_a_residual_network_of_any_batch(tmp_path: Path) -> None:
    """Its pools made torch doubt whether any batch would do."""
    made = sf.fold(sf.models.resnet20(width=0.05, steps=2).eval())
    sf.to_torch(made, tmp_path / "a.pt2", fuse=True)
    program = torch.export.load(tmp_path / "a.pt2").module()
    for count in (1, 2, 5):
        x = torch.rand(count, 3, 32, 32)
        expected = sf.fuse_conv_bn(made)(x)
        torch.testing.assert_close(program(x), expected, atol=1e-6, rtol=0)
    assert sf.check(made, tmp_path / "a.pt2", [x]).passed
