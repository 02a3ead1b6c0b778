"""What the fused CPU kernels take, keep and refuse; and how torch sees them."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import PLAIN, Condition, Neuron, _backend
from spikefold.dynamics._kernels import _cpu, _fused
from spikefold.dynamics._kernels._arguments import Arguments
from spikefold.dynamics._kernels._fused import _run
from spikefold.errors import ConfigError, ShapeError
from tests.dynamics import compiling
from tests.dynamics.cases import Case, make

pytestmark = pytest.mark.usefixtures("kernels_only")


@pytest.mark.parametrize("last", [False, True])
def test_an_empty_batch(last: bool) -> None:
    layer = make(Case((3, 0, 4, 5, 5), last, condition="fixed", norm="fixed"))
    fired = layer.run()
    assert fired.spikes.shape == (3, 0, 4, 5, 5)
    grads = layer.gradients(fired.spikes, fired.v)
    assert grads["potential gain"].tolist() == [[0.0] * 4]


def test_strides_that_are_not_dense_are_taken_as_they_are_or_copied() -> None:
    whole = torch.randn(4, 6, 10, 8, 8, requires_grad=True)
    condition = Condition(dynamics.Normalization(torch.ones(1, 5), torch.zeros(1, 5), 1e-5))
    views = [whole[:, ::2, ::2], whole[::2, :, :5], whole[:, :, :5].transpose(3, 4)]
    views.append(whole[:, ::3, :5])  # two of a batch
    for x in views:
        for last in (False, True):
            shortcut = torch.randn(x.shape)
            shortcut = shortcut.movedim(2, -1).contiguous().movedim(-1, 2) if last else shortcut
            currents = dynamics.Currents(x, len(x), None, shortcut)
            found = []
            for run in (dynamics.simulate, dynamics.simulate_reference):
                fired = run(currents, condition, Neuron())
                (grad,) = torch.autograd.grad(fired.spikes.sum(), whole)  # an expanded gradient
                found.append((fired.spikes, grad))
            assert torch.equal(found[0][0], found[1][0])
            torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def _apart(x: Tensor, times: int) -> Tensor:
    """The same values, steps `times` as far from each other, other values between them."""
    strides = (x[0].numel() * times, *x.stride()[1:])
    room = torch.full((len(x) * strides[0],), 7.0)
    return room.as_strided(x.shape, strides).copy_(x)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("expanded", [False, True])
def test_steps_may_lie_apart(norm: str, last: bool, expanded: bool) -> None:
    """Gaps between the steps of input, shortcut and spikes' gradient are not taken for values."""
    layer = make(Case((3, 4, 5, 6, 6), last, norm=norm, shortcut=True))
    x, shortcut = layer.currents.input.detach(), layer.currents.shortcut.detach()
    weights = layer.weights[0].float() * torch.ones_like(x)  # in the format of x
    if expanded:
        shortcut, weights = shortcut[:1].expand_as(shortcut), weights[:1].expand_as(weights)
        spread = [_apart(x, 2), shortcut, weights]
    else:
        spread = [_apart(x, 2), _apart(shortcut, 3), _apart(weights, 2)]
    found = []
    for *tensors, grad in ([x, shortcut.clone(), weights.clone()], spread):
        leaves = [tensor.requires_grad_() for tensor in tensors]
        currents = layer.currents._replace(input=leaves[0], shortcut=leaves[1])
        fired = dynamics.simulate(currents, layer.condition, layer.case.neuron)
        found.append([fired.spikes, fired.v, *torch.autograd.grad(fired.spikes, leaves, grad)])
    assert all(map(torch.equal, *found))


