"""snnTorch's Leaky in rows of layers, against traces by hand and its equations."""

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import AdoptError
from tests.adopt.standins import Leaky, as_if_from


def stepped(network: nn.Module, x: Tensor) -> Tensor:
    """A loop over time steps, as their tutorials have it."""
    spikes = [network(x_t) for x_t in x]
    return torch.stack([s[0] if isinstance(s, tuple) else s for s in spikes])


# A potential that meets the threshold does not fire.
@pytest.mark.parametrize(
    ("options", "currents", "spikes"),
    [
        # u = 0.5, 1.0, 1.25 fires; nothing is left: 0.75, 1.125 fires
        ({"reset_mechanism": "zero"}, [0.5, 0.75, 0.75, 0.75, 0.75], [0, 0, 1, 0, 1]),
        ({"reset_mechanism": "zero", "reset_delay": False}, [0.5, 0.75, 0.75, 0.75], [0, 0, 1, 0]),
        # u = 1.5 fires and leaves 0.5; 0.25 + 0.75 = 1.0; 0.5 + 0.625 = 1.125 fires
        ({"reset_delay": False}, [1.5, 0.75, 0.625], [1, 0, 1]),
    ],
)
def test_by_hand(options: dict[str, Any], currents: list[float], spikes: list[int]) -> None:
    leaky, x = Leaky(0.5, **options), torch.tensor(currents).view(-1, 1, 1)
    assert stepped(leaky, x).flatten().tolist() == spikes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = sf.from_snntorch(leaky)
    assert type(made) is sf.LIF
    assert made(x).flatten().tolist() == spikes


@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("beta", [0.9, 0.37, 1.3])
@pytest.mark.parametrize("steps", [1, 8])
def test_a_row_of_layers(delay: bool, beta: float, steps: int) -> None:
    def leaky(**options: Any) -> Leaky:
        reset = {"reset_mechanism": "zero", "reset_delay": delay}
        return Leaky(beta, 0.7, **reset, **options)

    inner = nn.Sequential(nn.Conv2d(3, 5, 3), leaky(), nn.AvgPool2d(2))
    network = nn.Sequential(inner, nn.Flatten(), nn.Linear(90, 11), leaky(output=True)).eval()
    for layer in (inner[0], network[2]):
        layer.weight.data *= 3
    x = torch.randn(steps, 6, 3, 15, 8)
    before = copy.deepcopy(network.state_dict())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the surrogate of the stand-in
        made = sf.from_snntorch(network)
        expected = stepped(network, x)
        assert torch.equal(made(x), expected)
    assert 0.05 < expected.mean() < 0.9
    assert [name for name, _ in made.named_children()] == ["0", "1", "2", "3"]
    made.train()(x).sum().backward()
    torch.optim.SGD(made.parameters(), 0.1).step()
    for key, value in network.state_dict().items():
        assert torch.equal(before[key], value), key


def test_a_potential_above_the_threshold_after_a_soft_reset_is_told() -> None:
    with pytest.warns(UserWarning) as said:  # noqa: PT030
        made = sf.from_snntorch(Leaky(0.9, reset_delay=False))
    message = next(str(w.message) for w in said if "only while" in str(w.message))
    differ, of = re.search(r"([\d,]+) of ([\d,]+) decisions on random", message).groups()
    assert of == "80,000"
    assert 100 < int(differ.replace(",", "")) < 8000
    # u = 3, v = 2: theirs subtracts 1 more, u = 2 0.9 - 1 + 0 = 0.8, and gives nothing back
    x = torch.tensor([3.0, 0.0]).view(2, 1, 1)
    assert stepped(Leaky(0.9, reset_delay=False), x).flatten().tolist() == [1, 0]
    assert made(x).flatten().tolist() == [1, 1]


def test_gradients_are_those_of_the_surrogate() -> None:
    """Theirs knows its argument by a closure, as here."""

    def atan(alpha: float) -> Any:
        def inner(z: Tensor) -> Tensor:
            return (z > 0).float() + 0 * alpha

        return inner

    function = atan(1.5)
    function.__qualname__, function.__module__ = "atan.<locals>.inner", "snntorch.surrogate"
    leaky = Leaky(0.9, reset_mechanism="zero", spike_grad=function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = sf.from_snntorch(leaky)
    assert made.constants.surrogate == sf.Atan(1.5)
    assert made.constants.detach_reset
    leaky = Leaky(0.9, reset_mechanism="zero", reset_delay=False)
    with pytest.warns(UserWarning, match="gradients are those of Tanh"):
        assert not sf.from_snntorch(leaky).constants.detach_reset


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = Leaky(0.9, reset_mechanism="zero")

    def forward(self, x: Tensor) -> Tensor:
        return stepped(self.lif, x)


@as_if_from("snntorch._neurons.synaptic")
class Synaptic(Leaky):
    pass


def zero(**options: Any) -> Leaky:
    return Leaky(0.9, reset_mechanism="zero", **options)


SHARED = zero()


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(Leaky(0.9)), "'0' (Leaky): with reset_mechanism='subtract' and reset_delay"),
        (Leaky(0.9, reset_mechanism="none"), "reset_mechanism='none' has no counterpart"),
        (nn.Sequential(Synaptic(0.9)), "'0' (Synaptic): only snnTorch's Leaky has a counterpart"),
        (Looping(), "the Looping has a forward of its own"),
        (nn.Sequential(nn.Linear(2, 2), Looping()), "'1' (Looping) has a forward of its own"),
        (zero(inhibition=True), "inhibition has no counterpart"),
        (zero(state_quant=lambda mem: mem), "state_quant has no counterpart"),
        (zero(graded_spikes_factor=torch.tensor(2.0)), "graded_spikes_factor has no counterpart"),
        (zero(threshold=-0.5, reset_delay=False), "threshold=-0.5 and reset_delay=False"),
        (zero(threshold=torch.ones(3)), "threshold of shape [3]: only one for the layer"),
        (nn.Sequential(zero(output=True), nn.Linear(2, 2)), "'0' (Leaky): output=True"),
        (nn.Sequential(SHARED, nn.Linear(2, 2), SHARED), "'0' stands in several places"),
        (zero(spike_grad=torch.sigmoid), "its surrogate does not fire as a step does"),
        (nn.Linear(2, 2), "a Linear has none of its neurons"),
    ],
)  # fmt: skip
def test_what_has_no_exact_counterpart_is_refused_by_name(network: nn.Module, message: str) -> None:
    with pytest.raises(AdoptError) as raised:
        sf.from_snntorch(network)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("as_user")
def test_a_neuron_of_another_version() -> None:
    leaky = zero()
    del leaky.inhibition
    with pytest.raises(AdoptError, match=r"is none of snnTorch 1.0.0: .*inhibition"):
        sf.from_snntorch(leaky)
