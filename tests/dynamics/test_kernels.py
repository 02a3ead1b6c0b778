"""The fused CPU kernels: against float64, against the reference, and against themselves."""

import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import Neuron, _backend
from spikefold.dynamics._kernels import _cpu, _fused
from spikefold.dynamics._kernels._fused import _run
from spikefold.dynamics._kernels._operators import Arguments
from spikefold.dynamics._kernels._problem import Problem
from spikefold.errors import ConfigError, ShapeError
from tests.dynamics import compiling
from tests.dynamics.cases import Case, cases, expected, make

native = pytest.importorskip(
    "spikefold.dynamics._kernels._native", reason="installed without compiled kernels"
)
TIE = 1e-5  # float32's error of summation, generously: potentials are of size 1


@pytest.fixture(autouse=True)
def _kernels_only() -> Iterator[None]:
    """No silent fall-back to the reference."""
    with sf.backend("fused"):
        yield


@given(case=cases())
@settings(max_examples=300)
def test_spikes_potentials_and_gradients_are_those_of_float64(case: Case) -> None:
    layer = make(case)
    fired = layer.run()
    gradients, distance, v = expected(layer, fired.spikes.detach())
    wrong = (fired.spikes > 0) != (distance > 0)
    assert (distance[wrong].abs() < TIE).all()
    torch.testing.assert_close(fired.v.double(), v, rtol=1e-4, atol=1e-4)
    for name, grad in layer.gradients(fired.spikes, fired.v).items():
        right = gradients[name]
        # Gradients cancel where a norm takes its statistics of a few values; the tanh window has
        # an edge, where float64 may be on the other side.
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
    ours, theirs = layer.run(), layer.run(dynamics.reference_layer)
    assert torch.equal(ours.spikes, theirs.spikes)
    assert torch.equal(ours.v, theirs.v)


@pytest.mark.parametrize("condition", ["fixed", "folded"])
@pytest.mark.parametrize("instructions", [0, 1, 2])
def test_inference_within_a_few_ulp_of_every_threshold(condition: str, instructions: int) -> None:
    """Where a rounding too many would show: potentials next to the threshold, NaN and infinity."""
    case = Case((1, 65, 33), condition=condition, neuron=Neuron(decay=0.0))
    layer = make(case)
    norm = sf.MPBN(33)
    if condition == "fixed":
        norm.load_state_dict(
            {"running_mean": layer.condition.fixed[0], "running_var": layer.condition.fixed[1]},
            strict=False,
        )
        norm.weight.data, norm.bias.data = layer.condition.gain.data, layer.condition.shift.data
        norm.eps = layer.condition.eps
        theta, _ = sf.folding.exact_thresholds(norm, 0.5)
    else:
        theta = layer.condition.theta
    bits = theta.view(torch.int32) + torch.arange(-32, 33, dtype=torch.int32)[:, None]
    x = bits.view(torch.float32)[None].clone()
    x[0, 0, 0], x[0, 1, 1], x[0, 2, 2] = math.nan, math.inf, -math.inf
    currents = dynamics.Currents.of(x)
    _cpu.native.limit_instruction_set(instructions)
    try:
        ours = dynamics.layer(currents, layer.condition, case.neuron)
    finally:
        _cpu.native.limit_instruction_set(2)
    theirs = dynamics.reference_layer(currents, layer.condition, case.neuron)
    assert torch.equal(ours.spikes, theirs.spikes)
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
            ours, theirs = layer.run().spikes, layer.run(dynamics.reference_layer).spikes
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


