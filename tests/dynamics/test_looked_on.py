"""Whoever looks on sees the operator: tracers, modes, transforms; and no tensor is misread."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import PLAIN, Condition, Currents, Neuron
from spikefold.dynamics._kernels._arguments import Arguments
from spikefold.errors import ConfigError

pytestmark = pytest.mark.usefixtures("kernels_only")


# ------------------------------------------------------------------ one image at all steps


def expanded(y: Tensor) -> Tensor:
    return sf.LIF()(y.expand(4, *y.shape))


def over_time(y: Tensor) -> Tensor:
    return sf.LIF(sf.MPBN(3))(sf.OverTime(nn.Identity())(y.expand(4, *y.shape)))


def by_currents(y: Tensor) -> Tensor:
    return dynamics.simulate(Currents(y.expand(4, *y.shape), 4), PLAIN, Neuron()).spikes


def by_operator(y: Tensor) -> Tensor:
    x = y.expand(4, *y.shape)
    given = {"input": x, "steps": 4, "decay": 0.25, "threshold": 0.5, "reset": "hard"}
    given |= {"detach_reset": False, **sf.Tanh().form()._asdict()}
    return torch.ops.spikefold.layer(*Arguments._make(map(given.get, Arguments._fields)))[0]


@pytest.mark.parametrize("run", [expanded, over_time, by_currents, by_operator])
def test_an_input_expanded_over_time_gets_its_gradient(run: Callable[[Tensor], Tensor]) -> None:
    """The steps share their memory; the gradients of all of them must not."""
    y = torch.randn(2, 3, 5, 5, requires_grad=True)
    weights = torch.randn(4, *y.shape)
    (found,) = torch.autograd.grad((run(y) * weights).sum(), y)
    with sf.backend("reference"):
        same = over_time if run is over_time else expanded
        (expected,) = torch.autograd.grad((same(y) * weights).sum(), y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_expanded_leaf_gets_the_gradient_of_each_step() -> None:
    """Also through a unit, which convolves one image once where nothing needs a gradient."""
    unit = sf.SpikingLayer(nn.Linear(3, 4), nn.Identity(), sf.LIF())
    weights = torch.randn(4, 2, 4)
    for run, shape in ((sf.LIF(), (2, 4)), (unit, (2, 3))):
        found = []
        for backend in ("fused", "reference"):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).expand(4, *shape)
            x = x.detach().requires_grad_()
            with sf.backend(backend):  # type: ignore[arg-type]
                (run(x) * weights).sum().backward()
            found.append(x.grad)
        torch.testing.assert_close(*found)
        assert (found[0].abs().sum((1, 2)) > 0).all()


def test_second_derivatives_are_refused_however_the_operator_is_reached() -> None:
    for mode in (contextlib.nullcontext(), torch.device("cpu"), Seen()):
        x = torch.randn(3, 2, 4, requires_grad=True)
        with mode, pytest.raises(ConfigError, match="no second derivative"):  # noqa: PT012
            (grad,) = torch.autograd.grad(sf.LIF()(x).sum(), x, create_graph=True)
            grad.square().sum().backward()


def test_statistics_that_need_a_gradient_get_one_or_are_refused() -> None:
    one = torch.ones(1, 4)
    for place in (0, 1):
        fixed = [torch.zeros(1, 4), torch.ones(1, 4)]
        fixed[place].requires_grad_()
        norm = dynamics.Normalization(one, one, 1e-5, dynamics.Statistics(*fixed))
        currents = Currents.of(torch.randn(3, 5, 4))
        with pytest.raises(ConfigError, match="fixed need a gradient"):
            dynamics.simulate(currents, Condition(norm), Neuron())


# ------------------------------------------------------------------ modes


class Seen(TorchDispatchMode):
    """Notes the operators of spikefold that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "spikefold":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


def test_dispatch_modes_see_forward_and_backward() -> None:
    x = torch.randn(3, 2, 4, requires_grad=True)
    with Seen() as seen:
        spikes = sf.LIF()(x)
    assert seen.names == ["layer"]
    plain = sf.LIF()(x)
    with Seen() as seen:
        spikes.sum().backward()
        plain.sum().backward()  # a mode that came between
    assert seen.names == ["layer_backward"] * 2


def test_tensors_that_are_not_what_their_memory_says() -> None:
    """A negative view, gradients that are zero without memory, a subclass."""
    x = torch._neg_view(torch.randn(4, 2, 3))
    assert x.is_neg()
    assert torch.equal(sf.LIF()(x), sf.LIF()(x.resolve_neg()))
    leaf = torch.randn(4, 2, 3, requires_grad=True)
    grads = [torch._efficientzerotensor((4, 2, 3)), torch.zeros(4, 2, 3)]
    found = [torch.autograd.grad(sf.LIF()(leaf), leaf, grad)[0] for grad in grads]
    assert torch.equal(*found)
    grad = torch._neg_view(torch.randn(4, 2, 3))
    found = [torch.autograd.grad(sf.LIF()(leaf), leaf, g)[0] for g in (grad, grad.resolve_neg())]
    assert torch.equal(*found)

    class Labelled(Tensor):
        pass

    labelled = leaf.detach().as_subclass(Labelled)
    assert torch.equal(sf.LIF()(labelled), sf.LIF()(leaf))


