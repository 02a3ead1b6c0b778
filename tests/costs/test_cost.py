"""What networks cost: by hand, by counting again what their layers are given, at the edges."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import spikefold as sf
from spikefold.costs import norms_left
from spikefold.errors import ConfigError, DataError, GraphError, ShapeError
from spikefold.nn import TEBN
from spikefold.reports import energy


def two_layers() -> nn.Sequential:
    """3 inputs, 2 neurons that do not leak, 2 outputs, at every step."""
    network = nn.Sequential(
        sf.SpikingLayer(nn.Linear(3, 2, bias=False), nn.Identity(), sf.IF(threshold=0.5)),
        nn.Linear(2, 2, bias=False),
    )
    with torch.no_grad():
        network[0].connection.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
        network[1].weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    return network


def test_two_layers_by_hand() -> None:
    """U = [1, 0.5], then [0, 0.5]: of four decisions one is a spike, and 0.5 is not above 0.5."""
    x = torch.tensor([[[1.0, 0.0, 0.5]], [[0.0, 0.0, 0.0]]])
    cost = sf.cost(two_layers(), [x])
    first, second = cost.layers
    assert (first.name, first.spikes, first.source) == ("0", False, "the input")
    assert (first.macs, first.effective_macs, first.acs) == (12, 2, 0)
    assert (first.updates, first.fired, first.firing_rate) == (4, 1, 0.25)
    assert (second.name, second.spikes, second.source) == ("1", True, "'0.lif' (IF)")
    assert (second.macs, second.acs, second.dense) == (0, 1, 8)  # the other weight is 0
    assert (cost.ann, cost.dense, cost.steps, cost.samples) == (6 + 4, 12 + 8, 2, 1)
    assert cost.picojoules == pytest.approx(12 * 4.6 + 1 * 0.9)
    assert cost.ann_picojoules == pytest.approx(10 * 4.6)
    assert (cost.parameters, cost.weight_bytes, cost.threshold_bytes) == (10, 40, 0)
    assert (cost.norm_operations, first.norms, second.firing_rate) == (0, {}, None)


def again(network: nn.Module, x: Tensor) -> tuple[Counter[str], Counter[str]]:
    """Effective and dense products a sample, from a hook on every connection, in float64."""
    effective, dense = Counter[str](), Counter[str]()

    def see(connection: Any, args: tuple[Tensor], name: str) -> None:
        ones = torch.ones_like(connection.weight).double()
        for value, count in (((args[0] != 0), effective), (torch.ones_like(args[0]), dense)):
            if isinstance(connection, nn.Linear):
                y = F.linear(value.double(), ones)
            else:
                y = F.conv2d(value.double(), ones, None, connection.stride, connection.padding)
            count[name] += y.sum().item() / x.shape[-4]

    network = copy.deepcopy(network).eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            at = name.removesuffix(".connection")
            module.register_forward_pre_hook(lambda m, args, name=at: see(m, args, name))
    with torch.no_grad():
        network(x)
    return effective, dense


def seen_before(name: str, x: Tensor, **options: Any) -> sf.models.Network:
    """A network whose statistics fit the data, so that it fires."""
    network = getattr(sf.models, name)(width=0.0625, in_channels=x.shape[-3], **options)
    for _ in range(8):
        network(x)
    return network


@pytest.mark.parametrize("name", ["small", "resnet19", "resnet20", "resnet18"])
@pytest.mark.parametrize("still", [True, False])
def test_models_counted_again(name: str, still: bool) -> None:
    x = torch.rand(5, 3, 32, 32) if still else torch.rand(2, 5, 2, 32, 32).round()
    network = seen_before(name, x, steps=2)
    effective, dense = again(network, x)
    cost = sf.cost(network, [x])
    connections = [layer for layer in cost.layers if layer.source is not None]
    assert {layer.name for layer in connections} == set(effective)
    for layer in connections:
        count = layer.acs if layer.spikes else layer.effective_macs
        assert count == pytest.approx(effective[layer.name], rel=1e-12)
        assert layer.dense == pytest.approx(dense[layer.name], rel=1e-12)
        assert layer.macs == (0 if layer.spikes else layer.dense)
        first = layer.name == "features.0"
        assert layer.ann == layer.dense / (1 if first and still else 2)
        assert layer.spikes == (("lif" in str(layer.source)) or (first and not still))
    assert cost.acs == sum(layer.acs for layer in cost.layers) > 0
    assert cost.parameters == sum(value.numel() for value in network.parameters())
    assert cost.updates == sum(layer.updates for layer in cost.layers)


def test_a_still_image_is_convolved_once() -> None:
    """8x8 pixels and 3x3 taps: 22 of 24 taps a row lie inside; 32 channels."""
    network = sf.models.small(in_channels=1, steps=4)
    image = torch.rand(2, 1, 8, 8)
    first = sf.cost(network, [image]).layers[0]
    assert first.macs == first.ann == 22 * 22 * 32
    frames = sf.cost(network, [image.expand(4, *image.shape).clone()]).layers[0]
    assert (frames.macs, frames.ann) == (4 * first.macs, first.ann)
    assert first.norms == {"BatchNorm2d": 3, "MPBN": 3}
    neurons = 8 * 8 * 32
    assert first.norm_operations == 3 * neurons + 3 * 4 * neurons  # batch norm of one image
    assert sf.cost(network, [image], steps=7).steps == 7


def pooled(pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        sf.SpikingLayer(nn.Conv2d(1, 2, 1), nn.Identity(), sf.LIF()),
        sf.OverTime(pool),
        sf.SpikingLayer(nn.Conv2d(2, 2, 1), nn.Identity(), sf.LIF()),
    )


@pytest.mark.parametrize("silent", [True, False])
def test_behind_an_average_pool_are_macs_and_behind_a_maximum_are_not(silent: bool) -> None:
    x = torch.rand(3, 2, 1, 4, 4) * (0 if silent else 4)
    network = pooled(nn.AvgPool2d(2))
    nn.init.ones_(network[0].connection.weight)
    nn.init.zeros_(network[0].connection.bias)
    behind = sf.cost(network, [x]).layers[1]
    assert (behind.spikes, behind.source) == (False, "'1.0' (AvgPool2d)")
    assert (behind.macs, behind.acs) == (3 * 4 * 4, 0)
    network[1][0] = nn.MaxPool2d(2)
    behind = sf.cost(network, [x]).layers[1]
    assert (behind.spikes, behind.source, behind.macs) == (True, "'0.lif' (LIF)", 0)
    assert (behind.acs > 0) is not silent


def test_norms_that_are_left() -> None:
    x = torch.rand(4, 3, 32, 32)
    network = seen_before("resnet20", x, steps=2)
    folded = sf.fold(network)
    left = {layer.name: layer for layer in sf.cost(folded, [x]).layers}
    assert left["features.1"].norms == {"BatchNorm2d": 3}
    assert left["features.1"].norm_operations == 3 * left["features.1"].updates
    alone = left["features.6.shortcut.2"]  # channels 8, 16x16 pixels halved to 8x8, 2 steps
    assert (alone.norms, alone.source, alone.updates) == ({"BatchNorm2d": 3}, None, 0)
    assert alone.norm_operations == 3 * 2 * 8 * 8 * 8
    fused = sf.cost(sf.fuse_conv_bn(folded), [x])
    assert fused.norm_operations == 0
    assert not any(layer.norms for layer in fused.layers)
    thresholds = [m for m in folded.modules() if isinstance(m, sf.FoldedLIF)]
    assert fused.threshold_bytes == sum(8 * m.theta.numel() for m in thresholds)
    assert fused.weight_bytes == 4 * sum(p.numel() for p in sf.fuse_conv_bn(folded).parameters())


def test_fused_linear_layers_are_followed() -> None:
    unit = sf.SpikingLayer(nn.Linear(3, 2), nn.BatchNorm1d(2), sf.LIF(sf.MPBN(2)))
    fused = sf.fuse_conv_bn(sf.fold(nn.Sequential(unit)))
    cost = sf.cost(fused, [torch.rand(2, 4, 3)])
    assert (cost.uncounted, cost.layers[0].norms, cost.parameters) == ((), {}, 8)


def test_norms_of_other_kinds() -> None:
    def layer(norm: nn.Module) -> sf.SpikingLayer:
        return sf.SpikingLayer(nn.Conv2d(2, 4, 1), norm, sf.LIF())

    image = torch.rand(3, 2, 5, 5).expand(2, 3, 2, 5, 5)
    values = 4 * 5 * 5
    per_step, group = (sf.cost(layer(norm), [image]) for norm in (TEBN(4, 2), nn.GroupNorm(2, 4)))
    assert per_step.norm_operations == 3 * 2 * values  # a map for each step
    assert group.norm_operations == 7 * values  # one image, with its own statistics
    assert [row.name for row in group.layers] == ["connection", "norm", "lif"]


def test_batches_are_averaged_by_sample() -> None:
    x = torch.rand(8, 1, 8, 8)
    network = seen_before("small", x, steps=3)
    whole, parts = sf.cost(network, [x]), sf.cost(network, [(x[:3], torch.zeros(3)), x[3:]])
    assert parts == whole
    assert parts.samples == 8


def test_pruned_and_shared_weights() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4, bias=False)
            self.one, self.two = sf.IF(), sf.IF()

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.fc(self.one(self.fc(x))))

    x = torch.ones(3, 2, 4)
    network = Twice()
    nn.init.ones_(network.fc.weight)
    cost = sf.cost(network, [x])
    assert (cost.parameters, cost.acs, cost.ann) == (16, 2 * 3 * 16, 2 * 16)
    prune.l1_unstructured(network.fc, "weight", amount=4)
    pruned = sf.cost(network, [x])
    assert pruned.acs == 2 * 3 * 12
    assert pruned.dense == 2 * 3 * 16
    tied = two_layers().append(nn.Linear(2, 2, bias=False))
    tied[2].weight = tied[1].weight
    cost = sf.cost(tied, [torch.ones(1, 1, 3)])
    assert (cost.parameters, cost.weight_bytes) == (10, 40)
    assert [layer.parameters for layer in cost.layers] == [6, 4, 0]


def test_the_network_is_left_alone() -> None:
    x = torch.rand(4, 1, 8, 8)
    network = seen_before("small", x, steps=2).train()
    before = copy.deepcopy(network.state_dict())
    calls = []
    network.classifier.register_forward_hook(lambda *_: calls.append(1))
    expected = copy.deepcopy(network).eval()(x)
    calls.clear()
    counted = sf.cost(network, [x])
    assert network.training
    assert calls == [1]  # the user's own hook runs, as in any run
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert "forward" not in vars(network.classifier)
    assert not network.features[0].connection._forward_pre_hooks
    assert torch.equal(network.eval()(x), expected)
    assert sf.cost(network.double(), [x.double()]).ann == counted.ann


def test_converted_networks_and_frames_of_several_lengths() -> None:
    cnn = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64, 3)),
    )
    network = sf.convert(cnn, steps=4)
    image = torch.rand(2, 1, 8, 8)
    cost = sf.cost(network, [image])
    convolutions = 36 * 9 * 4, 16 * 9 * 16
    assert [layer.ann for layer in cost.layers] == [*convolutions, 3 * 64]
    assert [layer.dense for layer in cost.layers] == [
        convolutions[0],
        4 * convolutions[1],
        4 * 3 * 64,
    ]
    assert not cost.uncounted
    frames = [torch.rand(steps, 2, 1, 8, 8) for steps in (2, 4)]
    both = sf.cost(network, frames)
    assert (both.steps, both.ann, both.dense) == (3, cost.ann, 3 * cost.ann)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.lif = nn.Parameter(torch.ones(2, 3)), sf.LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(F.linear(x, self.weight))


class Unknown(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return self.lif(x @ self.weight.T)


class Loop(Functional):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.lif(frame[None]) for frame in x])


def test_what_is_not_known_is_said() -> None:
    cost = sf.cost(Unknown(), [torch.rand(2, 1, 3)])
    assert cost.uncounted == ("matmul",)
    for told in (str(cost), energy(cost.to_dict())):
        assert told.endswith("; not counted: matmul")


@pytest.mark.usefixtures("as_user")
def test_refused_in_one_line() -> None:
    small, x = sf.models.small(in_channels=1, steps=2), torch.rand(2, 1, 8, 8)
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (small, [], DataError, "cost got no sample"),
        (small, [x[:0]], DataError, "cost got no sample"),
        (small, ["x"], ShapeError, "a batch is a tensor, or a pair"),
        (Functional(), [torch.rand(2, 1, 3)], GraphError, "cannot see what linear is given"),
        (Loop(), [torch.rand(2, 1, 3)], GraphError, "cannot be followed"),
        (nn.Sequential(nn.Linear(3, 2)), [torch.rand(2, 3)], ConfigError, "no neuron"),
        (None, [x], ConfigError, "cost takes a network, got NoneType"),
    ]
    for network, batches, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            sf.cost(network, batches)
        with pytest.raises(ConfigError, match="cost takes a network, got str"):
            sf.cost(small, [x], before="x")  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_the_record_is_plain_data() -> None:
    cost = sf.cost(two_layers(), [torch.rand(2, 3, 3)])
    record = cost.to_dict()
    assert record["layers"][1] | {"name": "1", "spikes": True} == record["layers"][1]
    assert record["picojoules"] == cost.picojoules
    assert record["uncounted"] == []
    assert "a sample" in str(cost)


@pytest.mark.parametrize(
    ("after", "fuse", "left"),
    [
        ("bn", False, {"BatchNorm2d": {"layers": 4, "operations": 3}}),
        ("bn", True, {}),
        ("tdbn", True, {}),
        ("tab", False, {"TAB": {"layers": 4, "operations": 3}}),
        ("tab", True, {"CurrentAffine": {"layers": 4, "operations": 2}}),
    ],
)
def test_what_fold_and_fusion_leave(
    after: sf.models.AfterConnection, fuse: bool, left: dict[str, dict[str, int]]
) -> None:
    network = sf.models.small(in_channels=1, steps=2, width=0.25, current_norm=after).eval()
    assert norms_left(network)["MPBN"] == {"layers": 4, "operations": 3}
    folded = sf.fold(network)
    assert norms_left(sf.fuse_conv_bn(folded) if fuse else folded) == left


def test_what_fold_and_fusion_removed_by_hand() -> None:
    """Each norm is 3 operations a value, and of what comes from a norm of each step 2 are left."""
    x = torch.rand(2, 4, 2, 8, 8)
    for after, left in (("bn", 0), ("tab", 2)):
        network = seen_before("small", x, current_norm=after, steps=2)
        folded = sf.fold(network)
        values = sum(layer.updates for layer in sf.cost(network, [x]).layers)
        mpbn = {"MPBN": {"layers": 4, "operations": 3 * values}}
        fused = sf.fuse_conv_bn(folded)
        norms = sf.cost(network, [x])
        assert (norms.removed, norms.norm_operations) == ({}, 6 * values)
        assert sf.cost(folded, [x, x]).removed == mpbn
        cost, name = sf.cost(fused, [x]), {"bn": "BatchNorm2d", "tab": "TAB"}[after]
        assert cost.removed == mpbn | {name: {"layers": 4, "operations": 3 * values}}
        assert cost.norm_operations == left * values  # a gain and a shift
        assert cost.to_dict()["removed"] == cost.removed


def test_what_was_removed_from_a_network_of_ones_own() -> None:
    unit = sf.SpikingLayer(nn.Linear(3, 2), nn.BatchNorm1d(2), sf.LIF(sf.MPBN(2)))
    network = nn.Sequential(unit, nn.Linear(2, 2)).eval()
    folded, x = sf.fold(network), torch.rand(4, 5, 3)
    assert sf.cost(folded, [x]).removed is None
    mpbn = {"MPBN": {"layers": 1, "operations": 3 * 4 * 2}}
    assert sf.cost(folded, [x], before=network).removed == mpbn


def test_what_was_there_before_is_said_only_where_it_is_known() -> None:
    x = torch.rand(2, 1, 8, 8)
    arguments = sf.models.Arguments(in_channels=1, steps=2)
    own = sf.models.assemble("my_own", lambda b, _: [b.conv(4)], arguments).eval()
    assert sf.cost(sf.fuse_conv_bn(sf.fold(own)), [x]).removed is None  # no such model
    changed = sf.models.small(in_channels=1, steps=2).eval()
    for unit in changed.layers().values():
        unit.norm = sf.TAB(unit.connection.out_channels, 2)
    fused = sf.fuse_conv_bn(sf.fold(changed))
    assert sf.cost(fused, [x]).removed is None  # its norms are not those of the model
    assert set(sf.cost(fused, [x], before=changed).removed or {}) == {"MPBN", "TAB"}


def test_batches_of_several_lengths_do_not_tell_what_was_removed() -> None:
    network = nn.Sequential(sf.SpikingLayer(nn.Linear(3, 2), nn.Identity(), sf.LIF(sf.MPBN(2))))
    folded = sf.fold(network.eval())
    batches = [torch.rand(steps, 4, 3) for steps in (3, 5)]
    assert sf.cost(folded, batches, before=network).removed is None
    assert sf.cost(folded, batches[:1], before=network).removed == {
        "MPBN": {"layers": 1, "operations": 3 * 3 * 2}
    }


def test_sums_of_sums_are_followed_once() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unit, self.readout = two_layers()[0], nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.unit(x)
            for _ in range(60):
                y = y + F.dropout(y, training=False)
            return self.readout(y)

    assert sf.cost(Doubled(), [torch.rand(2, 3, 3)]).layers[-1].source == "'unit.lif' (IF)"


def test_the_random_state_is_left_alone() -> None:
    fused, x = sf.fuse_conv_bn(sf.models.small(in_channels=1, steps=2)), torch.rand(2, 1, 8, 8)
    state = torch.get_rng_state()
    sf.cost(fused, [x])
    assert torch.equal(torch.get_rng_state(), state)


def test_neurons_of_two_layers_count_the_norm_of_each() -> None:
    lif = sf.LIF()
    network = nn.Sequential(
        sf.SpikingLayer(nn.Linear(3, 4), sf.TEBN(4, 2), lif),
        sf.SpikingLayer(nn.Linear(4, 4), nn.Identity(), lif),
        sf.SpikingLayer(nn.Linear(4, 4), nn.BatchNorm1d(4), lif),
    )
    cost = sf.cost(network, [torch.rand(2, 5, 3)])
    operations = {layer.name: layer.norm_operations for layer in cost.layers}
    assert operations == {"0": 3 * 2 * 4, "1": 0, "2": 3 * 2 * 4}


def test_a_readout_over_samples_first_runs_once_in_an_artificial_network() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unit, self.readout = two_layers()[0], nn.Linear(2, 7)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.unit(x).transpose(0, 1))

    cost = sf.cost(Swapped(), [torch.rand(4, 3, 3)])
    assert [(row.dense, row.ann) for row in cost.layers] == [(4 * 6, 6), (4 * 14, 14)]


@pytest.mark.parametrize("joined", ["add", "cat"])
def test_an_average_that_meets_spikes_makes_values(joined: str) -> None:
    """Also where the data makes it 0 or 1, as here, where nothing fires."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = sf.SpikingLayer(nn.Conv2d(1, 2, 1), nn.Identity(), sf.LIF())
            self.pool = sf.OverTime(nn.AvgPool2d(3, 1, 1))
            self.last = sf.SpikingLayer(nn.LazyConv2d(2, 1), nn.Identity(), sf.LIF())

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.one(x)
            mean = self.pool(spikes)
            return self.last(spikes + mean if joined == "add" else torch.cat([spikes, mean], 2))

    network, x = Joined(), torch.zeros(2, 3, 1, 4, 4)
    network(x)
    nn.init.zeros_(network.one.connection.bias)
    last = sf.cost(network, [x]).layers[-1]
    assert (last.spikes, last.acs) == (False, 0)
    assert last.macs == 2 * 16 * 2 * (2 if joined == "add" else 4)
    assert last.source == "'one.lif' (LIF) and 'pool.0' (AvgPool2d)"
