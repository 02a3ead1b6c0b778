"""Average pools by the kernel: torch's, to the bit, and their gradients."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import _backend, _kernels
from spikefold.dynamics._kernels import _cpu

pytestmark = pytest.mark.usefixtures("kernels_only")


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's pool is not asked."""

    def refuse(*_: object) -> None:
        raise AssertionError("torch was asked")

    monkeypatch.setattr(_backend, "avg_pool2d", refuse)


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is not asked."""

    def refuse(*_: object) -> None:
        raise AssertionError("the kernel was asked")

    monkeypatch.setattr(_cpu, "average", refuse)


@pytest.fixture(params=[(0, 1), (1, 3), (2, 2)])
def instructions_and_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    _cpu.native.limit_instruction_set(request.param[0])
    torch.set_num_threads(request.param[1])
    yield
    torch.set_num_threads(before)
    _cpu.native.limit_instruction_set(2)


def strange(shape: tuple[int, ...]) -> Tensor:
    """With zeros of both signs, infinities and numbers below the normal ones."""
    x = torch.randn(shape)
    values = torch.tensor([-0.0, 0.0, torch.inf, 1e-45, -1e-44, 3e38])
    places = torch.rand(shape) < 0.3
    x[places] = values[torch.randint(len(values), (int(places.sum()),))]
    return x


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32)


@pytest.mark.usefixtures("instructions_and_threads", "no_torch")
@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 2), (3, 5, 8, 8), (2, 3, 7, 9), (2, 2, 3, 34), (70, 4, 32, 32), (5, 6, 12)]
)
def test_averages_and_gradients_are_torch_s_to_the_bit(shape: tuple[int, ...]) -> None:
    x = strange(shape).requires_grad_()
    ours, theirs = dynamics.average_pool(x, 2, 2), F.avg_pool2d(x, 2)
    assert torch.equal(bits(ours.detach()), bits(theirs.detach()))
    weights = strange(tuple(theirs.shape))
    # gradients that do not lie one after another, too
    for grad in (weights, weights.mT.contiguous().mT):
        (found,) = torch.autograd.grad(ours, x, grad, retain_graph=True)
        (right,) = torch.autograd.grad(theirs, x, grad, retain_graph=True)
        assert torch.equal(bits(found), bits(right))


@pytest.mark.usefixtures("no_torch")
def test_gradients_of_gradients_are_torch_s() -> None:
    x = torch.randn(2, 3, 7, 6, requires_grad=True)
    found = []
    for pool in (lambda v: dynamics.average_pool(v, 2, 2), lambda v: F.avg_pool2d(v, 2)):
        (grad,) = torch.autograd.grad((pool(x) ** 3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), x)[0])
    assert found[0].abs().max() > 0.01
    torch.testing.assert_close(*found)


@pytest.mark.usefixtures("no_torch")
def test_gradients_of_every_kind_are_taken() -> None:
    x = torch.randn(2, 3, 7, 6, requires_grad=True)
    ours, theirs = dynamics.average_pool(x, 2), F.avg_pool2d(x, 2)
    zeros = torch._efficientzerotensor(tuple(ours.shape))
    assert (torch.autograd.grad(ours, x, zeros, retain_graph=True)[0] == 0).all()
    many = torch.randn(6, *ours.shape)
    found, right = (
        torch.autograd.grad(y, x, many, is_grads_batched=True, retain_graph=True)[0]
        for y in (ours, theirs)
    )
    assert torch.equal(found, right)
    grad = TwoTensor(many[0].clone(), many[1].clone())
    both: Any = torch.autograd.grad(ours, x, grad)[0]
    assert torch.equal(both.a, right[0])
    assert torch.equal(both.b, right[1])


@pytest.mark.usefixtures("only_torch")
def test_what_the_kernel_does_not_know_is_left_to_torch(as_user: None) -> None:
    x = torch.rand(2, 3, 6, 8)
    for size, stride, rest in [
        (3, 3, ()),
        (2, 1, ()),
        ((2, 3), 2, ()),
        (2, 2, (1,)),
        (2, 2, (0, False, True, 3)),
    ]:
        expected = F.avg_pool2d(x, size, stride, *rest)
        assert torch.equal(dynamics.average_pool(x, size, stride, *rest), expected)
    ragged = x[..., :7].contiguous()
    assert dynamics.average_pool(ragged, 2, 2, 0, True).shape == (2, 3, 3, 4)
    for other in (x.double(), x.to(memory_format=torch.channels_last), x[..., 1:5], x[:0]):
        expected = F.avg_pool2d(other, 2)
        assert torch.equal(dynamics.average_pool(other, 2, 2), expected)
    with sf.backend("reference"):
        dynamics.average_pool(x, 2, 2)
    for wrong, *windows in [
        (x[0, 0], 2, 2),
        (x[None], 2, 2),
        (x[:, :, :1], 2, 2),
        (x, (2, 2, 2), (2,)),
    ]:
        with pytest.raises((RuntimeError, IndexError)):
            dynamics.average_pool(wrong, *windows)
    jvp: Any = torch.func.jvp
    opaque = x.to_mkldnn()
    assert torch.equal(dynamics.average_pool(opaque, 2, 2).to_dense(), F.avg_pool2d(x, 2))
    one = torch.rand(2, 3, 3, 1).permute(0, 3, 1, 2)
    assert dynamics.average_pool(one, 2, 2).stride() == F.avg_pool2d(one, 2).stride()
    averages, tangent = jvp(lambda v: dynamics.average_pool(v, 2, 2), (x,), (x,))
    assert torch.equal(averages, tangent)


@pytest.mark.usefixtures("no_torch")
def test_layers_over_time_use_it_and_hooks_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = sf.OverTime(nn.AvgPool2d(2), nn.AvgPool2d((2, 2), (2, 2)))
    x = torch.randn(3, 2, 4, 8, 8)
    expected = F.avg_pool2d(F.avg_pool2d(x.flatten(0, 1), 2), 2).unflatten(0, (3, 2))
    assert torch.equal(pools(x), expected)
    seen = []
    pools[0].register_forward_hook(lambda *_: seen.append(1))
    asked = _kernels.average_pool

    def ask(*arguments: Any) -> Tensor | None:
        seen.append(2)
        return asked(*arguments)

    monkeypatch.setattr(_kernels, "average_pool", ask)
    assert torch.equal(pools(x), expected)
    assert seen == [1, 2]
