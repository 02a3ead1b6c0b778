"""Programs of torch.export: they load and run in a process that cannot import spikefold."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ExportError
from tests.export.running import trained

RUN = """
import sys
sys.modules["spikefold"] = None  # so that importing it fails
import numpy as np, torch
program = torch.export.load(sys.argv[1])
called = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
assert all(name.startswith(("aten.", "<built-in", "sym_")) for name in called), called
inputs = [torch.from_numpy(x) for x in np.load(sys.argv[2]).values()]
names = sys.argv[4:]
if names:
    inputs = [inputs[0], dict(zip(names, inputs[1:]))]
result = program.module()(*inputs)
flat = [result] if isinstance(result, torch.Tensor) else [result[0], *(result[1][n] for n in names)]
np.savez(sys.argv[3], *(x.detach().numpy() for x in flat))
"""


def elsewhere(path: Path, folder: Path, x: Tensor, v: dict[str, Tensor] | None = None) -> list:
    """Results of a program in a process of its own."""
    v = v or {}
    np.savez(folder / "in.npz", x.numpy(), *(value.numpy() for value in v.values()))
    words = [str(path), str(folder / "in.npz"), str(folder / "out.npz"), *v]
    subprocess.run([sys.executable, "-c", RUN, *words], check=True)
    return list(np.load(folder / "out.npz").values())


def network(norm: str = "mpbn", channels: int = 1) -> nn.Module:
    x = torch.rand(4, 1, 8, 8) if channels == 1 else torch.rand(3, 4, channels, 8, 8)
    made = sf.models.small(in_channels=channels, steps=3, image_size=8, width=0.2, norm=norm)
    return sf.fold(trained(made, x, x))


def test_images_and_frames_of_any_batch(tmp_path: Path) -> None:
    for folded, x in (
        (network(), torch.rand(1, 1, 8, 8)),
        (network("mpbn-steps", 2), torch.rand(3, 5, 2, 8, 8)),
    ):
        sf.to_torch(folded, tmp_path / "network.pt2", example=x)
        (logits,) = elsewhere(tmp_path / "network.pt2", tmp_path, x)
        np.testing.assert_allclose(logits, folded(x).detach().numpy(), atol=1e-6)


def test_steps_with_their_potentials(tmp_path: Path) -> None:
    folded, x = network(), torch.rand(2, 3, 1, 8, 8)
    sf.to_torch(folded, tmp_path / "step.pt2", layout="step", source=None)
    _, state = folded.step(x[0])
    v = {name: torch.zeros_like(one.v) for name, one in state.items()}
    logits, *after = elsewhere(tmp_path / "step.pt2", tmp_path, x[0], v)
    for name, value in zip(v, after, strict=True):
        np.testing.assert_array_equal(value, state[name].v.detach().numpy())
    v = dict(zip(v, map(torch.from_numpy, after), strict=True))
    logits, *after = elsewhere(tmp_path / "step.pt2", tmp_path, x[1], v)
    expected, state = folded.step(x[1], state)
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(after[-1], [*state.values()][-1].v.detach().numpy())


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
    with pytest.raises(ExportError, match="Own has no step"):
        sf.to_torch(Own(), path, layout="step", example=torch.rand(2, 1, 3))
    with pytest.raises(ExportError, match=r"'features.0.lif' .* not folded"):
        sf.to_torch(sf.models.small(in_channels=1, steps=3), path)
    assert not path.exists()
