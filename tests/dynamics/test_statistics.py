"""Statistics of each step's currents by compiled code, against the same in float64."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikefold import dynamics
from spikefold.dynamics import Condition, Currents, Neuron, Normalization
from spikefold.dynamics._kernels import _cpu, _statistics, statistics_of_steps

pytestmark = pytest.mark.usefixtures("kernels_only", "compiled_only")


@pytest.fixture
def compiled_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No silent fall-back to torch's statistics."""

    def refuse(*_: object) -> None:
        raise AssertionError("the reference was asked")

    monkeypatch.setattr(_statistics, "reference", refuse)


def last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": last,
    "a part": lambda x: torch.cat([x, x + 9], 3 if x.ndim > 3 else 1).narrow(
        3 if x.ndim > 3 else 1, 0, x.shape[3 if x.ndim > 3 else 1]
    ),
    "steps apart": lambda x: torch.stack([x, x + 9], 1)[:, 0],
    "the same step": lambda x: x[:1].expand_as(x),
}


@given(
    shape=st.tuples(
        st.integers(1, 4),
        st.integers(2, 7),
        st.integers(1, 40),
        st.lists(st.integers(1, 19), max_size=2),
    ).map(lambda sizes: (*sizes[:3], *sizes[3])),
    layout=st.sampled_from(sorted(LAYOUTS)),
    offset=st.sampled_from([0.0, 30.0]),
    instructions=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=300)
def test_mean_variance_and_gradient_are_those_of_float64(
    shape: tuple[int, ...], layout: str, offset: float, instructions: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x = LAYOUTS[layout](torch.randn(shape) + offset).requires_grad_()
    weights = torch.randn(2, *shape[:1], *shape[2:3], dtype=torch.float64)
    _cpu.native.limit_instruction_set(instructions)
    try:
        mean, variance, samples = statistics_of_steps(x)
        both = (weights[0] * mean).sum() + (weights[1] * variance).sum()
        (grad,) = torch.autograd.grad(both, x)
    finally:
        _cpu.native.limit_instruction_set(2)

    values = x.detach().double().transpose(1, 2).flatten(2)
    assert samples == values.shape[2]
    torch.testing.assert_close(mean.double(), values.mean(2), rtol=1e-6, atol=1e-6)
    right = values.var(2, correction=0)
    torch.testing.assert_close(variance.double(), right, rtol=1e-5, atol=1e-6)
    centered = values - values.mean(2, keepdim=True)
    expected = (weights[0][..., None] + 2 * weights[1][..., None] * centered) / samples
    expected = expected.unflatten(2, (shape[1], -1)).transpose(1, 2).reshape(shape)
    # a value as large as the offset is a rounding of that size off
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-6 * (1 + offset))


def test_a_layer_with_statistics_of_its_own_for_each_step_asks_no_torch() -> None:
    one, x = torch.ones(3, 5), torch.randn(3, 4, 5, 6, 6, requires_grad=True)
    for over in ("each", "past", "all"):
        currents = Currents(x, 3, Normalization(one, one, 1e-5, over=over))
        fired = dynamics.simulate(currents, Condition(), Neuron())
        fired.spikes.sum().backward()
        assert x.grad is not None


def loss(x: Tensor, statistics: Any = statistics_of_steps) -> Tensor:
    mean, variance, _ = statistics(x)
    weights = torch.arange(mean.numel()).view(mean.shape)
    return (weights * (mean + variance * variance)).sum()


def as_torch(x: Tensor) -> Any:
    variance, mean = torch.var_mean(x, dim=(1, *range(3, x.ndim)), correction=0)
    return mean, variance, None


def test_second_derivatives_are_torch_s() -> None:
    x = torch.randn(2, 3, 4, 5, 5, requires_grad=True)
    found = []
    for statistics in (statistics_of_steps, as_torch):
        (grad,) = torch.autograd.grad(loss(x, statistics), x, create_graph=True)
        found.append(torch.autograd.grad((grad**3).sum(), x)[0])
    assert found[1].abs().max() > 1e-4
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-7)


def test_a_default_dtype_is_not_that_of_the_statistics() -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = as_torch(x)
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found = statistics_of_steps(x)
        finally:
            torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(found[:2], expected[:2])


HOOKS: dict[str, tuple[Any, Any]] = {
    "other strides": (lambda t: torch.stack([t, t], -1), lambda t: t[..., 0]),
    "float64": (lambda t: t.double(), lambda t: t),
    "channels last": (lambda t: last(t) if t.ndim > 2 else t, lambda t: t),
    "shared memory": (lambda t: (t.flatten()[0], t.shape), lambda t: t[0].expand(t[1])),
}


@pytest.mark.parametrize("hooks", HOOKS)
def test_saved_tensors_may_come_back_lying_otherwise(hooks: str) -> None:
    x = torch.ones(2, 3, 4, 5) if hooks == "shared memory" else torch.randn(2, 3, 4, 5)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(loss(x, as_torch), x)
    with torch.autograd.graph.saved_tensors_hooks(*HOOKS[hooks]):
        found = statistics_of_steps(x)
    (grad,) = torch.autograd.grad(loss(x, lambda _: found), x)
    torch.testing.assert_close(grad.float(), expected)


def test_gradients_of_every_kind_are_taken() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    variance = statistics_of_steps(x).variance
    zeros = torch._efficientzerotensor(tuple(variance.shape))
    assert (torch.autograd.grad(variance, x, zeros, retain_graph=True)[0] == 0).all()
    many = torch.randn(6, *variance.shape)
    (found,) = torch.autograd.grad(variance, x, many, is_grads_batched=True)
    (right,) = torch.autograd.grad(as_torch(x)[1], x, many, is_grads_batched=True)
    torch.testing.assert_close(found, right)


def test_a_number_of_samples_that_is_known_is_told_on() -> None:
    assert statistics_of_steps(torch.randn(2, 3, 4), samples=99).samples == 99


def test_the_number_of_threads_does_not_matter() -> None:
    x = last(torch.randn(2, 64, 40, 8, 8)).requires_grad_()
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            mean, variance, _ = statistics_of_steps(x)
            grad = torch.autograd.grad((mean + variance * variance).sum(), x)
            found.append(torch.cat([mean.flatten(), variance.flatten(), grad[0].flatten()]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
