"""Imported networks beside SpikingJelly itself, and the stand-ins of the other tests beside it.

`make interop` makes an environment that has it; elsewhere these tests skip.
"""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.adopt._spikingjelly_nodes import LEAKS
from spikefold.errors import AdoptError
from spikefold.nn import Call, observing
from tests.adopt import standins
from tests.adopt.test_spikingjelly import imported, random_norm

pytestmark = pytest.mark.interop
jelly = pytest.importorskip(
    "spikingjelly.activation_based", reason="SpikingJelly is not here: make interop"
)
layer = pytest.importorskip("spikingjelly.activation_based.layer")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
functional = pytest.importorskip("spikingjelly.activation_based.functional")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

HARD, SOFT = 0.0, None
NODES: list[tuple[str, dict[str, Any]]] = [
    ("IFNode", {}),
    ("SimpleIFNode", {}),
    *(("LIFNode", {"tau": t, "decay_input": d}) for t in (2.0, 4 / 3, 3.7) for d in (False, True)),
    *(("ParametricLIFNode", {"init_tau": 1.7, "decay_input": d}) for d in (False, True)),
]
EXACT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("IFNode", {}),
    ("SimpleIFNode", {}),
    ("LIFNode", {"tau": 2.0, "decay_input": False}),
)


def node_of(name: str, options: dict[str, Any], **constants: Any) -> Any:
    return getattr(neuron, name)(step_mode="m", **options, **constants)


def run(network: nn.Module, x: Tensor) -> Tensor:
    functional.reset_net(network)
    with torch.no_grad():
        y: Tensor = network(x)
    return y


@pytest.mark.parametrize("reset", [HARD, SOFT])
@pytest.mark.parametrize(("name", "options"), NODES)
def test_spikes_of_single_nodes(
    name: str, options: dict[str, Any], reset: float | None, record_property: Any
) -> None:
    node = node_of(name, options, v_threshold=0.7, v_reset=reset)
    made = imported(node)
    differ = compared = 0
    for steps in (1, 4, 8):
        for shape in ((7, 5, 33, 31), (1, 13), (3, 2, 17)):
            x = torch.randn(steps, *shape)
            expected = run(node, x)
            differ += int((made(x) != expected).sum())
            compared += expected.numel()
    record_property("differ", f"{differ} of {compared}")
    assert differ <= (0 if (name, options) in EXACT else 1e-5 * compared)
    assert 0.01 < expected.mean() < 0.9
    double = node_of(name, options, v_threshold=0.7, v_reset=reset).double()
    x = torch.randn(8, 7, 5, 11, dtype=torch.float64)
    in_double = imported(nn.Sequential(double, nn.Linear(11, 1).double()))[0]
    assert torch.equal(run(double, x), in_double(x))


@pytest.mark.parametrize("reset", [HARD, SOFT])
def test_ties(reset: float | None) -> None:
    x = torch.randint(-8, 9, (8, 25, 3, 64)) / 4
    met = 0
    for name, options in EXACT:
        node = node_of(name, options, v_threshold=1.0, v_reset=reset)
        expected = run(node, x)
        assert torch.equal(expected, imported(node)(x))
        node.v_threshold = 1 + 2**-20
        met += int((run(node, x) != expected).sum())
    assert met > 1000


@pytest.mark.parametrize(("name", "options"), NODES)
def test_the_equations_that_are_measured_against_are_theirs_to_the_bit(
    name: str, options: dict[str, Any]
) -> None:
    if name.startswith("Simple"):
        pytest.skip("it shows no potentials; its equation is IFNode's")
    node = node_of(name, options, v_threshold=1e30, store_v_seq=True)
    x = torch.randn(6, 1000, 3)
    run(node, x)
    leak, v = LEAKS[name](node), torch.zeros_like(x[0])
    stand_in = getattr(standins, name)()
    for attribute in ("tau", "decay_input", "w"):
        if hasattr(node, attribute):
            setattr(stand_in, attribute, getattr(node, attribute))
    for t, x_t in enumerate(x):
        with torch.no_grad():
            v, published = leak.theirs(x_t, v), stand_in.charge(x_t, v)
        assert torch.equal(v, node.v_seq[t])
        assert torch.equal(published, v)