# ------------------------------------------------------------------ torch.func


@pytest.fixture
def neuron() -> sf.LIF:
    lif = sf.LIF(sf.MPBN(3), surrogate=sf.Sigmoid())
    for x in torch.randn(5, 4, 6, 3):
        lif(x)
    return lif.eval()


def test_torch_func_transforms_on_the_reference(neuron: sf.LIF) -> None:
    x = torch.randn(5, 4, 2, 3)
    with sf.backend("reference"):
        apart = torch.stack([neuron(x_i) for x_i in x])
        assert torch.equal(torch.func.vmap(neuron)(x), apart)

        def loss(x: Tensor) -> Tensor:
            return (neuron(x) * torch.linspace(-1, 1, 24).reshape(4, 2, 3)).sum()

        grads = torch.func.vmap(torch.func.grad(loss))(x)
        for x_i, grad in zip(x, grads, strict=True):
            leaf = x_i.clone().requires_grad_()
            torch.testing.assert_close(grad, torch.autograd.grad(loss(leaf), leaf)[0])
        direction = torch.randn(4, 2, 3)
        along = torch.func.jvp(loss, (x[0],), (direction,))[1]
        torch.testing.assert_close(along, (grads[0] * direction).sum())


def test_torch_func_trains_with_statistics_handed_over() -> None:
    lif, x = sf.LIF(sf.MPBN(3)), torch.randn(4, 6, 3)
    buffers = {name: b.clone() for name, b in lif.named_buffers()}
    parameters = {name: p.detach().clone() for name, p in lif.named_parameters()}

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(lif, {**parameters, **buffers}, (x,)).square().sum()

    with sf.backend("reference"):
        grads = torch.func.grad(loss)(parameters, buffers)
        lif(x).square().sum().backward()
    assert lif.norm is not None
    torch.testing.assert_close(grads["norm.weight"], lif.norm.weight.grad)


def test_kernels_name_the_reference_for_torch_func(neuron: sf.LIF) -> None:
    with pytest.raises(ConfigError, match=r"torch.func.*backend\(\"reference\"\)"):
        torch.func.vmap(neuron)(torch.randn(5, 4, 2, 3))
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(torch.randn(4, 2, 3), torch.randn(4, 2, 3))
        with pytest.raises(ConfigError, match="forward mode"):
            neuron(x)


# ------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_state_may_be_changed_in_place(backend: Any, grad: bool) -> None:
    lif = sf.LIF()
    with sf.backend(backend):
        x = torch.randn(2, 3, 4, 4, requires_grad=grad)
        _, state = lif.step(x)
        state.v[0] = 0
        state.v.mul_(2)
        spikes, state = lif.step(x, state)
        spikes.mul_(2)
        state.v.detach_()
        state.v.clamp_(min=0)
        spikes, state = lif.step(x, state)
    assert not grad or spikes.requires_grad


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_that_are_not_contiguous_are_updated(momentum: float | None) -> None:
    """Element-wise statistics of a network in channels_last, or a view of something larger."""
    norm = sf.MPBN((3, 4, 4), momentum=momentum)
    apart = sf.MPBN((3, 4, 4), momentum=momentum)
    apart.running_mean = torch.zeros(4, 4, 3).movedim(-1, 0)
    apart.running_var = torch.ones(3, 4, 8)[..., ::2]
    x = torch.randn(4, 6, 3, 4, 4)
    for one in (norm, apart):
        sf.LIF(one)(x)
    assert apart.running_mean.abs().max() > 0
    torch.testing.assert_close(apart.running_mean, norm.running_mean)
    torch.testing.assert_close(apart.running_var, norm.running_var)


def test_more_steps_than_the_input_has_are_refused() -> None:
    x = torch.randn(2, 4, 8, 16, 16)
    for run in (dynamics.simulate, dynamics.simulate_reference):
        with pytest.raises(sf.ShapeError, match="2 time steps"):
            run(Currents(x, 2000), PLAIN, Neuron())


def test_many_gradients_at_once_go_through_a_layer() -> None:
    """`is_grads_batched`: tensors without memory of their own."""
    x = torch.randn(3, 2, 4, requires_grad=True)
    many = torch.randn(5, 3, 2, 4)
    spikes = dynamics.simulate(Currents.of(x), Condition(), Neuron()).spikes
    found = [torch.autograd.grad(spikes, x, grad, retain_graph=True)[0] for grad in many]
    (batched,) = torch.autograd.grad(spikes, x, many, is_grads_batched=True)
    assert torch.equal(batched, torch.stack(found))
