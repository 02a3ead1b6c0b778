"""The walk: operations with their shapes, and what is refused by the name of the layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikefold as sf
from spikefold.errors import ExportError
from spikefold.export import Operation, walk


class Around(nn.Module):
    """A spiking layer, and something after it."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = sf.SpikingLayer(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), sf.LIF())
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x))


def resnet() -> nn.Module:
    return sf.fold(sf.models.resnet20(width=0.05, steps=2, image_size=16).eval())


def test_shapes_are_those_of_a_run() -> None:
    network, x = resnet(), torch.rand(2, 3, 16, 16)
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, __, y, name=name: seen.update({name: tuple(y.shape)})
            )
    network(x)
    operations = walk(resnet(), x).nodes
    compared = [o for o in operations if o.node.path in seen]
    assert len(compared) > 20
    for operation in compared:
        shape = seen[operation.node.path]
        assert shape[-len(operation.value.shape) :] == operation.value.shape, operation.name


def times(operations: tuple[Operation, ...]) -> list[tuple[str, str]]:
    return [(operation.kind, operation.value.time) for operation in operations]


def test_an_image_stands_still_until_neurons_and_time_ends_at_the_mean() -> None:
    network = sf.fold(sf.models.small(in_channels=1, steps=4, width=0.1, image_size=8).eval())
    kinds = times(walk(network).nodes)
    assert kinds[:4] == [
        ("input", "still"), ("connection", "still"), ("norm", "still"), ("neurons", "steps"),
    ]  # fmt: skip
    assert kinds[-4:] == [
        ("mean over space", "steps"), ("connection", "steps"), ("mean over time", "none"),
        ("output", "none"),
    ]  # fmt: skip
    frames = walk(network, torch.rand(3, 2, 1, 8, 8))
    assert frames.steps == 3
    assert frames.nodes[0].value.time == "steps"


def test_a_converted_network_and_its_reshapes() -> None:
    cnn = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 5)
    )
    network = sf.fold(sf.convert(cnn, steps=4))
    operations = walk(network, torch.rand(2, 3, 8, 8)).nodes
    assert [o.kind for o in operations] == [
        "input", "connection", "neurons", "pool", "reshape", "connection", "mean over time",
        "output",
    ]  # fmt: skip
    assert operations[4].value.shape == (72,)


def test_a_linear_layer_with_its_batch_norm_fused_is_followed() -> None:
    layer = sf.SpikingLayer(nn.Linear(4, 8), nn.BatchNorm1d(8), sf.LIF())
    operations = walk(sf.fuse_conv_bn(layer), torch.rand(3, 2, 4)).nodes
    assert [o.kind for o in operations] == ["input", "connection", "neurons", "output"]


class Doubled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def layer(connection: nn.Module | None = None, norm: nn.Module | None = None,
          lif: sf.SpikingNeuron | None = None) -> nn.Module:  # fmt: skip
    return sf.SpikingLayer(
        connection or nn.Conv2d(2, 4, 3), norm or nn.Identity(), lif or sf.LIF()
    ).eval()


def hooked() -> nn.Module:
    network = layer()
    network.connection.register_forward_hook(lambda *_: None)
    return network


