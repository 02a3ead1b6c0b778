"""Layers and networks one step after another: what the whole sequence gives, and what cannot be."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ConfigError, ShapeError
from spikefold.models._arguments import AfterConnection
from tests.nn.current_norms import NORMS


def dyadic(network: nn.Module) -> nn.Module:
    """Weights are multiples of 1/16, of which sums are exact in any order."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            for tensor in (module.weight, module.bias):
                if tensor is not None:
                    drawn = torch.randint(-8, 9, tensor.shape, generator=generator)
                    tensor.data.copy_(drawn / 16)
    return network


def frames(*shape: int) -> Tensor:
    return torch.randint(0, 17, shape) / 16


def trained(norm: Any = "mpbn", model: str = "resnet20", **options: Any) -> Any:
    """A small network of distinct steps, in evaluation with statistics of its own."""
    build = getattr(sf.models, model)
    options = {"width": 0.0625, "in_channels": 2, "image_size": 16} | options
    network = build(norm=norm, **options)
    size = options["image_size"]
    for _ in range(2):
        network(torch.rand(3, 4, 2, size, size) * 2)
    return network.eval()


def streamed(part: Any, sequence: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    outputs = []
    for x_t in sequence:
        y, state = part.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs), state


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "as trained": lambda network: network,
    "folded": sf.fold,
    "folded and fused": lambda network: sf.fuse_conv_bn(sf.fold(network)),
}
SMALL: dict[str, Any] = {"model": "small", "width": 0.25}
NETWORKS: dict[str, dict[str, Any]] = {
    "mpbn": {},
    "steps": {"norm": "mpbn-steps", "steps": 3, "learn_decay": "channel", **SMALL},
    "element": {"norm": "mpbn-element", "learn_decay": "layer", "standardize": True, **SMALL},
    "strided": {"model": "resnet19", "neuron": sf.Neuron(0.5, 0.75, "soft")},
    "plain": SMALL,
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("transform", "dtype"),
    [
        ("as trained", torch.float64),
        ("folded", torch.float64),
        ("folded and fused", torch.float32),
    ],
)
@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_a_stream_of_a_network_is_its_sequence(
    options: dict[str, Any], transform: str, dtype: torch.dtype
) -> None:
    network = dyadic(TRANSFORMS[transform](trained(**options).to(dtype)))
    sequence = frames(3, 4, 2, 16, 16).to(dtype)
    logits, state = streamed(network, sequence)
    assert torch.equal(logits.mean(0), network(sequence))
    assert list(state) == list(network.layers())
    _, spikes = sf.with_spikes(network)(sequence)
    assert all(0 < fired.mean() < 1 for fired in spikes.values())
    shown, _ = streamed(network, sequence[:1].expand(3, -1, -1, -1, -1))
    assert torch.equal(shown.mean(0), network(sequence[0], steps=3))


@torch.no_grad()
@pytest.mark.parametrize("current_norm", get_args(AfterConnection))
@pytest.mark.parametrize(
    ("model", "size"),
    [("resnet20", 16), ("resnet19", 16), ("resnet18", 32), ("vgg16", 32), ("compact", 16)],
)
def test_norms_of_each_step_stream_in_units_and_shortcuts(
    model: str, size: int, current_norm: AfterConnection
) -> None:
    """Every norm in every family, with maps that differ from step to step."""
    options: dict[str, Any] = {"model": model, "width": 0.03, "image_size": size, "steps": 3}
    network = trained("mpbn-steps", current_norm=current_norm, **options).double()
    for norm in network.modules():
        if isinstance(norm, sf.CurrentNorm):
            for parameter in norm.parameters():
                nn.init.uniform_(parameter, 0.5, 1.5)
    dyadic(network)
    sequence = frames(3, 4, 2, size, size).double()
    logits, state = streamed(network, sequence)
    features = network.features(network.input(sequence))
    assert torch.equal(logits, network.classifier(features.mean((-2, -1))))
    assert list(state) == list(network.layers())
    with pytest.raises(ShapeError, match="time step 4 of a stream is past the last of 3"):
        network.step(sequence[0], state)