@given(case=cases(dtype=torch.bfloat16) | cases(dtype=torch.float16))
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
    norms = {"norm": currents.norm, "condition": layer.condition}
    for key, name in (("norm", "current"), ("condition", "potential")):
        if isinstance(norms[key], dynamics.Normalization):
            parameters = {"gain": wide[f"{name} gain"], "shift": wide[f"{name} shift"]}
            norms[key] = norms[key]._replace(**parameters)
    currents = currents._replace(norm=norms["norm"])
    float32 = dynamics.layer(currents, norms["condition"], case.neuron, wide.get("state"))
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
    fired = dynamics.layer(dynamics.Currents.of(halves), None, never)
    quiet = fired.spikes[0] == 0  # infinity fires
    same = {"rtol": 0, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(fired.v[quiet], halves[0].float()[quiet], **same)

    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (1000, 500), dtype=torch.int32, generator=generator)
    x = torch.zeros(1, 1000, 500, dtype=dtype, requires_grad=True)
    v = dynamics.layer(dynamics.Currents.of(x), None, never).v
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
    for run in (dynamics.layer, dynamics.reference_layer):
        fired = layer.run(run)
        for_each.append([fired.v, *layer.gradients(fired.spikes, fired.v).values()])
    for ours, theirs in zip(*for_each, strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
    assert for_each[0][0].isnan().any()


@pytest.mark.parametrize("last", [False, True])
def test_an_empty_batch(last: bool) -> None:
    layer = make(Case((3, 0, 4, 5, 5), last, condition="fixed", norm="fixed"))
    fired = layer.run()
    assert fired.spikes.shape == (3, 0, 4, 5, 5)
    grads = layer.gradients(fired.spikes, fired.v)
    assert grads["potential gain"].tolist() == [0.0] * 4


def test_strides_that_are_not_dense_are_taken_as_they_are_or_copied() -> None:
    whole = torch.randn(4, 6, 10, 8, 8, requires_grad=True)
    condition = dynamics.Normalization(torch.ones(5), torch.zeros(5), 1e-5)
    views = [whole[:, ::2, ::2], whole[::2, :, :5], whole[:, :, :5].transpose(3, 4)]
    for x in views:
        for last in (False, True):
            shortcut = torch.randn(x.shape)
            shortcut = shortcut.movedim(2, -1).contiguous().movedim(-1, 2) if last else shortcut
            currents = dynamics.Currents(x, len(x), None, shortcut)
            found = []
            for run in (dynamics.layer, dynamics.reference_layer):
                fired = run(currents, condition, Neuron())
                (grad,) = torch.autograd.grad(fired.spikes.sum(), whole)  # an expanded gradient
                found.append((fired.spikes, grad))
            assert torch.equal(found[0][0], found[1][0])
            torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def test_steps_may_lie_apart_in_memory() -> None:
    whole, other, gradient = (torch.randn(6, 3, 4, 5, 5) for _ in range(3))
    x, shortcut = (t.clone().requires_grad_() for t in (whole, other))
    found = []
    for run in (dynamics.layer, dynamics.reference_layer):
        spikes = run(dynamics.Currents(x[::2], 3, None, shortcut[1::2]), None, Neuron()).spikes
        grads = torch.autograd.grad(spikes, (x, shortcut), gradient[::2])
        found.append([spikes, *grads])
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_statistics_are_told_as_the_reference_tells_them() -> None:
    layer = make(Case(norm="batch", elementwise=False, shortcut=True, last=True))
    ours, theirs = layer.run(), layer.run(dynamics.reference_layer)
    for name in ("current", "potential"):
        for one, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_memory_formats_are_kept_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Problem] = []
    monkeypatch.setattr(_cpu, "_layer", seen.append)
    monkeypatch.setattr(_cpu, "native", type("Idle", (), {"forward": lambda *a: None}))
    for last in (False, True):
        layer = make(Case((3, 2, 4, 5, 5), last, shortcut=True))
        fired = layer.run()
        assert seen[-1].input.data_ptr() == layer.currents.input.data_ptr()
        assert seen[-1].shortcut.data_ptr() == layer.currents.shortcut.data_ptr()
        assert fired.spikes.stride() == layer.currents.input.stride()


def test_backward_keeps_the_input_and_statistics_only() -> None:
    layer = make(Case(norm="batch", shortcut=True))
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        fired = layer.run()
    inputs = {leaf.untyped_storage().data_ptr() for leaf in layer.leaves.values()}
    more = [t for t in kept if t.untyped_storage().data_ptr() not in inputs]
    steps, _, channels, *_ = layer.case.shape
    assert sum(t.numel() for t in more) == 2 * channels + 2 * steps * channels
    assert fired.spikes.requires_grad


