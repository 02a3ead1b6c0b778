"""Networks of SpikingJelly's modules, against traces by hand and the published equations."""

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import AdoptError
from spikefold.nn import Call, observing
from tests.adopt import standins as jelly

HARD, SOFT = 0.0, None


def imported(network: nn.Module) -> nn.Module:
    """Without the warning where it must come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sf.from_spikingjelly(network)


def sequence(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1)


def half_gain(norm: nn.Module) -> nn.Module:
    """Makes it 2 (u - 0.5) + 0.25."""
    norm.eps, norm.running_mean[:], norm.weight.data[:], norm.bias.data[:] = 0.0, 0.5, 2.0, 0.25
    return norm


def mpbn_node() -> nn.Module:
    node = jelly.MPBNLIFNode(nn.BatchNorm1d(1))
    half_gain(node.vbn)
    return node.eval()


# A potential that meets the threshold fires; each row has one that does.
@pytest.mark.parametrize(
    ("node", "currents", "spikes"),
    [
        # u = 0.5, 1.0 fires, 0.25, 1.125 fires, 1.5 fires
        (jelly.LIFNode(decay_input=False), [0.5, 0.75, 0.25, 1.0, 1.5], [0, 1, 0, 1, 1]),
        # u = 1.5 fires, 0.75: nothing is left
        (jelly.LIFNode(decay_input=False), [1.5, 0.75], [1, 0]),
        # u = 1.5 fires and leaves 0.5, then 0.25 + 0.75 = 1.0 fires
        (jelly.LIFNode(decay_input=False, v_reset=SOFT), [1.5, 0.75], [1, 1]),
        # u = 2 / 2 fires; 1 / 2; 0.5 + (1.5 - 0.5) / 2 = 1.0 fires
        (jelly.LIFNode(), [2.0, 1.0, 1.5], [1, 0, 1]),
        # u = 3 / 2 fires and leaves 0.5; 0.5 + (1.5 - 0.5) / 2 = 1.0 fires and leaves 0; 0.5
        (jelly.LIFNode(v_reset=SOFT), [3.0, 1.5, 1.0], [1, 1, 0]),
        # 3 / 3 fires; 2 / 3; 2 / 3 + (1 - 2 / 3) / 3 = 7 / 9; + (3 - 7 / 9) / 3 = 1.52 fires
        (jelly.LIFNode(tau=3.0), [3.0, 2.0, 1.0, 3.0], [1, 0, 0, 1]),
        (jelly.IFNode(), [0.25, 0.5, 0.25, 0.875], [0, 0, 1, 0]),
        # sigmoid(0) = 1 / 2: tau is 2
        (jelly.ParametricLIFNode(0.0, decay_input=False), [0.5, 0.75, 0.25], [0, 1, 0]),
        (jelly.ParametricLIFNode(0.0), [2.0, 1.0, 1.5], [1, 0, 1]),
        # h = 0.25; u = 0.125 + 0.5, h = 0.5; u = 0.25 + 0.625, h = 1.0 fires; u = 0.85, h = 0.95
        # (had the raw potential been carried on, the second h were 0.75)
        (mpbn_node(), [0.5, 0.5, 0.625, 0.85], [0, 0, 1, 0]),
        # as before, but u = 0.25 + 0.6, h = 0.95: the raw one, 0.375 + 0.6, h = 1.2, would fire
        (mpbn_node(), [0.5, 0.5, 0.6], [0, 0, 0]),
    ],
)  # fmt: skip
def test_by_hand(node: nn.Module, currents: list[float], spikes: list[int]) -> None:
    x = sequence(*currents)
    assert node(x).flatten().tolist() == spikes  # the stand-in does what is published
    made = imported(node)
    for backend in ("reference", "fused"):
        with sf.backend(backend):
            assert made(x).flatten().tolist() == spikes


def test_theta_is_the_number_before_the_threshold_and_the_reset_subtracts_the_threshold() -> None:
    for threshold in (1.0, 0.7, 0.1, -0.3):
        made = imported(jelly.IFNode(v_threshold=threshold, v_reset=SOFT))
        assert isinstance(made, sf.FoldedLIF)
        exact = torch.tensor(threshold)
        assert made.theta == torch.nextafter(exact, torch.tensor(-torch.inf))
        assert made.constants.threshold == threshold
        assert (made.constants.reset, made.constants.decay) == ("soft", 1.0)
        double = imported(
            nn.Sequential(jelly.IFNode(v_threshold=threshold), nn.Linear(1, 1)).double()
        )
        exact = torch.tensor(threshold, dtype=torch.float64)
        assert double[0].theta == torch.nextafter(exact, exact - 1)


NODES: list[tuple[type, dict[str, Any]]] = [
    (jelly.IFNode, {}),
    *((jelly.LIFNode, {"tau": tau, "decay_input": d}) for tau in (2.0, 3.7) for d in (True, False)),
    *((jelly.ParametricLIFNode, {"w": 0.3, "decay_input": d}) for d in (True, False)),
]


@pytest.mark.parametrize("reset", [HARD, SOFT])
@pytest.mark.parametrize(("kind", "options"), NODES)
@pytest.mark.parametrize("shape", [(1, 2, 3), (8, 3, 5, 7, 1)])
def test_spikes_and_gradients_of_the_equations(
    kind: type, options: dict[str, Any], reset: float | None, shape: tuple[int, ...]
) -> None:
    surrogates = jelly.Sigmoid(3.0), jelly.ATan(), jelly.PiecewiseQuadratic(0.8), jelly.Rect()
    for index, surrogate in enumerate(surrogates):
        constants = {"surrogate_function": surrogate, "detach_reset": index % 2 == 0}
        node = kind(v_threshold=0.6, v_reset=reset, **constants, **options)
        made = imported(nn.Sequential(node, jelly.Linear(1, 2)).double())[0]
        x = torch.randn(shape, dtype=torch.float64).requires_grad_()
        theirs, ours = node(x), made(x)
        assert torch.equal(theirs, ours)
        weight = torch.randn(shape, dtype=torch.float64)
        expected, *_ = torch.autograd.grad((theirs * weight).sum(), x)
        found, *_ = torch.autograd.grad((ours * weight).sum(), x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert shape[0] == 1 or 0.01 < theirs.mean() < 0.9


def test_ties_on_a_grid_are_decided_alike() -> None:
    """Currents in eighths of the threshold: thousands of potentials meet it."""
    x = torch.randint(-8, 9, (4, 50, 64)) / 4
    met = 0
    for kind, options in ((jelly.IFNode, {}), (jelly.LIFNode, {"decay_input": False})):
        for reset in (HARD, SOFT):
            node = kind(v_reset=reset, **options)
            assert torch.equal(node(x), imported(node)(x))
            jelly.rest(node)
            just_below = kind(v_reset=reset, v_threshold=1 + 2**-20, **options)
            met += int((just_below(x) != node(x)).sum())
    assert met > 1000


def random_norm(norm: nn.Module) -> None:
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias, norm.running_mean):
            parameter.normal_()
        norm.running_var.uniform_(0.3, 2)


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("reset", [HARD, SOFT])
@pytest.mark.parametrize("spatial", [(), (5, 3)])
def test_an_mpbn_node_carries_the_normalized_potential(
    decay_input: bool, reset: float | None, spatial: tuple[int, ...]
) -> None:
    vbn = nn.BatchNorm2d(6) if spatial else nn.BatchNorm1d(6)
    node = jelly.MPBNLIFNode(vbn, decay_input, tau=1.7, v_threshold=0.4, v_reset=reset)
    random_norm(vbn)
    assert (vbn.weight < 0).any()
    network = nn.Sequential(node).double().eval()
    x = torch.randn(5, 40, 6, *spatial, dtype=torch.float64).requires_grad_()
    made = imported(network)
    theirs, ours = network(x), made(x)
    assert torch.equal(theirs, ours)
    assert torch.equal(made.train()(x), ours)  # it stays what it is
    expected, *_ = torch.autograd.grad(theirs.sum(), x)
    found, *_ = torch.autograd.grad(ours.sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    if not decay_input:  # the paper's neuron with the same constants is another
        paper = sf.LIF(sf.MPBN(6), decay=1 - 1 / 1.7, threshold=0.4, reset="soft")
        paper.norm.load_state_dict(vbn.state_dict())
        assert (paper.double().eval()(x) != ours).double().mean() > 0.01


def test_an_mpbn_node_with_thresholds_a_channel() -> None:
    node = jelly.MPBNLIFNode(nn.Identity())
    node.fold_bn, node.eps = True, 1e-5
    node.mu, node.sigma2 = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([1.0, 0.5, 2.0])
    node.gamma, node.beta = torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.0, 0.1, 0.2])
    made = imported(node)
    theta = (1.0 - node.beta) * torch.sqrt(node.sigma2 + 1e-5) / node.gamma + node.mu
    assert torch.equal(made.theta, torch.nextafter(theta, torch.tensor(-torch.inf)))
    assert bool((made.polarity == 1).all())
    node.normalize_residual = True
    with pytest.raises(AdoptError, match="normalize_residual=True has no counterpart"):
        sf.from_spikingjelly(node)
    learnt = jelly.MPBNLIFNode(nn.Identity())
    learnt.learnable_vth, learnt.a = True, nn.Parameter(torch.rand(3))
    theta = torch.nextafter(learnt.a.detach().exp(), torch.zeros(()))
    assert torch.equal(imported(learnt).theta, theta)
    # re-parameterized after that
    node.normalize_residual, node.v_threshold, node.v_reset = False, torch.ones(3), SOFT
    with pytest.raises(AdoptError, match="a soft reset by a threshold for each channel"):
        sf.from_spikingjelly(node)


class Net(nn.Module):
    """Of a user: images in, shown for four steps; layers in every form."""

    def __init__(self, reset: float | None = HARD) -> None:
        super().__init__()
        constants: dict[str, Any] = {"v_reset": reset, "v_threshold": 0.5, "decay_input": False}
        self.conv = jelly.Conv2d(3, 6, 3)
        self.norm = jelly.BatchNorm2d(6)
        self.node = jelly.LIFNode(**constants)
        self.row = nn.Sequential(jelly.AvgPool2d(2), jelly.Conv2d(6, 6, 3, padding=1))
        self.plain = jelly.SeqToANNContainer(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))
        single = jelly.LIFNode(step_mode="s", **constants)
        self.looped = jelly.MultiStepContainer(nn.Conv2d(6, 4, 1), single)
        self.drop = jelly.Dropout(0.5)
        self.head = nn.Sequential(jelly.Flatten(), jelly.Linear(4 * 6 * 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).repeat(4, 1, 1, 1, 1)
        x = self.row(self.node(self.norm(self.conv(x))))
        x = self.drop(self.looped(x + self.plain(x)))
        return self.head(x).mean(0)


def trained(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            random_norm(module)
    return network.eval()


@pytest.mark.parametrize("reset", [HARD, SOFT])
def test_a_network_of_ones_own(reset: float | None) -> None:
    network = trained(Net(reset))
    x = torch.randn(3, 3, 14, 9)
    before = copy.deepcopy(network.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # tau is 2: nothing is rounded otherwise
        made = sf.from_spikingjelly(network)
    assert type(made) is Net
    assert not any(type(module).__module__.startswith("spikingj") for module in made.modules())
    theirs: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda module, inputs, output: theirs.__setitem__(name, output)

    def see(name: str, call: Call) -> None:
        ours[name] = call.fired.spikes

    handles = [
        network.node.register_forward_hook(note("node")),
        network.looped.register_forward_hook(note("looped.1")),
    ]
    with torch.no_grad(), observing(made, see):
        logits, expected = made(x), network(x)
    for handle in handles:
        handle.remove()
    assert theirs.keys() == ours.keys()
    for name, spikes in theirs.items():
        assert torch.equal(spikes, ours[name]), name
        assert 0.05 < spikes.mean() < 0.95, name
    assert torch.equal(logits, expected)
    # the original is untouched, and nothing is shared
    made.train()(x).sum().backward()
    torch.optim.SGD(made.parameters(), 0.1).step()
    for key, value in network.state_dict().items():
        assert torch.equal(before[key], value), key


def test_calls_start_at_rest_and_what_a_node_holds_does_not_matter() -> None:
    network = trained(Net())
    x = torch.randn(3, 3, 14, 9)
    network(x).sum().backward()  # potentials with a history
    made = sf.from_spikingjelly(network)
    jelly.rest(network)
    expected = network(x)
    assert torch.equal(made(x), expected)
    assert torch.equal(made(x), expected)


def test_it_can_be_followed_fused_and_verified() -> None:
    made = sf.from_spikingjelly(trained(Net()).double())
    kinds = [node.kind for node in sf.graph(nn.Sequential(made.node, made.row)).nodes]
    assert kinds == ["input", "neurons", "pool", "connection", "output"]
    fused = sf.fuse_conv_bn(made)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    record = sf.verify(made, fused, [torch.randn(3, 3, 14, 9, dtype=torch.float64)])
    assert record.spikes == 4 * 3 * (6 * 12 * 7 + 4 * 6 * 3)
    assert record.mismatches == 0


def test_dropout_is_the_same_at_all_steps() -> None:
    made = sf.from_spikingjelly(nn.Sequential(jelly.Dropout(0.5), jelly.IFNode()))[0]
    x = torch.ones(4, 2, 50)
    dropped = made.train()(x)
    assert torch.equal(dropped, dropped[:1].expand_as(x))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(made.eval()(x), x)


def test_what_is_rounded_otherwise_is_measured_and_said() -> None:
    row = [jelly.LIFNode(tau=3.0) for _ in range(5)]
    with pytest.warns(UserWarning, match="rounded otherwise") as caught:
        sf.from_spikingjelly(nn.Sequential(*row, jelly.IFNode()))
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith(
        "from_spikingjelly: '0' (LIFNode), '1' (LIFNode), '2' (LIFNode) and 2 "
    )
    share, decisions = re.search(r"([\d.]+)% of 80,000 .* and (\d+) of", message).groups()
    assert 10 < float(share) < 60
    assert int(decisions) < 5
    with pytest.warns(UserWarning, match="surrogate Erf has no counterpart"):
        sf.from_spikingjelly(jelly.IFNode(surrogate_function=jelly.Erf()))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.node = jelly.IFNode()

    def forward(self, x: Tensor) -> Tensor:
        return self.node(self.node(x))


class Noting(nn.Module):
    """Keeps what it saw, as some do to look at it later."""

    def __init__(self) -> None:
        super().__init__()
        self.node = jelly.IFNode()

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.node(x)
        return self.seen


def test_nothing_of_the_walk_stays_in_the_network() -> None:
    made = sf.from_spikingjelly(Noting())
    assert "seen" not in vars(made)
    other = sf.from_spikingjelly(Noting())
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(torch.ones(2, 3, 1)), torch.ones(2, 3, 1))


class Own(jelly.LIFNode):
    pass


def with_hook() -> nn.Module:
    node = jelly.IFNode()
    node.register_forward_hook(lambda *_: None)
    return node


def nested() -> nn.Module:
    inner = nn.Sequential(jelly.IFNode(step_mode="s"))
    return jelly.MultiStepContainer(nn.Linear(2, 2), inner)


def of_precision() -> nn.Module:
    node = jelly.IFNode()
    node._neuron_precision = ("fp16", "fp32", "fp32")
    return node


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(jelly.LIFNode(v_reset=-0.1)), "'0' (LIFNode): v_reset=-0.1: only 0.0"),
        (nn.ModuleDict({"sn": jelly.IFNode(step_mode="s")}), "'sn' (IFNode) is in single-step"),
        (nn.Sequential(jelly.IzhikevichNode()), "'0' (IzhikevichNode): SpikingJelly's Izhikevich"),
        (Own(), "the Own is a subclass of SpikingJelly's LIFNode"),
        (with_hook(), "it carries hooks"),
        (nn.Sequential(jelly.IFNode(surrogate_function=jelly.Sigmoid(spiking=False))),
         "its surrogate does not fire as a step does"),
        (of_precision(), "has a precision of its own"),
        (nested(), "'1' holds nodes, which must stand in it directly"),
        (Twice(), "'node' is called more than once in a forward"),
        (nn.Linear(2, 2), "a Linear has none of its modules"),
        (nn.Sequential(nn.Linear(2, 2), jelly.IFNode()).half(), "torch.float16, not float32 or"),
        (nn.Sequential(nn.Linear(2, 2), jelly.Linear(2, 2).double()), "torch.float32, torch.float"),
        (jelly.Sigmoid(), "SpikingJelly's Sigmoid has no counterpart here"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(network: nn.Module, message: str) -> None:
    with pytest.raises(AdoptError) as raised:
        sf.from_spikingjelly(network)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("as_user")
def test_a_node_of_another_version() -> None:
    node = jelly.LIFNode()
    del node.decay_input
    with pytest.raises(AdoptError, match=r"is none of SpikingJelly 2.0.0: .*decay_input"):
        sf.from_spikingjelly(node)
