"""Networks that left SpikingJelly, snnTorch and Norse as NIR graphs, beside these themselves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import AdoptError

pytestmark = pytest.mark.interop
pytest.importorskip("nirtorch", reason="nirtorch is not here: make interop")


def compared(graph: Any, source: Any, run: Callable[[Tensor], Tensor]) -> int:
    """How many spikes differ in 8 steps of 40 images; some fire and some do not."""
    x = torch.randn(8, 40, 1, 8, 8)
    with torch.no_grad():
        expected = run(x)
        found = sf.from_nir(graph, source=source)(x)
    assert found.shape == expected.shape
    assert 0.02 < expected.mean() < 0.9
    return int((found != expected).sum())


def louder(network: nn.Module, factor: float) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data *= factor
    return network


@pytest.mark.parametrize("beta", [0.9, 0.75, 0.5])
def test_from_snntorch(beta: float) -> None:
    snntorch = pytest.importorskip("snntorch")
    export = pytest.importorskip("snntorch.export_nir").export_to_nir

    def leaky(threshold: float, *shape: int, **options: Any) -> nn.Module:
        reset = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
        values = (torch.full(shape, value) for value in (beta, threshold))
        return snntorch.Leaky(*values, **reset, **options)

    network = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), leaky(1.0, 2, 6, 6), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(18, 3), leaky(0.5, 3, output=True)),
    )

    def run(x: Tensor) -> Tensor:
        for module in network.modules():
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()
        return torch.stack([network(step)[0] for step in x])

    graph = export(louder(network, 4), torch.randn(1, 1, 8, 8), ignore_dims=[0])
    assert compared(graph, "snntorch", run) == 0


def test_from_snntorch_a_recurrent_one_is_refused() -> None:
    snntorch = pytest.importorskip("snntorch")
    export = pytest.importorskip("snntorch.export_nir").export_to_nir
    recurrent = snntorch.RLeaky(beta=0.9, linear_features=5, init_hidden=True)
    graph = export(nn.Sequential(nn.Linear(8, 5), recurrent), torch.randn(1, 8), ignore_dims=[0])
    with pytest.raises(AdoptError, match=r"'1.lif' to .*'1.w_rec' to .* is a cycle: recurrent"):
        sf.from_nir(graph, source="snntorch")


def test_from_spikingjelly() -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    export = pytest.importorskip("spikingjelly.activation_based.nir_exchange").export_to_nir
    network = nn.Sequential(
        *(layer.Conv2d(1, 2, 3), neuron.LIFNode(tau=4 / 3, decay_input=False), layer.AvgPool2d(2)),
        *(neuron.IFNode(v_threshold=0.5), layer.Flatten(), layer.Linear(18, 3)),
        neuron.LIFNode(tau=2.0, v_threshold=0.5),
    )

    def run(x: Tensor) -> Tensor:
        functional.reset_net(network)
        return torch.stack([network(step) for step in x])

    # ties: the mean of spikes meets the threshold of 0.5 again and again
    graph = export(louder(network, 4), torch.randn(1, 1, 8, 8))
    assert compared(graph, "spikingjelly", run) == 0
    assert compared(graph, "nir", run) > 100


@pytest.mark.parametrize("batch", [(), (1,)])
def test_from_norse(batch: tuple[int, ...]) -> None:
    norse = pytest.importorskip("norse.torch")
    parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.7))
    network = norse.SequentialState(
        *(nn.Conv2d(1, 2, 3), norse.LIFBoxCell(), nn.Conv2d(2, 3, 3), norse.IAFCell()),
        *(nn.Conv2d(3, 4, 4), norse.LIFBoxCell(parameters)),
    )

    def run(x: Tensor) -> Tensor:
        state, spikes = None, []
        for step in x:
            y, state = network(step, state)
            spikes.append(y)
        return torch.stack(spikes)

    graph = norse.to_nir(louder(network, 10), torch.randn(*batch, 1, 8, 8))
    assert compared(graph, "norse", run) == 0
