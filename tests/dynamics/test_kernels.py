"""The fused CPU kernels: against float64, against the reference, and against themselves."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import PLAIN, Condition, Neuron
from spikefold.dynamics._kernels import _cpu
from tests.dynamics.cases import Case, cases, expected, is_one_kernel, make

pytestmark = pytest.mark.usefixtures("kernels_only")
TIE = 1e-5  # float32's error of summation, generously: potentials are of size 1


def _at_an_edge(case: Case, distance: Tensor) -> bool:
    """Whether float32 may see a potential on the other side of where a surrogate's window ends."""
    surrogate = case.neuron.surrogate
    if isinstance(surrogate, dynamics.Tanh):
        edge = 0.5
    elif isinstance(surrogate, dynamics.Rectangle):
        edge = surrogate.width / 2
    else:
        return False
    return bool(((distance.abs() - edge).abs() < TIE).any())


@given(case=cases())
@settings(max_examples=300)
def test_spikes_potentials_and_gradients_are_those_of_float64(case: Case) -> None:
    layer = make(case)
    fired = layer.run()
    gradients, distance, v = expected(layer, fired.spikes.detach())
    wrong = (fired.spikes > 0) != (distance > 0)
    assert (distance[wrong].abs() < TIE).all()
    torch.testing.assert_close(fired.v.double(), v, rtol=1e-4, atol=1e-4)
    assume(not _at_an_edge(case, distance))
    for name, grad in layer.gradients(fired.spikes, fired.v).items():
        right = gradients[name]
        # Gradients cancel where a norm takes its statistics of a few values.
        size = right.abs().max().item() + layer.weights[0].abs().max().item()
        off = (grad.double() - right).abs() > 1e-3 * size
        assert off.float().mean() < 0.01, name
        assert grad.shape == right.shape


@given(case=cases())
@settings(max_examples=200)
def test_inference_fires_as_the_reference_to_the_bit(case: Case) -> None:
    if not case.infers:
        return
    layer = make(case)
    ours, theirs = layer.run(), layer.run(dynamics.simulate_reference)
    assert torch.equal(ours.spikes, theirs.spikes)
    assert torch.equal(ours.v, theirs.v)


@pytest.mark.parametrize("condition", ["fixed", "folded"])
@pytest.mark.parametrize("instructions", [0, 1, 2])
def test_inference_within_a_few_ulp_of_every_threshold(condition: str, instructions: int) -> None:
    """Where a rounding too many would show: potentials next to the threshold, NaN and infinity."""
    case = Case((1, 65, 33), condition=condition, neuron=Neuron(decay=0.0))
    layer = make(case)
    theta = layer.condition.theta
    if condition == "fixed":
        theta = sf.folding.exact_thresholds(layer.condition, 0.5, torch.zeros(33)).theta
    bits = theta.view(torch.int32) + torch.arange(-32, 33, dtype=torch.int32)[:, None]
    x = bits.view(torch.float32)[None].clone()
    x[0, 0], x[0, 1], x[0, 2] = math.nan, math.inf, -math.inf  # for gains of both signs
    currents = dynamics.Currents.of(x)
    _cpu.native.limit_instruction_set(instructions)
    try:
        ours = dynamics.simulate(currents, layer.condition, case.neuron)
    finally:
        _cpu.native.limit_instruction_set(2)
    theirs = dynamics.simulate_reference(currents, layer.condition, case.neuron)
    assert torch.equal(ours.spikes, theirs.spikes)
    torch.testing.assert_close(ours.v, theirs.v, rtol=0, atol=0, equal_nan=True)
    assert 0.3 < ours.spikes.mean() < 0.7


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_training_differs_from_the_reference_only_at_ties_and_below_one_in_a_million(
    norm: str,
) -> None:
    decisions = mismatches = wrong = 0
    for seed in range(3):
        case = Case((4, 32, 48, 14, 14), norm=norm, shortcut=norm == "batch", seed=seed)
        layer = make(case)
        with torch.no_grad():
            ours, theirs = layer.run().spikes, layer.run(dynamics.simulate_reference).spikes
        _, distance, _ = expected(layer, ours)
        differs = (ours > 0) != (distance > 0)
        assert (distance[differs].abs() < TIE).all()
        decisions += ours.numel()
        mismatches += int((ours != theirs).sum())
        wrong += int(differs.sum())
    assert mismatches < 1e-6 * decisions
    assert wrong < 1e-6 * decisions


