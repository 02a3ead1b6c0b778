"""Earlier names work, and say what to write instead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import spikefold as sf
from spikefold import dynamics

X = torch.tensor([1.0, 0.1, 2.0]).reshape(3, 1, 1)
NEURON = sf.Neuron(decay=0.5, threshold=0.7)
THETA = dynamics.Condition(theta=torch.ones(1, 1))


def old(name: str) -> Any:
    return getattr(dynamics, name)


def spikes(fired: dynamics.Fired) -> list[float]:
    return fired.spikes.flatten().tolist()


def as_attribute() -> Any:
    return sf.LIF(**vars(NEURON)).neuron.threshold


def as_argument(make: Callable[..., sf.SpikingNeuron], *args: Any) -> Any:
    return make(*args, neuron=NEURON).constants.threshold


# u = 1, 0.1, 2.05 with a reset after the first and the last step
CURRENTS, PLAIN = dynamics.Currents.of(X), dynamics.PLAIN
USES: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "attribute": (as_attribute, 0.7, "SpikingNeuron.neuron is now called constants"),
    "FoldedLIF": (lambda: as_argument(sf.FoldedLIF, THETA), 0.7, "argument neuron is now called"),
    "LIF.of": (lambda: as_argument(sf.LIF.of), 0.7, "LIF.of: the argument neuron"),
    "SpikingNeuron": (lambda: as_argument(sf.SpikingNeuron), 0.7, "argument neuron is now called"),
    "integrate": (
        lambda: spikes(dynamics.integrate(X, PLAIN, neuron=NEURON)),  # type: ignore[call-arg]
        [1, 0, 1],
        "integrate: the argument neuron is now called constants",
    ),
    "layer": (
        lambda: spikes(old("layer")(CURRENTS, PLAIN, NEURON)),
        [1, 0, 1],
        "dynamics.layer is now called spikefold.dynamics.simulate",
    ),
    "reference_layer": (
        lambda: spikes(old("reference_layer")(CURRENTS, PLAIN, neuron=NEURON)),
        [1, 0, 1],
        "reference_layer is now called spikefold.dynamics.simulate_reference",
    ),
    "discharge": (
        lambda: old("discharge")(X[0], torch.ones(1, 1), sf.Neuron(reset="soft")).item(),
        0.5,
        "discharge is now called spikefold.dynamics.reset",
    ),
}


@pytest.mark.parametrize("use", USES)
def test_an_earlier_name_does_what_it_did(use: str) -> None:
    run, expected, message = USES[use]
    with pytest.warns(DeprecationWarning, match=message):
        assert run() == expected


def test_statistics_under_their_earlier_names() -> None:
    one = torch.ones(1, 1)
    norm = dynamics.Normalization(one, one, 1e-5)
    x = torch.randn(2, 5, 1)
    fired: Any = dynamics.integrate(x, dynamics.Condition(norm), NEURON)
    with pytest.warns(DeprecationWarning, match=r"Fired\.potential .* potential_statistics"):
        assert fired.potential.mean[0].item() == pytest.approx(x[0].mean().item())
    fired = dynamics.simulate_reference(dynamics.Currents(x, 2, norm), PLAIN, NEURON)
    with pytest.warns(DeprecationWarning, match=r"Fired\.current .* current_statistics"):
        assert fired.current.mean[0].item() == pytest.approx(x.mean().item())


def test_what_is_set_under_an_earlier_name_counts() -> None:
    lif = sf.LIF()
    with pytest.warns(DeprecationWarning, match="constants"):
        lif.neuron = sf.Neuron(threshold=100.0)  # type: ignore[assignment]
    assert lif.constants.threshold == 100
    assert lif(X).sum() == 0


def test_an_argument_under_both_names() -> None:
    renamed = pytest.warns(DeprecationWarning, match="constants")
    with renamed, pytest.raises(TypeError, match="give one of them"):
        sf.LIF.of(neuron=NEURON, constants=NEURON)  # type: ignore[call-arg]


def test_a_name_that_never_was() -> None:
    with pytest.raises(AttributeError, match=r"'spikefold.dynamics' has no attribute 'layers'"):
        old("layers")