@pytest.mark.parametrize("reset", [HARD, SOFT])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("decay_input", [False, True])
def test_gradients(reset: float | None, detach: bool, decay_input: bool) -> None:
    for function in (surrogate.Sigmoid(3.0), surrogate.ATan(), surrogate.PiecewiseQuadratic(0.8)):
        constants = {"v_reset": reset, "detach_reset": detach, "surrogate_function": function}
        node = neuron.LIFNode(1.6, decay_input, 0.6, step_mode="m", **constants)
        made = imported(nn.Sequential(node, nn.Linear(7, 1)).double())[0]
        x = torch.randn(5, 3, 7, dtype=torch.float64).requires_grad_()
        weight = torch.randn(5, 3, 7, dtype=torch.float64)
        functional.reset_net(node)
        expected, *_ = torch.autograd.grad((node(x) * weight).sum(), x)
        found, *_ = torch.autograd.grad((made(x) * weight).sum(), x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class Net(nn.Module):
    """With layers of all kinds; what is not of SpikingJelly stays."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.conv = layer.Conv2d(3, 6, 3, bias=False)
        self.norm = layer.BatchNorm2d(6)
        self.first = make(6)
        self.pool = layer.MaxPool2d(2)
        self.residual = layer.SeqToANNContainer(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.second = make(6)
        self.shrink = layer.AdaptiveAvgPool2d(3)
        self.head = nn.Sequential(layer.Flatten(), layer.Linear(54, 20), layer.VotingLayer(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(self.norm(self.conv(x))))
        x = self.second(self.residual(x) + x)
        assert self.shrink.step_mode == "m"
        return self.head(self.shrink(x)).mean(0)


def built(make: Any) -> nn.Module:
    network = Net(make)
    functional.set_step_mode(network, "m")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            random_norm(module)
    return network.eval()


def spikes_of(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    nodes = (("first", network.first), ("second", network.second))
    handles = [
        node.register_forward_hook(lambda m, i, o, name=name: found.update({name: o}))
        for name, node in nodes
    ]
    run(network, x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("reset", [HARD, SOFT])
@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("kind", ["LIFNode", "MPBNLIFNode", "folded MPBN"])
def test_networks(
    kind: str, steps: int, decay_input: bool, reset: float | None, record_property: Any
) -> None:
    def make(channels: int) -> nn.Module:
        constants = {"tau": 1.7, "decay_input": decay_input, "v_threshold": 0.3, "v_reset": reset}
        if kind == "LIFNode":
            return neuron.LIFNode(**constants)
        node = neuron.MPBNLIFNode(out_channels=channels, **constants)
        random_norm(node.vbn)
        if kind == "folded MPBN":
            node.re_parameterize_v_threshold()
        return node

    network, x = built(make), torch.randn(steps, 5, 3, 19, 14)
    made = imported(network)
    ours: dict[str, Tensor] = {}

    def see(name: str, call: Call) -> None:
        ours[name.removesuffix(".lif")] = call.fired.spikes

    with observing(made, see), torch.no_grad():
        logits = made(x)
    theirs = spikes_of(network, x)
    differ = sum(int((theirs[name] != ours[name]).sum()) for name in theirs)
    compared = sum(spikes.numel() for spikes in theirs.values())
    record_property("differ", f"{differ} of {compared}")
    assert differ <= 1e-4 * compared
    assert all(0.02 < spikes.mean() < 0.98 for spikes in theirs.values())
    if not differ:
        torch.testing.assert_close(logits, run(network, x), rtol=1e-5, atol=1e-5)
    double = copy.deepcopy(network).double()
    in_double = imported(double)
    assert torch.equal(in_double(x.double()), run(double, x.double()))


def test_containers_and_dropout() -> None:
    network = nn.Sequential(
        layer.MultiStepContainer(nn.Linear(7, 9), neuron.LIFNode(decay_input=False)),
        layer.Dropout(0.5, step_mode="m"),
        layer.StepModeContainer(True, "m", nn.Linear(9, 5), neuron.IFNode()),
        layer.StepModeContainer(False, "m", nn.Linear(5, 5), nn.BatchNorm1d(5)),
        layer.Linear(5, 3, step_mode="m"),
    ).eval()
    for linear in (network[0][0], network[2][0]):
        linear.weight.data *= 5
    made = sf.from_spikingjelly(network)
    x = torch.randn(4, 6, 7)
    assert torch.equal(made(x), run(network, x))
    torch.manual_seed(1)
    functional.reset_net(network)
    theirs = network.train()[1](torch.ones(4, 6, 7))
    torch.manual_seed(1)
    assert torch.equal(made.train()[1](torch.ones(4, 6, 7)), theirs)


def test_single_step_networks_are_refused_until_they_are_set() -> None:
    network = nn.Sequential(layer.Linear(7, 9), neuron.LIFNode(decay_input=False))
    with pytest.raises(AdoptError, match=r"functional.set_step_mode\(network, 'm'\) first"):
        sf.from_spikingjelly(network)
    functional.set_step_mode(network, "m")
    x = torch.randn(4, 6, 7) * 4
    assert torch.equal(sf.from_spikingjelly(network)(x), run(network, x))


def test_other_nodes_are_refused_by_name() -> None:
    for node in (neuron.QIFNode(), neuron.KLIFNode(), neuron.CUBALIFNode(0.5, 0.5), neuron.PSN(4)):
        with pytest.raises(AdoptError, match=f"'0' .{type(node).__name__}.: SpikingJelly's"):
            sf.from_spikingjelly(nn.Sequential(node))
    with pytest.raises(AdoptError, match=r"v_reset=-0.5: only 0.0"):
        sf.from_spikingjelly(neuron.LIFNode(v_reset=-0.5, step_mode="m"))


def test_a_network_of_their_zoo() -> None:
    zoo = pytest.importorskip("spikingjelly.activation_based.model.parametric_lif_net")
    network = zoo.MNISTNet(channels=8, spiking_neuron=neuron.IFNode)
    functional.set_step_mode(network, "m")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data += 1
            module.bias.data += 0.3
        elif isinstance(module, nn.Linear):
            module.weight.data *= 6
    x = torch.rand(4, 3, 1, 28, 28)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = sf.from_spikingjelly(network.eval())
    expected = run(network, x)
    assert torch.equal(made(x), expected)
    assert 0 < expected.mean() < 1