def test_memory_formats_are_kept_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, ...]] = []
    monkeypatch.setattr(_cpu, "forward", lambda numbers, tensors: seen.append(tensors))
    for last in (False, True):
        layer = make(Case((3, 2, 4, 5, 5), last, shortcut=True))
        fired = layer.run()
        assert seen[-1][0].data_ptr() == layer.currents.input.data_ptr()
        assert seen[-1][1].data_ptr() == layer.currents.shortcut.data_ptr()
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
@pytest.mark.parametrize("part", range(3))
def test_torch_compile_and_export(part: int) -> None:
    """In processes of their own: Dynamo does not trace the type checks of the tests."""
    program = [sys.executable, "-m", "tests.dynamics.compiling", *list(compiling.CHECKS)[part::3]]
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.usefixtures("as_user")
def test_what_the_reference_refuses_is_refused() -> None:
    x, one = torch.randn(3, 1, 4), torch.ones(1, 4)
    norm = dynamics.Normalization(one, one, 1e-5)
    batch, odd = Condition(norm), Condition(norm._replace(shift=one[:, :3]))
    for currents, condition, v, message in [
        (dynamics.Currents.of(x[0, 0]), PLAIN, None, "missing"),
        (dynamics.Currents.of(x[:0]), PLAIN, None, "no time step"),
        (dynamics.Currents.of(x), PLAIN, torch.zeros(2, 4), "state of shape"),
        (dynamics.Currents.of(x), batch, None, "larger batch"),
        (dynamics.Currents(x[:1], 1, norm), PLAIN, None, "larger batch"),
        (dynamics.Currents(x, 3, None, x[:2]), PLAIN, None, "shortcut of shape"),
        (dynamics.Currents(x[..., :3], 3, norm), PLAIN, None, r"normalization of \[4\]"),
        (dynamics.Currents.of(x[..., :3]), batch, None, r"parameters of shape \[4\]"),
        (dynamics.Currents.of(x), odd, None, r"\[\[4\], \[3\]\]"),
    ]:
        with pytest.raises(ShapeError, match=message):
            dynamics.simulate(currents, condition, Neuron(), v)
    folded = Condition(None, torch.ones(2, 4))
    with pytest.raises(ShapeError, match="parameters for 2 time steps, but the sequence has 3"):
        dynamics.simulate(dynamics.Currents.of(x), folded, Neuron())
    with pytest.raises(ShapeError, match=r"decay of shape \[3\]"):
        dynamics.simulate(dynamics.Currents.of(x), PLAIN, Neuron(), decay=torch.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 3, 4, dtype=torch.float64)}, "float64"),
        ({"shortcut": torch.randn(2, 3, 4, dtype=torch.float64)}, "shortcut is"),
        ({"v": torch.randn(3, 4, dtype=torch.float64)}, "potentials are"),
        ({"x": torch.randn(2, 3, 4, device="meta")}, "none for meta"),
        ({"gain": torch.ones(1, 4, dtype=torch.float64)}, "parameters or potentials are"),
    ],
)
def test_what_the_kernels_cannot_do_is_said_and_done_by_the_reference(
    change: dict[str, Tensor], message: str
) -> None:
    x = change.get("x", torch.randn(2, 3, 4))
    gain = change.get("gain", torch.ones(1, 4, dtype=x.dtype, device=x.device))
    currents = dynamics.Currents(x, 2, None, change.get("shortcut"))
    condition = Condition(dynamics.Normalization(gain, gain, 1e-5))
    arguments = (currents, condition, Neuron(), change.get("v"))
    with pytest.raises(ConfigError, match=f"cannot run here.*{message}"):
        dynamics.simulate(*arguments)
    _backend._chosen = None  # automatic, until the fixture ends
    dynamics.simulate(*arguments)


@pytest.mark.usefixtures("as_user")
def test_tensors_on_two_devices_are_refused_before_a_kernel_reads_them() -> None:
    x, gain = torch.randn(2, 3, 4), torch.ones(1, 4, device="meta")
    with pytest.raises(ConfigError, match="tensors lie on cpu and on meta"):
        dynamics.simulate(dynamics.Currents.of(x), Condition(None, gain), Neuron())


def test_parameters_for_some_of_the_spatial_dimensions_run_on_the_reference() -> None:
    x, theta = torch.randn(2, 3, 4, 5, 6), torch.randn(1, 4, 5)
    with pytest.raises(ConfigError, match="neither per channel nor per element"):
        dynamics.simulate(dynamics.Currents.of(x), Condition(None, theta), Neuron())


def test_statistics_with_a_gradient_run_on_the_reference() -> None:
    one = torch.ones(1, 4)
    fixed = dynamics.Statistics(torch.zeros(1, 4, requires_grad=True), one)
    norm = dynamics.Normalization(one, one, 1e-5, fixed)
    with pytest.raises(ConfigError, match="need a gradient"):
        dynamics.simulate(dynamics.Currents.of(torch.randn(2, 3, 4)), Condition(norm), Neuron())


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    spikes = dynamics.simulate(dynamics.Currents.of(x), PLAIN, Neuron()).spikes
    with pytest.raises(ConfigError, match="no second derivative"):
        torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with sf.backend("reference"):
        spikes = dynamics.simulate(dynamics.Currents.of(x), PLAIN, Neuron()).spikes
    torch.autograd.grad(spikes.sum(), x, create_graph=True)