def test_a_stream_by_hand() -> None:
    """With u = 0.5 v + x + shortcut, fires above 1, hard reset: four steps of one neuron."""
    layer = sf.SpikingLayer(nn.Linear(1, 1), nn.Identity(), sf.LIF(decay=0.5, threshold=1.0)).eval()
    nn.init.ones_(layer.connection.weight)
    nn.init.zeros_(layer.connection.bias)
    state, shortcut, fired, potentials = None, torch.full((1, 1), 0.25), [], []
    for x_t in (0.5, 0.5, 0.5, 1.0):  # u = 0.75, 1.125 (fires), 0.75, 1.625 (fires)
        with torch.no_grad():
            spikes, state = layer.step(torch.full((1, 1), x_t), state, shortcut)
        fired.append(spikes.item())
        potentials.append(state.v.item())
    assert fired == [0, 1, 0, 1]
    assert potentials == [0.75, 0, 0.75, 0]
    assert state.t == 4


@torch.no_grad()
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_currents_know_their_step(name: str) -> None:
    norm = NORMS[name](5, 4)
    conv = nn.Conv2d(3, 5, 3)
    layer = dyadic(sf.SpikingLayer(conv, norm, sf.LIF(sf.MPBN(5))))
    for _ in range(4):
        layer(frames(4, 6, 3, 6, 6) * torch.arange(1, 5).reshape(4, 1, 1, 1, 1))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    layer.eval()
    sequence = frames(4, 6, 3, 6, 6)
    for part in (layer, sf.fold(layer)):
        spikes, state = streamed(part, sequence)
        assert torch.equal(spikes, part(sequence))
        if norm.steps is not None:
            with pytest.raises(ShapeError, match="step 5 of a stream is past the last of 4"):
                part.step(sequence[0], state)


@torch.no_grad()
def test_ordinary_weights_differ_in_ties_only() -> None:
    """Convolutions of another batch may sum otherwise: the first decisions that differ are ties."""
    network, sequence = sf.fold(trained()), torch.rand(5, 8, 2, 16, 16)
    logits, state = streamed(network, sequence)
    _, spikes = sf.with_spikes(network)(sequence)
    whole = spikes["features.0.lif"]
    first = network.features[0]
    found, _ = streamed(first, sequence)
    u = nn.functional.batch_norm(
        first.connection(sequence.flatten(0, 1)),
        first.norm.running_mean,
        first.norm.running_var,
        first.norm.weight,
        first.norm.bias,
    ).view_as(whole)
    at_first = (found != whole) & ((found != whole).cumsum(0) == 1)
    distance = (u - first.lif.theta[:, None, None]).abs()[at_first]
    assert (distance < 1e-4).all()
    torch.testing.assert_close(logits.mean(0), network(sequence), rtol=0, atol=0.05)
    assert state["features.0"].t == 5


# ------------------------------------------------------------------ state


@torch.no_grad()
def test_entries_of_a_batch_begin_anew() -> None:
    network = dyadic(trained(**SMALL))
    sequence = frames(5, 4, 2, 16, 16)
    _, state = streamed(network, sequence[:2])
    mask = torch.tensor([False, True, False, True])
    for entries in ([1, 3], [1, -1], torch.tensor([1, 3]), mask):
        renewed = {name: layer.reset(entries).to("cpu") for name, layer in state.items()}
        logits, after = streamed(network, sequence[2:], renewed)
        assert torch.equal(logits[:, mask], streamed(network, sequence[2:, mask])[0])
        assert torch.equal(logits[:, ~mask], streamed(network, sequence[:, ~mask])[0][2:])
        assert after["features.0"].t is None
    assert state["features.0"].t == 2
    assert sf.State(None, 0).reset([0]) == sf.State(None, 0)
    assert state["features.0"].to("meta").v.device.type == "meta"


