"""Exported networks in SpikingJelly, snnTorch and Norse, which `make interop` installs.

The faults of importers for which the export refuses or works around something are pinned here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.dynamics import Condition, Neuron
from spikefold.export import NIR_RUNTIMES
from spikefold.nn import observing
from tests.export.test_nir import drawn, ready

pytestmark = pytest.mark.interop
pytest.importorskip("nirtorch", reason="nirtorch is not here: make interop")
nir = pytest.importorskip("nir")

LIBRARIES = ["norse", "snntorch", "spikingjelly"]


def differ(network: nn.Module, library: Any, frames: Tensor, tmp_path: Path) -> tuple[int, int]:
    """Spikes that differ in the library, and spikes compared; all explained by rounding."""
    pytest.importorskip(library)
    sf.to_nir(network, tmp_path / "net.nir", target=library, example=frames)
    record = sf.check(network, tmp_path / "net.nir", [frames])
    assert record.passed
    assert record.runtime == library
    spikes: list[Tensor] = []
    with torch.no_grad(), observing(network, lambda _, call: spikes.append(call.fired.spikes)):
        expected = network(frames)
    assert 0.02 < torch.cat([s.flatten() for s in spikes]).mean() < 0.95
    if not record.file.differ:
        output, _ = NIR_RUNTIMES[library](tmp_path / "net.nir", frames, [])
        output = output.mean(0).flatten(1)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    return record.file.differ, record.file.decisions


class Plain(nn.Module):
    """Two layers of neurons and a readout."""

    def __init__(self, *lifs: nn.Module) -> None:
        super().__init__()
        self.first = sf.SpikingLayer(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), lifs[0])
        self.pool = sf.OverTime(nn.AvgPool2d(2))
        self.second = sf.SpikingLayer(nn.Conv2d(6, 6, 3), nn.Identity(), lifs[1])
        self.readout = nn.Linear(6, 4)
        for connection in (self.first.connection, self.second.connection):
            connection.weight.data *= 3

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.pool(self.first(x)))
        return self.readout(x.mean((-2, -1))).mean(0)


def neurons(library: str, decay: Tensor, values: list[float]) -> nn.Module:
    sign = drawn([1.0, -1.0], "channel", (6,))
    theta = drawn(values, "channel", (6,))
    theta = theta * sign if library == "snntorch" else theta
    return sf.FoldedLIF(Condition(None, theta[None], sign[None]), Neuron(), decay)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("decay", [0.25, 1 / 3, 0.9, 1.0, "channel"])
def test_thresholds_and_decays(
    library: str, decay: Any, tmp_path: Path, record_property: Any
) -> None:
    if decay == "channel":
        if library == "spikingjelly":
            pytest.skip("it takes one decay a layer")
        kept = torch.rand(6)
    else:
        kept = torch.tensor(decay)
    values = [0.4, 0.7, 0.2, 0.0, torch.inf, -torch.inf]
    if library != "snntorch":
        values += [-0.3]
    network = Plain(*(neurons(library, kept, values) for _ in range(2))).eval()
    flips, compared = differ(network, library, torch.randn(6, 20, 2, 10, 10), tmp_path)
    record_property("differ", f"{flips} of {compared}")
    assert flips <= 1e-4 * compared


@pytest.mark.parametrize("library", LIBRARIES)
def test_constant_neurons(library: str, tmp_path: Path) -> None:
    network = Plain(sf.LIF(decay=0.5), sf.IF(threshold=0.7)).eval()
    flips, compared = differ(network, library, torch.randn(6, 20, 2, 10, 10), tmp_path)
    assert flips <= 1e-4 * compared


@pytest.mark.parametrize(
    ("library", "name", "norm"),
    [
        ("spikingjelly", "resnet20", "mpbn"),
        ("spikingjelly", "small", "mpbn"),
        ("snntorch", "resnet20", "none"),
        ("norse", "small", "mpbn"),
        ("norse", "vgg16", "none"),
    ],
)
def test_models(library: str, name: str, norm: Any, tmp_path: Path, record_property: Any) -> None:
    size = 32 if name == "vgg16" else 16
    x = torch.rand(8, 3, size, size)
    network = sf.models.MODELS[name](num_classes=5, width=0.2, steps=3, norm=norm)
    if norm == "mpbn":
        network = ready(network, x)
    else:
        network.train()(x)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.data += 0.3
        network.eval()
    flips, compared = differ(network, library, x.expand(3, *x.shape), tmp_path)
    record_property("differ", f"{flips} of {compared}")
    assert flips <= 1e-3 * compared  # a tie cascades


def graph(edges: list[tuple[str, str]], **nodes: Any) -> Any:
    ends = {"input": nir.Input(np.array([1])), "output": nir.Output(np.array([1]))}
    return nir.NIRGraph(ends | nodes, edges)


def affine(weight: float) -> Any:
    return nir.Affine(np.full((1, 1), weight, np.float32), np.zeros(1, np.float32))


def test_norse_does_not_add_what_meets_in_a_node(tmp_path: Path) -> None:
    """Norse 1.1.0: a(x) = x and b(x) = 10 x into c: the spikes must not go to it so."""
    pytest.importorskip("norse")
    edges = [("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("c", "output")]
    nir.write(tmp_path / "net.nir", graph(edges, a=affine(1), b=affine(10), c=affine(1)))
    x = torch.tensor([1.0, 2.0]).view(1, 2, 1)
    y, _ = NIR_RUNTIMES["norse"](tmp_path / "net.nir", x, [])
    assert y.flatten().tolist() != [11.0, 22.0]


def test_snntorch_resets_before_a_threshold_below_zero(tmp_path: Path) -> None:
    """SnnTorch 1.0.0: threshold -1, currents -3 and 0: u = -3, -0.75 fires."""
    pytest.importorskip("snntorch")
    one = np.ones(1)
    lif = nir.LIF(one * 1e-4 / 0.75, one / 0.75, 0 * one, -one)
    nir.write(tmp_path / "net.nir", graph([("input", "a"), ("a", "output")], a=lif))
    x = torch.tensor([-3.0, 0.0]).view(2, 1, 1)
    assert sf.from_nir(tmp_path / "net.nir")(x).flatten().tolist() == [0, 1]
    _, found = NIR_RUNTIMES["snntorch"](tmp_path / "net.nir", x, ["a"])
    assert found["a"].flatten().tolist() == [0, 0]
