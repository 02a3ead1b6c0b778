"""The equations against hand-calculated traces and an independent float64 implementation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import PLAIN, Condition, Neuron, Normalization, Statistics
from spikefold.errors import ConfigError, ShapeError
from tests.dynamics import reference


def column(*values: float) -> torch.Tensor:
    """A sequence of one neuron, [T, 1, 1]."""
    return torch.tensor(values).reshape(-1, 1, 1)


def test_hard_reset_by_hand() -> None:
    # decay 0.25, threshold 0.5
    # t   v before  x     u = v/4 + x   s   v after
    # 0   0         0.4   0.4           0   0.4
    # 1   0.4       0.4   0.5           0   0.5     (0.5 is not above 0.5)
    # 2   0.5       0.4   0.525         1   0
    # 3   0         0.4   0.4           0   0.4
    spikes, v, *_ = dynamics.integrate(column(0.4, 0.4, 0.4, 0.4), PLAIN, Neuron())
    assert spikes.flatten().tolist() == [0, 0, 1, 0]
    assert v.item() == pytest.approx(0.4)


def test_soft_reset_by_hand() -> None:
    # decay 0.5, threshold 1
    # 0   0         1.5   1.5           1   0.5
    # 1   0.5       1.0   1.25          1   0.25
    # 2   0.25      0.5   0.625         0   0.625
    # 3   0.625     2.5   2.8125        1   1.8125
    neuron = Neuron(decay=0.5, threshold=1.0, reset="soft")
    spikes, v, *_ = dynamics.integrate(column(1.5, 1.0, 0.5, 2.5), PLAIN, neuron)
    assert spikes.flatten().tolist() == [1, 1, 0, 1]
    assert v.item() == 1.8125


def test_integrate_and_fire_by_hand() -> None:
    # decay 1: the potential is the sum since the last spike
    x = column(0.25, 0.25, 0.25, 0.25)
    spikes, v, *_ = dynamics.integrate(x, PLAIN, Neuron(decay=1.0))
    assert spikes.flatten().tolist() == [0, 0, 1, 0]
    assert v.item() == 0.25


def test_normalized_neuron_resets_the_raw_potential_by_hand() -> None:
    # MPBN with mean 1, variance 4, gain 2, shift 0.25, eps 0: h = (u - 1) + 0.25 > 0.5 <=> u > 1.25
    # decay 0.5, threshold 0.5
    # t   v      x     u      h      hard: s, v       soft: s, v (u - 0.5 s)
    # 0   0      1.0   1.0    0.25   0, 1.0           0, 1.0
    # 1   1.0    1.0   1.5    0.75   1, 0             1, 1.0
    # 2   0|1    1.0   1|1.5         0, 1.0           1, 1.0
    # 3   1.0    0.5   1.0    0.25   0, 1.0           0, 1.0
    one = torch.ones(1, 1)
    x = column(1.0, 1.0, 1.0, 0.5)
    for reset, expected, last in (("hard", [0, 1, 0, 0], 1.0), ("soft", [0, 1, 1, 0], 1.0)):
        neuron = Neuron(decay=0.5, reset=reset)  # type: ignore[arg-type]
        fixed = Statistics(one, 4 * one)
        condition = Condition(Normalization(2 * one, 0.25 * one, 0.0, fixed))
        spikes, v, *_ = dynamics.integrate(x, condition, neuron)
        assert spikes.flatten().tolist() == expected
        assert v.item() == last


def test_folded_neuron_by_hand() -> None:
    theta, polarity = torch.tensor([[1.25, 1.25]]), torch.tensor([[1.0, -1.0]])
    x = torch.tensor([[[1.0, 1.0]], [[1.25, 1.25]], [[1.5, 1.5]]])
    condition = Condition(None, theta, polarity)
    assert dynamics.integrate(x, condition, Neuron(decay=0.0)).spikes[:, 0].tolist() == [
        [0, 1],
        [0, 0],
        [1, 0],
    ]


def test_thresholds_of_each_step_by_hand() -> None:
    # the same potential at every step; theta rises, then the polarity turns
    theta = torch.tensor([[0.5], [1.0], [1.5], [1.5]])
    polarity = torch.tensor([[1.0], [1.0], [1.0], [-1.0]])
    condition = Condition(None, theta, polarity)
    x = column(1.0, 1.0, 1.0, 1.0)
    fired = dynamics.integrate(x, condition, Neuron(decay=0.0))
    assert fired.spikes.flatten().tolist() == [1, 0, 0, 1]
    later = dynamics.integrate(x[2:], condition.part(2, 2), Neuron(decay=0.0))
    assert later.spikes.flatten().tolist() == [0, 1]


def test_a_decay_a_channel_and_its_gradient_by_hand() -> None:
    # soft reset by 0: u[t] = d u[t-1] + 1; three steps: u = 1, 1 + d, 1 + d + d²
    # loss v = u[2]; dv/dd = 1 + 2 d
    decay = torch.tensor([0.5, 0.25], requires_grad=True)
    neuron = Neuron(threshold=100.0)
    fired = dynamics.integrate(torch.ones(3, 1, 2), PLAIN, neuron, decay=decay)
    assert fired.v.tolist() == [[1.75, 1.3125]]
    fired.v.sum().backward()
    assert decay.grad is not None
    assert decay.grad.tolist() == [2.0, 1.5]


shapes = st.sampled_from(
    [(1, 3, 2, 3, 3), (4, 5, 3), (3, 2, 1, 1, 5), (2, 1, 3, 4, 2), (8, 3, 2, 7)]
)


@given(
    shape=shapes,
    soft=st.booleans(),
    detach=st.booleans(),
    element=st.booleans(),
    decay=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_training_equals_an_independent_float64_implementation(
    shape: tuple[int, ...], soft: bool, detach: bool, element: bool, decay: float, seed: int
) -> None:
    if element and shape[1] == 1:
        shape = (shape[0], 2, *shape[2:])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    parameter_shape = shape[2:] if element else shape[2:3]
    gamma, beta = (
        torch.randn(parameter_shape, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    )
    neuron = Neuron(decay, 0.5, "soft" if soft else "hard", detach_reset=detach)
    condition = Condition(Normalization(gamma[None], beta[None], 1e-5))
    fired = dynamics.integrate(x, condition, neuron)
    assert fired.potential_statistics is not None
    spikes, (means, variances, samples) = fired.spikes, fired.potential_statistics
    weights = torch.randn(shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((spikes * weights).sum(), (x, gamma, beta))

    broadcast = parameter_shape + (1,) * (len(shape) - 2 - len(parameter_shape))
    expected = reference.mpbn_lif(
        x,
        gamma.reshape(broadcast),
        beta.reshape(broadcast),
        decay=decay,
        threshold=0.5,
        soft=soft,
        detach=detach,
        eps=1e-5,
    )
    expected_grads = torch.autograd.grad((expected * weights).sum(), (x, gamma, beta))
    assert torch.equal(spikes, expected)
    for grad, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        means[0].flatten(), x[0].mean(0 if element else [0, *range(2, x.ndim - 1)]).flatten()
    )
    assert means.shape == variances.shape == (shape[0], *parameter_shape)
    assert samples == x[0].numel() // math.prod(parameter_shape)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_gradcheck_with_a_soft_step(reset: dynamics.Reset, detach: bool) -> None:
    """With the surrogate's antiderivative for a step everything is smooth: numbers must agree."""
    neuron = Neuron(0.5, 0.5, reset, dynamics.Sigmoid(), detach)
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gamma = torch.rand(2, dtype=torch.float64).add(0.5).requires_grad_()

    def run(x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        condition = Condition(Normalization(gamma[None], torch.zeros(1, 2).double(), 1e-5))
        v, spikes = torch.zeros_like(x[0]), []
        for t, x_t in enumerate(x):
            u = dynamics.charge(v, x_t, neuron.decay)
            h, _ = condition.potential(u, t)
            spikes.append(neuron.surrogate.antiderivative(h - neuron.threshold))
            v = dynamics.reset(u, spikes[-1], neuron)
        return torch.stack(spikes)

    if detach:  # what is detached has no gradient, so the numbers must differ
        assert not torch.autograd.gradcheck(run, (x, gamma), raise_exception=False)
    else:
        assert torch.autograd.gradcheck(run, (x, gamma))


@pytest.mark.parametrize("surrogate", [cls() for cls in dynamics.SURROGATES.values()], ids=str)
def test_hard_gradients_equal_those_of_the_soft_step_at_the_hard_spikes(
    surrogate: dynamics.Surrogate,
) -> None:
    """One step: ds/dx is the surrogate's derivative at u - threshold."""
    x = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    spikes = dynamics.integrate(x, PLAIN, Neuron(surrogate=surrogate)).spikes
    spikes.sum().backward()
    soft = x.detach().clone().requires_grad_()
    surrogate.antiderivative(soft - 0.5).sum().backward()
    torch.testing.assert_close(x.grad, soft.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_spikes_keep_dtype_and_memory_format_and_the_membrane_is_wide(dtype: torch.dtype) -> None:
    x = torch.randn(3, 2, 4, 5, 5).to(dtype)
    x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2))
    spikes, v, *_ = dynamics.integrate(x, PLAIN, Neuron())
    assert spikes.dtype == dtype
    assert spikes[0].is_contiguous(memory_format=torch.channels_last)
    assert v.dtype == torch.promote_types(dtype, torch.float32)
    exact = dynamics.integrate(x.to(v.dtype), PLAIN, Neuron()).spikes
    assert torch.equal(spikes.to(v.dtype), exact)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_running_statistics_are_updated_step_by_step(backend: dynamics.Backend) -> None:
    def update(momentum: float | None, before: int, axis: bool = False) -> list[list[float]]:
        mean, variance = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 0.0])
        observed, seen = torch.tensor([[2.0, 0.0], [4.0, 1.0]]), torch.tensor(before)
        running = Statistics(mean[None], variance[None]) if axis else Statistics(mean, variance)
        with sf.backend(backend):
            new = Statistics(observed, observed)
            dynamics.update_running(running, new, momentum, seen, 3)
        assert seen == before + 2
        assert mean._version == variance._version == seen._version == 1
        return [mean.tolist(), variance.tolist()]

    # mean: 1 -> 1.5 -> 2.75, -2 -> -1 -> 0; variances become 3/2 of the biased ones:
    # 4 -> 3.5 -> 4.75, 0 -> 0 -> 0.75
    assert update(0.5, 0) == update(0.5, 0, axis=True) == [[2.75, 0.0], [4.75, 0.75]]
    # cumulative: after one earlier observation, the mean of all three
    mean, variance = update(None, 1)
    assert mean == pytest.approx([7 / 3, -1 / 3])
    assert variance == pytest.approx([13 / 3, 0.5])


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_running_statistics_of_each_step_take_their_own(backend: dynamics.Backend) -> None:
    running = Statistics(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [0.0]]))
    observed, seen = torch.tensor([[3.0], [0.0]]), torch.tensor([7, 8])
    with sf.backend(backend):
        dynamics.update_running(running, Statistics(observed, observed), 0.5, seen, 3)
    assert running.mean.tolist() == [[2.0], [1.0]]
    assert running.variance.tolist() == [[4.25], [0.0]]
    assert seen.tolist() == [8, 9]


@pytest.mark.parametrize(
    "settings",
    [{"decay": 1.5}, {"decay": float("nan")}, {"threshold": float("inf")}, {"reset": "none"}],
)
@pytest.mark.usefixtures("as_user")
def test_bad_constants_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Neuron(**settings)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 3), "missing"), ((0, 2, 3), "no time step"), ((2,), "missing")],
)
@pytest.mark.usefixtures("as_user")
def test_bad_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        dynamics.integrate(torch.zeros(shape), PLAIN, Neuron())


@pytest.mark.usefixtures("as_user")
def test_bad_state_is_refused() -> None:
    with pytest.raises(ShapeError, match="state of shape"):
        dynamics.integrate(torch.zeros(2, 3, 4), PLAIN, Neuron(), torch.zeros(2, 4))


def test_one_value_per_statistic_is_refused() -> None:
    with pytest.raises(ShapeError, match="larger batch"):
        dynamics.statistics(torch.zeros(1, 3), (3,))