FRAMES = torch.rand(3, 2, 2, 8, 8)
REFUSED: list[tuple[nn.Module, str]] = [
    (layer(lif=sf.LIF(sf.MPBN(4))), "'lif' (LIF): its membrane norm is not folded"),
    (layer(Doubled(2, 4, 3)), "'connection' (Doubled): of a type that cannot be exported"),
    (layer(nn.Conv2d(2, 4, 3, padding_mode="reflect")), "'connection' (Conv2d): padding_mode"),
    (layer(nn.ConvTranspose2d(2, 4, 3)), "'connection' (ConvTranspose2d): of a type"),
    (layer(norm=nn.GroupNorm(2, 4)), "'norm' (GroupNorm): of a type"),
    (layer(norm=nn.BatchNorm2d(4, track_running_stats=False)), "'norm' (BatchNorm2d): takes stat"),
    (layer(nn.Conv2d(3, 4, 3)), "'connection' (Conv2d): does not fit [2, 8, 8]"),
    (hooked(), "'connection' (Conv2d): it carries hooks"),
    (layer().double(), "'connection' (Conv2d): weight is torch.float64"),
    (layer(lif=sf.fold(sf.LIF(sf.MPBN(4, steps=2)))), "'lif' (FoldedLIF): has parameters for 2"),
    (Around(torch.relu), "relu: an activation that is no spiking neuron"),
    (Around(F.dropout), "dropout: drops at random"),
    (Around(lambda x: x + 1.0), "add: takes a number"),
    (Around(lambda x: x + x[:1]), "getitem: of a kind that"),
    (Around(lambda x: x * x), "mul: multiplication"),
    (Around(lambda x: torch.cat([x, x])), "cat: only channels"),
    (Around(lambda x: x.transpose(3, 4)), "transpose: moves elements"),
    (Around(lambda x: x.flatten(1)), "flatten: reshapes time or batch away"),
    (Around(lambda x: x.mean(2)), "mean: only means over time"),
    (Around(lambda x: F.avg_pool3d(x, 2)), "avg_pool3d: called as a function"),
    (Around(nn.AvgPool2d(2)), "'after' (AvgPool2d): takes [N, ...]"),
]


@pytest.mark.parametrize(("network", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_cannot_be_exported_is_named(network: nn.Module, why: str, as_user: None) -> None:
    with pytest.raises(ExportError) as error:
        walk(network, FRAMES)
    assert str(error.value).startswith("export: ")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


FEATURES = [nn.AvgPool1d(2), nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(2), nn.AdaptiveMaxPool1d(2)]


@pytest.mark.parametrize("pool", FEATURES, ids=lambda pool: type(pool).__name__)
def test_a_pool_over_features_is_said_with_a_dimension_of_channels(pool: nn.Module) -> None:
    """Torch takes the batch for channels: a pool over classes, "voting", then needs no reshape."""
    frames = torch.rand(3, 2, 8)
    network = nn.Sequential(layer(nn.Linear(8, 6)), sf.OverTime(pool))
    with pytest.raises(ExportError, match=r"takes \[6\], .* put nn.Unflatten\(1, \(1, 6\)\)"):
        walk(network, frames)
    around = nn.Sequential(nn.Unflatten(1, (1, 6)), pool, nn.Flatten(1, 2))
    other = nn.Sequential(network[0], sf.OverTime(around)).eval()
    assert torch.equal(other(frames), network.eval()(frames))
    assert walk(other, frames).nodes[-1].value.shape == network(frames).shape[2:]


def test_a_window_over_channels_is_refused() -> None:
    frames, one = torch.rand(3, 2, 2, 8), layer(nn.Conv1d(2, 4, 3))
    with pytest.raises(ExportError, match=r"'1.0' \(AvgPool2d\): takes \[4, 6\]"):
        walk(nn.Sequential(one, sf.OverTime(nn.AvgPool2d(2))), frames)


def test_without_an_input_description_an_example_is_asked_for() -> None:
    with pytest.raises(ExportError, match="give example="):
        walk(layer())
    network = layer()
    network.input_spec = sf.InputSpec(2, sf.data.Framing(steps=3, size=8))
    assert walk(network).steps == 3


@pytest.mark.parametrize(
    ("shape", "steps", "why"),
    [
        ((2, 3, 16, 16), 0, "at least 1"),
        ((2, 2, 3, 16, 16), 3, "frames of 2 steps, but steps=3"),
        ((2, 5, 16, 16), None, "takes 3 input channels, the example has 5"),
    ],
)
def test_examples_that_do_not_fit(shape: tuple[int, ...], steps: int | None, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        walk(resnet(), torch.rand(shape), steps)
