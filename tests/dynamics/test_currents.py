"""Normalizations of the currents that know time, against the same written out in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import Condition, Currents, Neuron, Normalization, Over
from spikefold.dynamics._layer import by_gain

EPS = 0.1
SHAPE = (3, 4, 5, 3, 2)


def make(over: Over, sets: int, shown: int, dtype: torch.dtype) -> tuple[Currents, list[Tensor]]:
    """Random currents with a norm by the batch, and what gets a gradient."""
    x = torch.randn(shown, *SHAPE[1:], dtype=torch.float64)
    gain, shift = torch.randn(2, sets, SHAPE[2], dtype=torch.float64)
    x, gain, shift = leaves = [v.to(dtype).requires_grad_() for v in (x, gain, shift)]
    return Currents(x, SHAPE[0], Normalization(gain, shift, EPS, over=over)), leaves


def restated(leaves: list[Tensor], over: Over) -> tuple[Tensor, Tensor, Tensor]:
    """The currents, mean and unbiased variance of each step."""
    x, gain, shift = leaves
    normalized, means, variances = [], [], []
    for t in range(SHAPE[0]):
        at, g, b = (value[min(t, len(value) - 1)] for value in (x, gain, shift))
        values = {"all": x, "each": at[None], "past": x[: t + 1]}[over]
        mean = values.mean((0, 1, 3, 4))
        variance = ((values - mean[:, None, None]) ** 2).mean((0, 1, 3, 4))
        root = (variance + EPS).sqrt()
        normalized.append((at - mean[:, None, None]) * (g / root)[:, None, None] + b[:, None, None])
        means.append(mean)
        variances.append(values.movedim(2, 0).flatten(1).var(1))
    return torch.stack(normalized), torch.stack(means), torch.stack(variances)


@pytest.mark.parametrize("shown", [1, 3])
@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("over", ["all", "each", "past"])
def test_the_currents_are_what_is_written_out(over: Over, sets: int, shown: int) -> None:
    currents, leaves = make(over, sets, shown, torch.float64)
    y, observed = dynamics.compute(currents)
    expected, mean, variance = restated(leaves, over)
    torch.testing.assert_close(y, expected)
    weights = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((z * weights).sum(), leaves) for z in (y, expected))
    torch.testing.assert_close(ours, theirs)
    assert observed is not None
    assert len(observed.mean) == (1 if over == "all" else SHAPE[0])
    assert observed.samples == 4 * 3 * 2 * (shown if over == "all" else 1)
    unbiased = observed.variance * observed.samples / (observed.samples - 1)
    torch.testing.assert_close(observed.mean.expand(3, 5), mean)
    torch.testing.assert_close(unbiased.expand(3, 5), variance)


@pytest.mark.usefixtures("kernels_only")
@pytest.mark.parametrize("shown", [1, 3])
@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("over", ["all", "each", "past"])
def test_kernels_go_on_from_statistics_they_do_not_take(over: Over, sets: int, shown: int) -> None:
    """Spikes, gradients and statistics as those of the reference in float64."""
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(1)
        currents, leaves = make(over, sets, shown, dtype)
        gain, shift = torch.randn(2, 1, 5, dtype=torch.float64).to(dtype).requires_grad_()
        condition = Condition(Normalization(gain, shift, EPS))
        shortcut = torch.randn(SHAPE, dtype=torch.float64).to(dtype)
        weights = torch.randn(SHAPE, dtype=torch.float64).to(dtype)
        run: Any = dynamics.simulate if dtype == torch.float32 else dynamics.simulate_reference
        fired = run(currents._replace(shortcut=shortcut), condition, Neuron())
        grads = torch.autograd.grad((fired.spikes * weights).sum(), leaves)
        found.append((fired.spikes, *fired.current_statistics[:2], *grads))
    assert 0.05 < found[0][0].mean() < 0.95
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)


def test_statistics_that_become_constant_leave_the_map_and_its_derivatives() -> None:
    parameters = [torch.rand(sets, 5, dtype=torch.float64) + 0.5 for sets in (3, 1, 1, 3)]

    x = torch.randn(SHAPE, dtype=torch.float64)
    gain, shift, *statistics = leaves = [p.requires_grad_() for p in parameters]
    norm = Normalization(gain, shift, EPS, dynamics.Statistics(*statistics))
    assert not by_gain(norm).fixed[0].requires_grad
    plain, ours = (dynamics.compute(Currents(x, 3, n))[0] for n in (norm, by_gain(norm)))
    assert torch.equal(plain, ours)
    weights = torch.randn_like(plain)
    found = [torch.autograd.grad((y * weights).sum(), leaves) for y in (plain, ours)]
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("as_user")
def test_a_statistic_of_one_value_is_refused() -> None:
    one = torch.ones(1, 3)
    for over, shape in (("each", (4, 1, 3)), ("past", (4, 1, 3)), ("all", (1, 1, 3))):
        norm = Normalization(one, one, EPS, over=over)
        for backend in ("fused", "reference"):
            with sf.backend(backend), pytest.raises(sf.ShapeError, match="larger batch"):
                dynamics.simulate(
                    Currents(torch.randn(shape), shape[0], norm), Condition(), Neuron()
                )