@pytest.mark.usefixtures("as_user")  # shapes are symbols
def test_operators_pass_torchs_own_checks() -> None:
    for case in (Case((2, 3, 4, 3, 3), norm="batch", shortcut=True, state=True), Case((2, 3, 4))):
        layer = make(case)
        seen: list[Arguments] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_fused, "_run", lambda a, seen=seen: seen.append(a) or _run(a))
            layer.run()
        torch.library.opcheck(torch.ops.spikefold.layer.default, tuple(seen[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", compiling.CHECKS)
def test_torch_compile_and_export(name: str) -> None:
    """In a process of its own: Dynamo does not trace the type checks of the tests."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.dynamics.compiling", name], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.usefixtures("as_user")
def test_what_the_reference_refuses_is_refused() -> None:
    x, one = torch.randn(3, 1, 4), torch.ones(4)
    batch = dynamics.Normalization(one, one, 1e-5)
    for currents, condition, v, message in [
        (dynamics.Currents.of(x[0, 0]), None, None, "missing"),
        (dynamics.Currents.of(x[:0]), None, None, "no time step"),
        (dynamics.Currents.of(x), None, torch.zeros(2, 4), "state of shape"),
        (dynamics.Currents.of(x), batch, None, "larger batch"),
        (dynamics.Currents(x[:1], 1, batch), None, None, "larger batch"),
        (dynamics.Currents(x, 3, None, x[:2]), None, None, "shortcut of shape"),
        (dynamics.Currents(x[..., :3], 3, batch), None, None, r"normalization of \[4\]"),
        (dynamics.Currents.of(x[..., :3]), batch, None, r"parameters of shape \[4\]"),
        (dynamics.Currents.of(x), batch._replace(shift=one[:3]), None, r"\[\[4\], \[3\]\]"),
    ]:
        with pytest.raises(ShapeError, match=message):
            dynamics.layer(currents, condition, Neuron(), v)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 3, 4, dtype=torch.float64)}, "float64"),
        ({"shortcut": torch.randn(2, 3, 4, dtype=torch.float64)}, "shortcut is"),
        ({"v": torch.randn(3, 4, dtype=torch.float64)}, "potentials are"),
        ({"x": torch.randn(2, 3, 4, device="meta")}, "none for meta"),
        ({"gain": torch.ones(4, dtype=torch.float64)}, "parameters or potentials are"),
    ],
)
def test_what_the_kernels_cannot_do_is_said_and_done_by_the_reference(
    change: dict[str, Tensor], message: str
) -> None:
    x = change.get("x", torch.randn(2, 3, 4))
    gain = change.get("gain", torch.ones(4, dtype=x.dtype, device=x.device))
    currents = dynamics.Currents(x, 2, None, change.get("shortcut"))
    arguments = (currents, dynamics.Normalization(gain, gain, 1e-5), Neuron(), change.get("v"))
    with pytest.raises(ConfigError, match=f"cannot run here.*{message}"):
        dynamics.layer(*arguments)
    _backend._chosen = None  # automatic, until the fixture ends
    dynamics.layer(*arguments)


@pytest.mark.usefixtures("as_user")
def test_tensors_on_two_devices_are_refused_before_a_kernel_reads_them() -> None:
    x, gain = torch.randn(2, 3, 4), torch.ones(4, device="meta")
    with pytest.raises(ConfigError, match="tensors lie on cpu and on meta"):
        dynamics.layer(dynamics.Currents.of(x), dynamics.Thresholds(gain), Neuron())


def test_parameters_for_some_of_the_spatial_dimensions_run_on_the_reference() -> None:
    x, theta = torch.randn(2, 3, 4, 5, 6), torch.randn(4, 5)
    with pytest.raises(ConfigError, match="neither per channel nor per element"):
        dynamics.layer(dynamics.Currents.of(x), dynamics.Thresholds(theta), Neuron())


def test_statistics_with_a_gradient_run_on_the_reference() -> None:
    one = torch.ones(4)
    fixed = dynamics.Statistics(torch.zeros(4, requires_grad=True), one)
    norm = dynamics.Normalization(one, one, 1e-5, fixed)
    with pytest.raises(ConfigError, match="need a gradient"):
        dynamics.layer(dynamics.Currents.of(torch.randn(2, 3, 4)), norm, Neuron())


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    spikes = dynamics.layer(dynamics.Currents.of(x), None, Neuron()).spikes
    with pytest.raises(ConfigError, match="no second derivative"):
        torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with sf.backend("reference"):
        spikes = dynamics.layer(dynamics.Currents.of(x), None, Neuron()).spikes
    torch.autograd.grad(spikes.sum(), x, create_graph=True)