@pytest.mark.parametrize("instructions", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("surrogate", dynamics.SURROGATES)
def test_every_instruction_set(instructions: int, last: bool, surrogate: str) -> None:
    neuron = Neuron(surrogate=dynamics.SURROGATES[surrogate]())
    case = Case(last=last, norm="batch", shortcut=True, neuron=neuron)
    _cpu.native.limit_instruction_set(instructions)
    try:
        layer = make(case)
        fired = layer.run()
        found = layer.gradients(fired.spikes, fired.v)
    finally:
        name = _cpu.native.limit_instruction_set(2)
    assert name in ("baseline", "avx2", "avx512")
    gradients, _, _ = expected(layer, fired.spikes.detach())
    for key, grad in found.items():
        torch.testing.assert_close(grad.double(), gradients[key], rtol=1e-3, atol=1e-3)


@given(case=(cases(dtype=torch.bfloat16) | cases(dtype=torch.float16)).filter(is_one_kernel))
@settings(max_examples=100)
def test_half_precision_is_rounded_at_the_border_only(case: Case) -> None:
    """The same layer on the widened tensors: equal spikes, and gradients that round to ours."""
    layer = make(case)
    fired = layer.run()
    assert fired.spikes.dtype == case.dtype
    assert fired.v.dtype == torch.float32
    found = layer.gradients(fired.spikes, fired.v)

    wide = {name: leaf.detach().float().requires_grad_() for name, leaf in layer.leaves.items()}
    currents = layer.currents._replace(input=wide["input"], shortcut=wide.get("shortcut"))
    norms = {"norm": currents.norm, "condition": layer.condition.norm}
    for key, name in (("norm", "current"), ("condition", "potential")):
        if isinstance(norms[key], dynamics.Normalization):
            parameters = {"gain": wide[f"{name} gain"], "shift": wide[f"{name} shift"]}
            norms[key] = norms[key]._replace(**parameters)
    currents = currents._replace(norm=norms["norm"])
    condition = layer.condition._replace(norm=norms["condition"])
    float32 = dynamics.simulate(
        currents, condition, case.neuron, wide.get("state"), wide.get("decay")
    )
    assert torch.equal(float32.spikes, fired.spikes.float())
    assert torch.equal(float32.v, fired.v)
    # the gradient of the spikes reaches the kernel in their dtype
    loss = (float32.spikes.double() * layer.weights[0].to(case.dtype).double()).sum()
    loss = loss + (float32.v.double() * layer.weights[1]).sum()
    right = torch.autograd.grad(loss, list(wide.values()), allow_unused=True)
    for (name, grad), expect in zip(found.items(), right, strict=True):
        if expect is not None:
            torch.testing.assert_close(grad, expect.to(grad.dtype), rtol=0, atol=0, equal_nan=True)
            assert name in wide


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_is_read_and_any_float_is_rounded_as_torch_does(dtype: torch.dtype) -> None:
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).reshape(1, 256, 256)
    never = Neuron(threshold=3e38, detach_reset=True)
    fired = dynamics.simulate(dynamics.Currents.of(halves), PLAIN, never)
    quiet = fired.spikes[0] == 0  # infinity fires
    same = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(fired.v[quiet], halves[0].float()[quiet], **same)

    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (1000, 500), dtype=torch.int32, generator=generator)
    x = torch.zeros(1, 1000, 500, dtype=dtype, requires_grad=True)
    v = dynamics.simulate(dynamics.Currents.of(x), PLAIN, never).v
    v.backward(bits.view(torch.float32))
    expect = bits.view(torch.float32).to(dtype)
    torch.testing.assert_close(x.grad[0], expect, **same)


