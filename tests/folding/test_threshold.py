"""Bisection over the ordered floats."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikefold.folding import from_ordinal, last_silent, to_ordinal

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=20))
def test_ordinals_are_ordered_and_consecutive(values: list[float]) -> None:
    u = torch.tensor(sorted(values), dtype=torch.float32)
    ordinals = to_ordinal(u)
    assert (ordinals.diff() >= 0).all()
    assert torch.equal(from_ordinal(ordinals, torch.float32), u)
    above = np.nextafter(u.numpy(), np.float32(np.inf))  # the neighbour, by another library
    inside = torch.from_numpy(np.isfinite(above))
    expected = to_ordinal(torch.from_numpy(above))[inside]
    assert torch.equal(expected, ordinals[inside] + 1)


@given(st.lists(finite, min_size=1, max_size=8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finds_any_threshold(dtype: torch.dtype, values: list[float]) -> None:
    theta = torch.tensor(values, dtype=dtype)
    found = last_silent(lambda u: u > theta, theta.shape, dtype, theta.device)
    limit = torch.finfo(dtype)
    never = torch.full_like(theta, torch.inf)  # nothing finite is above the largest float
    assert torch.equal(found, torch.where(theta == limit.max, never, theta))
    # one that fires at its threshold is silent up to the float before
    found = last_silent(lambda u: u >= theta, theta.shape, dtype, theta.device)
    expected = torch.nextafter(theta, torch.full_like(theta, -torch.inf))
    assert torch.equal(found[theta > limit.min], expected[theta > limit.min])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_neurons_have_infinite_thresholds(dtype: torch.dtype) -> None:
    always = torch.tensor([True, False])
    found = last_silent(lambda u: always, always.shape, dtype, always.device)
    assert found.tolist() == [-torch.inf, torch.inf]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_at_the_ends_of_the_finite_numbers(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    ends = torch.tensor([-top, top], dtype=dtype)
    found = last_silent(lambda u: u > ends, ends.shape, dtype, ends.device)
    assert found[0].item() == -top
    assert found[1].item() == torch.inf  # fires at no finite potential
    found = last_silent(lambda u: u >= ends, ends.shape, dtype, ends.device)
    assert found[0].item() == -torch.inf
    assert found[1] == torch.nextafter(ends[1], ends[0])
