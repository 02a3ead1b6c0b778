"""Imported rows of layers beside snnTorch itself, which `make interop` installs."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import AdoptError
from tests.adopt import standins
from tests.adopt.test_snntorch import stepped

pytestmark = pytest.mark.interop
snntorch = pytest.importorskip("snntorch", reason="snnTorch is not here: make interop")
surrogate = pytest.importorskip("snntorch.surrogate")

RESETS = [("zero", False), ("zero", True), ("subtract", False)]


def run(network: nn.Module, x: Tensor) -> Tensor:
    for module in network.modules():
        if isinstance(module, snntorch.Leaky):
            module.reset_mem()
    return stepped(network, x)


@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("beta", [0.9, 0.37, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_rows_with_reset_to_zero(steps: int, beta: float, delay: bool) -> None:
    def leaky(**options: Any) -> nn.Module:
        constants = {"threshold": 0.7, "reset_mechanism": "zero", "reset_delay": delay}
        return snntorch.Leaky(beta=beta, init_hidden=True, **constants, **options)

    network = nn.Sequential(
        *(nn.Conv2d(3, 5, 3), leaky(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(90, 11), leaky(output=True, learn_beta=True, learn_threshold=True)),
    )
    for index in (0, 4):
        network[index].weight.data *= 3
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        made = sf.from_snntorch(network)
        x = torch.randn(steps, 6, 3, 15, 9)
        expected = run(network, x)
        assert torch.equal(made(x), expected)
        assert 0.02 < expected.mean() < 0.9


@pytest.mark.parametrize(("mechanism", "delay"), RESETS)
def test_the_stand_in_is_theirs_and_gradients_agree(mechanism: str, delay: bool) -> None:
    constants: dict[str, Any] = {"reset_mechanism": mechanism, "reset_delay": delay}
    x = torch.randn(6, 500, 3)
    theirs = snntorch.Leaky(beta=0.8, threshold=0.6, init_hidden=True, **constants)
    assert torch.equal(run(theirs, x), stepped(standins.Leaky(0.8, 0.6, **constants), x))
    for function, ours in (
        (surrogate.atan(1.5), sf.Atan(1.5)),
        (surrogate.sigmoid(5), sf.Sigmoid(5.0)),
    ):
        leaky = snntorch.Leaky(
            beta=0.8, threshold=3.0, init_hidden=True, spike_grad=function, **constants
        ).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = sf.from_snntorch(leaky)
        assert made.constants.surrogate == ours
        x = (2 * torch.randn(6, 40, 3, dtype=torch.float64)).clamp(max=3.5).requires_grad_()
        weight = torch.randn(6, 40, 3, dtype=torch.float64)
        spikes = run(leaky, x)
        assert torch.equal(spikes.double(), made(x))
        assert spikes.sum() > 20
        expected, *_ = torch.autograd.grad((spikes * weight).sum(), x)
        found, *_ = torch.autograd.grad((made(x) * weight).sum(), x)
        # their spikes are float32, and so are gradients on their way
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_soft_reset_is_theirs_only_below_twice_the_threshold(record_property: Any) -> None:
    leaky = snntorch.Leaky(beta=0.9, threshold=1.0, init_hidden=True, reset_delay=False)
    with pytest.warns(UserWarning, match="decisions on random currents differ"):
        made = sf.from_snntorch(leaky)
    small = torch.rand(8, 1000, 3) * 0.9  # 0.9 + 0.9 < 2
    assert torch.equal(run(leaky, small), made(small))
    large = torch.randn(8, 1000, 3)
    differ = int((run(leaky, large) != made(large)).sum())
    record_property("differ", f"{differ} of {large.numel()}")
    assert 0 < differ < 0.1 * large.numel()


def test_other_neurons_and_resets_are_refused() -> None:
    for module in (
        *(snntorch.Synaptic(alpha=0.9, beta=0.8), snntorch.Lapicque(beta=0.5)),
        *(snntorch.RLeaky(beta=0.5, linear_features=3), snntorch.Leaky(beta=0.9)),
    ):
        with pytest.raises(AdoptError, match=f"'0' .{type(module).__name__}.: "):
            sf.from_snntorch(nn.Sequential(module))


class Tutorial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(20, 30)
        self.lif1 = snntorch.Leaky(beta=0.95, reset_mechanism="zero")
        self.fc2 = nn.Linear(30, 10)
        self.lif2 = snntorch.Leaky(beta=0.95, reset_mechanism="zero")

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for x_t in x:
            spk1, mem1 = self.lif1(self.fc1(x_t), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


def test_a_loop_is_refused_and_its_layers_in_a_row_are_not() -> None:
    network, x = Tutorial(), 3 * torch.randn(8, 12, 20)
    network.fc2.weight.data *= 4
    with pytest.raises(AdoptError, match=r"nn.Sequential\(net.fc1, net.lif1, ...\)"):
        sf.from_snntorch(network)
    row = nn.Sequential(network.fc1, network.lif1, network.fc2, network.lif2)
    made = sf.from_snntorch(row)
    spikes = network(x)
    assert torch.equal(made(x), spikes)
    assert 0.02 < spikes.mean() < 0.9