@pytest.mark.usefixtures("as_user")
@torch.no_grad()
def test_a_state_that_does_not_fit_is_refused() -> None:
    network, x = trained("mpbn-steps", steps=3), frames(4, 2, 16, 16)
    _, state = network.step(x)
    layer = network.features[0]
    for wrong, message in (
        ({}, "that of another network: it has no 'features'"),
        (state | {"more": state["features.0"]}, "another network: it differs in 'more'"),
        ({"features.1": state["features.1"]}, "another network: it has no '0'"),
        (state["features.0"], "what step returned, a dict of layers, got State"),
        ({name: layer.reset([1]) for name, layer in state.items()}, "different time steps"),
    ):
        with pytest.raises(ConfigError, match=message):
            network.step(x, wrong)
    with pytest.raises(ConfigError, match="a State, got dict"):
        layer.step(x, state)
    with pytest.raises(ShapeError, match=r"state of shape \[4, 4, 16, 16\] for an input step"):
        network.step(x[:3], state)
    with pytest.raises(ShapeError, match=r"entries \[4\] of a batch of 4"):
        state["features.0"].reset([4])
    _, state = streamed(network, x.expand(2, *x.shape), state)
    with pytest.raises(ShapeError, match="time step 4 of a stream is past the last of 3"):
        network.step(x, state)


# ------------------------------------------------------------------ what cannot step


class Doubled(sf.LIF):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class SteppingToo(Doubled):
    def step(self, x: Tensor, state: sf.State | None = None) -> tuple[Tensor, sf.State]:
        return super().step(2 * x, state)


@torch.no_grad()
def test_neurons_with_a_step_of_their_own_take_it() -> None:
    layer = dyadic(sf.SpikingLayer(nn.Linear(3, 5), nn.BatchNorm1d(5), SteppingToo())).eval()
    x = frames(4, 6, 3)
    layer.norm = nn.Identity()
    spikes, _ = streamed(layer, x)
    assert torch.equal(spikes, layer(x))


def unit(norm: nn.Module, lif: sf.LIF | None = None) -> sf.SpikingLayer:
    return sf.SpikingLayer(nn.Linear(3, 5), norm, lif or sf.LIF()).eval()