@given(case=cases())
@settings(max_examples=30)
def test_the_same_bits_at_one_thread_and_at_two(case: Case) -> None:
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 2):
        torch.set_num_threads(count)
        try:
            layer = make(case)
            fired = layer.run()
            found = layer.gradients(fired.spikes, fired.v).values()
            results.append([fired.spikes, fired.v, *found])
        finally:
            torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("condition", ["batch", "fixed", "folded", "plain"])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_nan_in_gives_nan_out_where_the_reference_does(
    condition: str, norm: str, reset: dynamics.Reset
) -> None:
    case = Case((3, 4, 5, 3, 3), condition=condition, norm=norm, neuron=Neuron(reset=reset))
    layer = make(case)
    with torch.no_grad():
        layer.currents.input[1, 2, 3, 0, 0] = math.nan
    for_each = []
    for run in (dynamics.simulate, dynamics.simulate_reference):
        fired = layer.run(run)
        for_each.append([fired.v, *layer.gradients(fired.spikes, fired.v).values()])
    for ours, theirs in zip(*for_each, strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
    assert for_each[0][0].isnan().any()


def test_statistics_are_told_as_the_reference_tells_them() -> None:
    layer = make(Case(norm="batch", elementwise=False, shortcut=True, last=True))
    ours, theirs = layer.run(), layer.run(dynamics.simulate_reference)
    for name in ("current_statistics", "potential_statistics"):
        for one, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_a_gradient_asked_for_alone_is_the_one_among_all(last: bool, constant: bool) -> None:
    layer = make(Case(last=last, norm="batch", shortcut=True, constant=constant, state=True))
    fired = layer.run()
    every = layer.gradients(fired.spikes, fired.v)
    for leaf in layer.leaves.values():
        leaf.requires_grad_(False)
    for name, leaf in layer.leaves.items():
        leaf.requires_grad_()
        fired = layer.run()
        loss = (fired.spikes * layer.weights[0]).sum() + (fired.v * layer.weights[1]).sum()
        (grad,) = torch.autograd.grad(loss, leaf)
        leaf.requires_grad_(False)
        assert torch.equal(grad, every[name]), name


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("elementwise", [False, True])
def test_statistics_are_exact_where_float32_holds_the_differences(
    many: bool, last: bool, elementwise: bool
) -> None:
    """Few values whose mean float32 cannot hold, or many whose sum it cannot; whole numbers."""
    if many:
        x = torch.randint(4000, 8000, (2, 256, 5, 32, 32)).float()
    else:
        x = (2**20 + torch.tensor([0.0, 1.0, 3.0])).reshape(1, 3, 1, 1, 1).expand(2, 3, 5, 1, 1)
    x = x.movedim(2, -1).contiguous().movedim(-1, 2) if last else x.contiguous()
    one = torch.ones(1, *(x.shape[2:] if elementwise else x.shape[2:3]))
    norm, neuron = dynamics.Normalization(one, one, 1e-3), Neuron(decay=0.0)
    fired = dynamics.simulate(dynamics.Currents.of(x), Condition(norm), neuron)
    assert fired.current_statistics is None
    found = [(fired.potential_statistics, [1] if elementwise else [1, 3, 4])]
    if not elementwise:
        fired = dynamics.simulate(dynamics.Currents(x, len(x), norm), PLAIN, neuron)
        assert fired.potential_statistics is None
        found.append((fired.current_statistics, [0, 1, 3, 4]))
    for statistics, axes in found:
        variance, mean = torch.var_mean(x.double(), axes, correction=0)
        assert torch.equal(statistics.mean, mean.float().reshape(statistics.mean.shape))
        expected = variance.reshape(statistics.variance.shape)
        torch.testing.assert_close(statistics.variance.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "surrogate",
    [*(kind() for kind in dynamics.SURROGATES.values()), dynamics.Tanh(2.0)],
    ids=lambda surrogate: surrogate.name,
)
def test_derivatives_at_all_distances_and_on_the_edges(surrogate: dynamics.Surrogate) -> None:
    edges = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0, 30.0, 1e3, 1e30])
    z = torch.cat([torch.linspace(-3, 3, 6001), edges, -edges])
    x = z[None, None].clone().requires_grad_()
    neuron = Neuron(threshold=0.0, surrogate=surrogate)
    dynamics.simulate(dynamics.Currents.of(x), PLAIN, neuron).spikes.sum().backward()
    right = surrogate.derivative(z.double())
    torch.testing.assert_close(x.grad[0, 0].double(), right, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach", [False, True])
def test_an_infinite_gradient_goes_where_the_reference_sends_it(
    reset: dynamics.Reset, detach: bool
) -> None:
    x = torch.randn(3, 4, 50, requires_grad=True)
    neuron = Neuron(reset=reset, detach_reset=detach)
    found: list[Tensor] = []
    for run in (dynamics.simulate, dynamics.simulate_reference):
        v = run(dynamics.Currents.of(x), PLAIN, neuron).v
        found += torch.autograd.grad(v, x, torch.full_like(v, math.inf))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5, equal_nan=True)
