"""MPBN with a set for each time step, made of one with a set for all."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.data import TensorSamples
from spikefold.errors import ConfigError
from spikefold.training import recalibrate

STEPS = 3


def frames() -> Tensor:
    """Recordings whose steps are nothing like each other."""
    x = torch.rand(STEPS, 32, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    return x * torch.tensor([0.2, 1.0, 5.0]).view(-1, 1, 1, 1, 1)


def trained(**options: Any) -> sf.models.Network:
    """A network that has seen the frames; its MPBN has gains of both signs."""
    torch.manual_seed(0)
    network = sf.models.small(in_channels=2, width=0.25, **({"steps": STEPS} | options))
    for module in network.modules():
        if isinstance(module, sf.MPBN):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, 0.3, 0.1)
    for _ in range(5):
        network(frames())
    return network.eval()


@pytest.mark.parametrize("current_norm", ["bn", "tebn", "tab"])
def test_it_computes_what_the_network_computes(current_norm: str, tmp_path: Path) -> None:
    network = trained(current_norm=current_norm)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    made = sf.per_step(network)
    assert torch.equal(made(frames()), network(frames()))
    assert made.arguments.norm == "mpbn-steps"
    assert made.features[0].lif.norm.weight.shape == (STEPS, 8)
    # the network is as it was, and shares nothing with what was made
    made.features[0].lif.norm.weight.data.zero_()
    assert network.arguments.norm == "mpbn"
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    sf.save(made, tmp_path / "made.safetensors")
    again = sf.load(tmp_path / "made.safetensors")
    assert torch.equal(again(frames()), made(frames()))


def test_recalibrated_it_evaluates_what_training_saw() -> None:
    """One set for all cannot: its mean is no step's, and it lacks what lies between the steps."""
    network = trained()
    samples = TensorSamples(frames().transpose(0, 1).contiguous(), torch.arange(32) % 10)
    seen = spikes(copy.deepcopy(network).train())
    one_set = recalibrate(network, samples, batch_size=32)
    sets = recalibrate(sf.per_step(network), samples, batch_size=32)
    # what differs is the unbiased variance, which is kept, by n / (n - 1)
    assert (spikes(sets) == seen).double().mean() > 0.995
    assert (spikes(one_set) == seen).double().mean() < 0.9
    # a threshold for each step, by hand: u where gain (u - mean) / deviation + shift = threshold
    folded, norm = sf.fold(sets).features[0].lif, sets.features[0].lif.norm
    deviation = (norm.running_var.double() + norm.eps).sqrt()
    by_hand = norm.running_mean + deviation * (0.5 - norm.bias) / norm.weight
    torch.testing.assert_close(folded.theta.double(), by_hand.detach(), rtol=1e-5, atol=1e-5)
    assert sf.verify(sets, sf.fold(sets), [frames()]).mismatches == 0


def spikes(network: nn.Module) -> Tensor:
    """Of all layers of neurons, in the mode in which the network is."""
    with torch.no_grad():
        _, fired = sf.with_spikes(network)(frames())
    return torch.cat([layer.flatten() for layer in fired.values()])


def test_of_a_network_of_ones_own_only_neurons_get_sets() -> None:
    shared = sf.MPBN(2)
    network = nn.Sequential(sf.LIF(shared), sf.LIF(shared), sf.OverTime(sf.MPBN(2)))
    made = sf.per_step(network, 4)
    assert made[0].norm.steps == 4
    assert made[0].norm is made[1].norm
    assert made[2][0].steps is None
    x = torch.randn(4, 3, 2)
    assert torch.equal(made.eval()(x), network.eval()(x))


class Subclass(sf.MPBN):
    """Whose steps nobody knows."""


def hooked() -> sf.MPBN:
    """With something that a new one would not have."""
    norm = sf.MPBN(2)
    norm.register_forward_hook(lambda module, args, output: output)
    return norm


@pytest.mark.parametrize(
    ("network", "steps", "message"),
    [
        (lambda: sf.models.small(norm="none", steps=2), None, "has no MPBN with one set"),
        (lambda: sf.models.small(norm="mpbn-steps", steps=2), None, "has no MPBN with one set"),
        (lambda: sf.fold(trained()), None, "has no MPBN with one set"),
        (lambda: sf.models.small(norm="mpbn-element", steps=2), None, "only mpbn has a set"),
        (lambda: sf.models.small(steps=2), 3, "the network has 2 steps, not 3"),
        (lambda: sf.models.small(), None, "give steps"),
        (lambda: sf.LIF(sf.MPBN(2)), None, "give steps"),
        (lambda: sf.LIF(sf.MPBN(2)), 0, "steps must lie in"),
        (lambda: sf.models.small(), 0, "steps must lie in"),
        (lambda: nn.Sequential(sf.LIF(Subclass(2))), 2, "layer '0.norm' is a Subclass"),
        (lambda: nn.Sequential(sf.LIF(hooked())), 2, "layer '0.norm': it carries hooks"),
    ],
)
def test_it_refuses_what_cannot_have_them(
    network: Callable[[], nn.Module], steps: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.per_step(network(), steps)