def hooked() -> sf.SpikingLayer:
    layer = unit(nn.Identity())
    layer.lif.register_forward_hook(lambda *args: None)
    return layer


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (unit(nn.BatchNorm1d(5)).train(), "SpikingLayer.step is for evaluation"),
        (unit(nn.BatchNorm1d(5, track_running_stats=False)), "BatchNorm1d takes statistics of"),
        (
            unit(nn.BatchNorm1d(5, affine=False, track_running_stats=False)),
            "BatchNorm1d takes statistics of",
        ),
        (unit(nn.Identity(), Doubled()), "Doubled cannot step: it has a forward of its own"),
        (hooked(), "LIF cannot step: it carries hooks"),
    ],
)
def test_what_is_for_whole_sequences_does_not_step(layer: sf.SpikingLayer, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layer.step(torch.zeros(2, 3))


class Held(nn.Module):
    """A norm in a module of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = sf.TEBN(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def block(shortcut: nn.Module) -> sf.models.BasicBlock:
    """Only what passes by is seen: the second unit's weights are zero."""
    first, second = unit(nn.Identity()), sf.SpikingLayer(nn.Linear(5, 3), nn.Identity(), sf.LIF())
    nn.init.zeros_(second.connection.weight)
    nn.init.zeros_(second.connection.bias)
    return sf.models.BasicBlock(first, second, shortcut).eval()


@torch.no_grad()
def test_a_shortcut_alone_knows_its_step() -> None:
    """No unit has parameters of each step; 0.3 · (1, 3, 1, 3) at threshold 0.5, decay 0.25."""
    norm = sf.TEBN(3, 4)
    norm.p.copy_(torch.tensor([1.0, 3.0, 1.0, 3.0])[:, None])
    part, x = block(sf.OverTime(norm)), torch.full((4, 2, 3), 0.3)
    spikes, state = streamed(part, x)
    assert spikes[:, 0, 0].tolist() == [0, 1, 0, 1]
    assert torch.equal(spikes, part(x))
    with pytest.raises(ShapeError, match="time step 5 of a stream is past the last of 4"):
        part.step(x[0], state)
    with pytest.raises(ConfigError, match="stand at different time steps"):
        part.step(x[0], state | {"first": state["first"].reset([0])})


@pytest.mark.usefixtures("as_user")
@torch.no_grad()
@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            block(sf.OverTime(nn.BatchNorm1d(3, track_running_stats=False))),
            "BatchNorm1d takes statistics of",
        ),
        (block(Held()), "Held cannot step: a TEBN in it does not learn which step it is"),
    ],
)
def test_a_shortcut_that_needs_whole_sequences_does_not_step(
    part: sf.models.BasicBlock, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        part.step(torch.zeros(2, 3))


@pytest.mark.usefixtures("as_user")
def test_networks_in_training_and_parts_without_a_step_are_refused() -> None:
    network, x = trained(), frames(2, 2, 16, 16)
    with pytest.raises(ConfigError, match=r"Network\.step is for evaluation"):
        network.train().step(x)
    network.eval().features[2] = nn.ModuleList([network.features[2]])
    with pytest.raises(ConfigError, match="ModuleList cannot step: it has a forward of its own"):
        network.step(x)
    for part in (lambda network: network.features, lambda network: network.features[1]):
        network = trained()
        part(network).register_forward_hook(lambda *args: None)
        with pytest.raises(ConfigError, match="cannot step: it carries hooks"):
            network.step(x)
    for wrong in (x[0], x[None]):
        with pytest.raises(ShapeError, match="a step takes the frames"):
            network.step(wrong)
    with pytest.raises(ShapeError, match="takes 2 input channels, got 1"):
        network.step(x[:, :1])


# ------------------------------------------------------------------ batch first by mistake


@pytest.mark.usefixtures("as_user")
def test_a_batch_before_time_is_noticed() -> None:
    network = sf.models.small(in_channels=2, steps=4).eval()
    frames = torch.rand(8, 4, 2, 8, 8)
    with pytest.raises(ShapeError, match="time comes first"):
        network(frames)
    for right in (frames.transpose(0, 1), torch.rand(4, 4, 2, 8, 8), torch.rand(8, 3, 2, 8, 8)):
        assert network(right).shape == (right.shape[1], 10)
    assert network(frames, steps=8).shape == (4, 10)  # said to be meant
    with pytest.raises(ShapeError, match="leave out steps=4"):
        network(frames, steps=4)
    assert sf.models.small(in_channels=2, steps=1).eval()(frames[:, :1]).shape == (1, 10)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("what", ["neurons", "folded", "norm of currents"])
def test_layers_with_parameters_of_each_step_notice_it_too(what: str) -> None:
    lif = sf.LIF(sf.MPBN(5, steps=4))
    layer = sf.SpikingLayer(nn.Linear(3, 5), nn.Identity(), lif).eval()
    if what == "folded":
        layer = sf.fold(layer)
    if what == "norm of currents":
        layer = sf.SpikingLayer(nn.Linear(3, 5), NORMS["TEBN"](5, 4), sf.LIF())
    with pytest.raises(ShapeError, match=r"has 8: is the batch before time\? It is \[T, N, ...\]"):
        layer(torch.rand(8, 4, 3))
    with pytest.raises(ShapeError, match=r"has 8$"):
        layer(torch.rand(8, 6, 3))
