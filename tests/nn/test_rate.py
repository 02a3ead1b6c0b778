"""MPBN that begins at a firing rate, against counted spikes and the error function."""

import math

import pytest
import torch

import spikefold as sf
from spikefold.errors import ConfigError


@pytest.mark.parametrize("threshold", [0.5, 1.0, -0.25])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("steps", [None, 3])
def test_normal_potentials_fire_at_the_rate_asked_for(
    rate: float, threshold: float, steps: int | None
) -> None:
    norm = sf.MPBN(4, rate=rate, threshold=threshold, steps=steps)
    neuron = sf.LIF(norm, threshold=threshold, decay=0.0)
    spikes = neuron(7 + 3 * torch.randn(3, 200, 4, 20, 20))  # whatever their mean and deviation
    assert spikes.mean().item() == pytest.approx(rate, abs=0.004)
    # the share of N(beta, 1) above the threshold
    above = 0.5 * math.erfc((threshold - norm.bias.flatten()[0].item()) / math.sqrt(2))
    assert above == pytest.approx(rate, rel=1e-5)


def test_it_is_only_where_training_begins() -> None:
    plain, sparse = sf.MPBN((2, 3, 3)), sf.MPBN((2, 3, 3), rate=0.1)
    assert plain.state_dict().keys() == sparse.state_dict().keys()
    assert torch.equal(plain.bias, torch.zeros(2, 3, 3))
    assert sparse.bias.requires_grad
    per_step = sf.MPBN(2, rate=0.1).per_step(3)
    assert torch.equal(per_step.bias, sf.MPBN(2, rate=0.1, steps=3).bias)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"rate must lie in \(0, 1\)"):
        sf.MPBN(4, rate=rate)


def test_what_would_begin_elsewhere_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs affine=True"):
        sf.MPBN(4, rate=0.1, affine=False)
    for kind in (sf.LIF, sf.PLIF, sf.IF):
        with pytest.raises(ConfigError, match=r"threshold 0.5, but the neurons fire above 1.0"):
            kind(sf.MPBN(4, rate=0.1), threshold=1.0)
