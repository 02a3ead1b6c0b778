"""Prepared networks give what the network gives, to the bit, and notice other inputs."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikefold as sf
from spikefold.errors import ConfigError, ShapeError
from tests.nn.current_norms import NORMS


def trained(network: nn.Module, *shape: int) -> nn.Module:
    for module in network.modules():
        if hasattr(module, "momentum"):
            module.momentum = None  # the mean of all: such a network fires
    for _ in range(2):
        network(torch.rand(*shape) * 2)
    return network.eval()


def model(name: str, **options: Any) -> Any:
    options = {"width": 0.125, "in_channels": 2, "image_size": 16, "steps": 3} | options
    return trained(getattr(sf.models, name)(**options), 3, 4, 2, 16, 16)


def agrees(network: nn.Module, *inputs: Tensor) -> None:
    """Several calls, of which each leaves the results of those before alone."""
    ready = sf.prepare(network, torch.zeros_like(inputs[0]))
    with torch.no_grad():
        expected = [network(x) for x in inputs]
    found = [ready(x) for x in inputs]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.is_inference() is ours.requires_grad is False
    assert not torch.equal(found[0], found[1])


OPTIONS: dict[str, dict[str, Any]] = {
    "mpbn": {"name": "resnet20"},
    "steps": {"name": "small", "norm": "mpbn-steps", "learn_decay": "channel"},
    "element": {"name": "small", "norm": "mpbn-element", "standardize": True},
    "soft": {"name": "compact", "neuron": sf.Neuron(0.5, 0.75, "soft")},
    "plain": {"name": "small", "norm": "none", "learn_decay": "layer"},
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_models_give_the_same(options: dict[str, Any], fused: bool) -> None:
    network = model(**options)
    if fused:
        network = sf.fuse_conv_bn(sf.fold(network) if "norm" not in options else network)
    agrees(network, *torch.rand(3, 4, 2, 16, 16) * 2)
    agrees(network, *torch.rand(2, 3, 2, 2, 16, 16))  # frames


def test_channels_last_gives_the_same() -> None:
    network = sf.fold(model("resnet20")).to(memory_format=torch.channels_last)
    images = torch.rand(2, 4, 2, 16, 16)
    agrees(network, *images)
    agrees(network, *(x.contiguous(memory_format=torch.channels_last) for x in images))


class Mine(nn.Module):
    """Layers as attributes, functions, views, changes in place, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sf.SpikingLayer(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), sf.LIF(sf.MPBN(6))
        )
        self.second = sf.SpikingLayer(
            nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6), sf.PLIF(sf.MPBN(6), channels=6)
        )
        self.last = nn.Linear(6 * 64, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.first(x.movedim(0, 1))
        once = self.second(y, y.flip(-1))
        y += 0.5  # the layer's own memory
        twice = self.second(F.max_pool2d(y.flatten(0, 1), 3, 1, 1).view_as(y), once)
        logits = self.last(torch.cat([once[-1:], twice]).flatten(2))
        return {"logits": logits.mean(0), "spikes": [once, twice[:, 0]]}


@pytest.mark.parametrize("folded", [False, True])
def test_modules_of_ones_own_give_the_same(folded: bool) -> None:
    network = trained(Mine(), 4, 3, 2, 8, 8)
    network = sf.fold(network) if folded else network
    x, other = torch.rand(2, 4, 3, 2, 8, 8)
    ready = sf.prepare(network, x)
    for _ in range(2):
        with torch.no_grad():
            expected, found = network(x), ready(x)
        ready(other)
        assert torch.equal(found["logits"], expected["logits"])
        for ours, theirs in zip(found["spikes"], expected["spikes"], strict=True):
            assert torch.equal(ours, theirs)


class Squared(sf.MPBN):
    """A norm that runs on the reference."""

    def forward(self, u: Tensor, t: int = 0) -> Tensor:
        return super().forward(u, t) + 0.125


class Halves(nn.Module):
    """Neurons read from amid a tensor, and from its begin."""

    def __init__(self) -> None:
        super().__init__()
        self.connection, self.lif = sf.OverTime(nn.Linear(7, 5)), sf.LIF()

    def forward(self, x: Tensor) -> Tensor:
        y = self.connection(x)
        return self.lif(y[2:]) - 2 * self.lif(y[:2])


@pytest.mark.parametrize(
    "layer",
    [
        Halves(),
        sf.SpikingLayer(nn.Linear(7, 5), nn.Identity(), sf.LIF(Squared(5))),
        sf.SpikingLayer(nn.Linear(7, 5), NORMS["TAB"](5, 4), sf.IF(sf.MPBN(5, steps=4))),
        sf.SpikingLayer(nn.Linear(7, 5), nn.BatchNorm1d(5), sf.PLIF(sf.MPBN(5))).double(),
        nn.Sequential(sf.OverTime(nn.Linear(7, 5)), sf.LIF()),
    ],
    ids=["halves", "reference", "current norm", "float64", "neurons alone"],
)
def test_layers_give_the_same(layer: nn.Module) -> None:
    dtype = next(layer.parameters()).dtype
    layer.train()(2 * torch.randn(4, 6, 7, dtype=dtype))
    agrees(layer.eval(), *torch.randn(3, 4, 6, 7, dtype=dtype))


def test_a_converted_network_and_shown_images_give_the_same() -> None:
    cnn = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = trained(sf.convert(cnn, steps=3), 4, 2, 8, 8)
    agrees(sf.fold(network), *torch.rand(2, 4, 2, 8, 8))


# ------------------------------------------------------------------ later changes


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_channels_last_gives_what_the_network_gives_in_channels_last(
    options: dict[str, Any],
) -> None:
    network = model(**options).to(memory_format=torch.channels_last)
    agrees(network, *torch.rand(3, 4, 2, 16, 16) * 2)
    agrees(network, *torch.rand(2, 3, 2, 2, 16, 16))


@torch.no_grad()
def test_values_that_change_in_place_count() -> None:
    network, other = (sf.fold(model("resnet20", learn_decay="layer")) for _ in range(2))
    x = torch.rand(4, 2, 16, 16)
    ready, before = sf.prepare(network, x), network(x)
    assert not torch.equal(other(x), before)
    network.load_state_dict(other.state_dict())
    assert torch.equal(ready(x), other(x))


@torch.no_grad()
def test_tensors_that_are_replaced_are_never_read_past_their_end() -> None:
    network = sf.fold(model("small"))
    x = torch.rand(4, 2, 16, 16)
    ready, expected = sf.prepare(network, x), network(x)
    lif, conv = network.features[1].lif, network.features[1].connection
    lif.theta.data = torch.zeros(1)  # not in place: another tensor
    lif.polarity.data = torch.zeros(1)
    assert torch.equal(ready(x), expected)
    conv.weight.data = conv.weight[:1].clone()
    with pytest.raises(ConfigError, match=r"\[12, 1, 16, 16\].* was prepared: prepare again"):
        ready(x)


@torch.no_grad()
def test_inputs_that_lie_otherwise_are_brought_into_order() -> None:
    network = sf.fold(model("small"))
    x = torch.rand(3, 4, 2, 16, 16)
    ready = sf.prepare(network, x[:, :1].expand(-1, 4, -1, -1, -1))
    assert torch.equal(ready(x), network(x))
    assert torch.equal(ready(x.transpose(-1, -2)), network(x.transpose(-1, -2).contiguous()))
    assert torch.equal(ready(x[:1].expand_as(x)), network(x[:1].repeat(3, 1, 1, 1, 1)))


@torch.no_grad()
def test_threads_share_a_prepared_network() -> None:
    before = sys.getswitchinterval()
    network = sf.fold(model("small"))
    inputs = list(torch.rand(200, 2, 2, 16, 16))
    ready, expected = sf.prepare(network, inputs[0]), [network(x) for x in inputs]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(ready, inputs))
    finally:
        sys.setswitchinterval(before)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# ------------------------------------------------------------------ refusals


@pytest.mark.usefixtures("as_user")
def test_what_it_was_not_prepared_for_is_noticed() -> None:
    network, x = sf.fold(model("small")), torch.rand(4, 2, 16, 16)
    ready = sf.prepare(network, x)
    with pytest.raises(ShapeError, match=r"for inputs \[4, 2, 16, 16\] got \[3, 2, 16, 16\]"):
        ready(x[:3])
    with pytest.raises(ConfigError, match=r"float32 on cpu got torch.float64 on cpu"):
        ready(x.double())
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ConfigError, match="prepared with autocast and called without, or the other"),
    ):
        ready(x)
    with pytest.raises(ConfigError, match="plain eager mode"):
        torch.vmap(ready, in_dims=-1)(torch.rand(4, 2, 16, 16, 2))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sf.prepare(network, x)
        assert torch.equal(mixed(x), network(x))
    network.train()
    with pytest.raises(ConfigError, match=r"for evaluation: call eval\(\)"):
        ready(x)
    with pytest.raises(ConfigError, match="in training mode"):
        sf.prepare(network, x)


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.usefixtures("as_user")
def test_what_cannot_be_recorded_is_refused() -> None:
    x = torch.rand(4, 2, 16, 16)
    with pytest.raises(ConfigError, match="this network cannot be recorded"):
        sf.prepare(Undecided().eval(), x)
    network = sf.fold(model("small"))
    with pytest.raises(ConfigError, match="the example must be a tensor, got list"):
        sf.prepare(network, [x])  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="takes 2 input channels, got 1"):
        sf.prepare(network, x[:, :1])
    norm = network.features[0].norm.train()  # would take note of every call
    with pytest.raises(ConfigError, match=r"'features.0.norm' \(BatchNorm2d\) is in training mode"):
        sf.prepare(network, x)
    norm.eval()
    network.features[1].register_forward_hook(lambda *args: None)
    with pytest.raises(ConfigError, match=r"'features.1' \(SpikingLayer\) carries hooks"):
        sf.prepare(network, x)


class Pools(nn.Module):
    """Pools of the input, of spikes, and of results that are computed anew at each call."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.pool, self.lif = nn.AvgPool2d(2, **options), sf.LIF(threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(self.pool(x)[None].expand(2, -1, -1, -1, -1))
        return self.pool(spikes.flatten(0, 1)) + self.pool(self.pool(x) * 2).sin()


@pytest.mark.parametrize(
    "options",
    [{}, {"ceil_mode": True}, {"padding": 1}, {"stride": 1}, {"divisor_override": 3}],
    ids=str,
)
@pytest.mark.parametrize("size", [(12, 12), (11, 13)])
def test_pools_give_the_same(size: tuple[int, int], options: dict[str, Any]) -> None:
    network = Pools(**options).eval()
    agrees(network, *torch.randn(3, 1, 3, *size))
    agrees(network, *(x.to(memory_format=torch.channels_last) for x in torch.randn(3, 1, 3, *size)))


class Potentials(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = sf.LIF()

    def forward(self, x: Tensor) -> Tensor:
        spikes, state = self.lif.step(x)
        return spikes + state.v


def test_potentials_that_something_takes_are_written() -> None:
    agrees(Potentials().eval(), *torch.randn(3, 2, 5))
