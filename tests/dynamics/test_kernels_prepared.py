"""A layer that was prepared computes what the operator computes, of what its tensors hold now."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F

from spikefold.dynamics import Condition, Currents, Neuron, PreparedLayer, PreparedPool
from spikefold.dynamics._kernels import _fused, _plan, _triton
from spikefold.errors import ConfigError, ShapeError
from tests.dynamics.cases import Case, cases, is_one_kernel, make

pytestmark = pytest.mark.usefixtures("kernels_only")
operator = torch.ops.spikefold.layer.default


def arguments_of(case: Case) -> Any:
    layer = make(case)
    parts = (layer.currents, layer.condition, case.neuron, layer.state, layer.decay)
    return _fused._arguments_of(*parts)


def agrees(layer: PreparedLayer, arguments: Any) -> None:
    for ours, theirs in zip(layer.outputs, operator(*arguments), strict=True):
        assert torch.equal(ours, theirs)


@given(case=cases().filter(is_one_kernel))
@settings(max_examples=150)
@torch.no_grad()
def test_a_prepared_layer_is_the_operator(case: Case) -> None:
    """First as it was prepared, then of another input, then of a parameter changed in place."""
    arguments = arguments_of(case)
    layer = PreparedLayer(*arguments)
    layer()
    agrees(layer, arguments)
    other = arguments.input * -0.7
    layer.expect(other)
    layer(other)
    agrees(layer, arguments._replace(input=other))
    without = PreparedLayer(*arguments, last=False)
    without()
    expected = operator(*arguments)
    assert without.outputs[1].numel() == 0
    for ours, theirs in zip(without.outputs[:1] + without.outputs[2:],
                            expected[:1] + expected[2:], strict=True):  # fmt: skip
        assert torch.equal(ours, theirs)
    for tensor in (arguments.gain, arguments.thresholds, arguments.decays):
        if tensor is not None:
            tensor *= 0.75
    layer(other)
    agrees(layer, arguments._replace(input=other))


def folded(x: Tensor, shortcut: Tensor | None = None) -> Any:
    condition = Condition(None, torch.zeros(1, 5), torch.ones(1, 5))
    return _fused._arguments_of(
        Currents(x, len(x), None, shortcut), condition, Neuron(), None, None
    )


@torch.no_grad()
def test_the_same_memory_may_be_seen_otherwise() -> None:
    merged = torch.randn(6, 5, 4)
    arguments = folded(merged.view(3, 2, 5, 4), merged[:2].expand(3, 2, 5, 4))
    layer = PreparedLayer(*arguments)
    layer.expect(merged, merged[:2])
    layer(merged, merged[:2])
    assert layer.as_they_are
    agrees(layer, arguments)


@torch.no_grad()
def test_a_tensor_that_lies_otherwise_is_not_read() -> None:
    x = torch.randn(3, 2, 5, 4)
    layer = PreparedLayer(*folded(x))
    layer.expect(x)
    for wrong in (x[:2], x.transpose(0, 1).contiguous().transpose(0, 1), x.half()):
        with pytest.raises(ConfigError, match="was prepared: prepare again"):
            layer(wrong)
    with pytest.raises(ShapeError, match="a neuron needs"):
        PreparedLayer(*folded(x)._replace(input=x[0, 0]))
    with pytest.raises(ConfigError, match="not float32"):
        PreparedLayer(*folded(x)._replace(input=x.double()))


@torch.no_grad()
def test_triton_takes_some_tensors_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_plan.KERNELS, "cpu", _triton)
    x, other = torch.randn(2, 3, 2, 5, 4)
    arguments = folded(x, torch.randn(3, 2, 5, 4))
    layer = PreparedLayer(*arguments)
    layer.expect(other)
    layer(other)
    agrees(layer, arguments._replace(input=other))


def test_a_prepared_pool_writes_torch_s_bits_to_the_same_memory() -> None:
    x = torch.randn(2, 3, 7, 9)
    pool = PreparedPool(x)
    pool.output.fill_(7)
    pool()
    assert torch.equal(pool.output, F.avg_pool2d(x, 2))
    other = x.flip(0).contiguous()
    pool(other)
    assert torch.equal(pool.output, F.avg_pool2d(other, 2))


def test_pools_that_are_others_are_left_to_torch(as_user: None) -> None:
    x = torch.rand(2, 3, 6, 8)
    assert PreparedPool.takes(x, [2, 2], [2, 2])
    assert PreparedPool.takes(x, [2, 2], [2, 2], [0, 0], True, False)
    assert not PreparedPool.takes(x, [3, 3], [3, 3])
    assert not PreparedPool.takes(x, [2, 2], [1, 1])
    assert not PreparedPool.takes(x, [2, 2], [2, 2], [1, 1])
    assert not PreparedPool.takes(x, [2, 2], [2, 2], [0, 0], False, True, 1)
    assert not PreparedPool.takes(x[..., :7].contiguous(), [2, 2], [2, 2], [0, 0], True)
    assert not PreparedPool.takes(x.double(), [2, 2], [2, 2])
    assert not PreparedPool.takes(x, [2, 2, 2], [2])
    assert not PreparedPool.takes(x.to(memory_format=torch.channels_last), [2, 2], [2, 2])
    with pytest.raises(ConfigError, match="prepare again"):
        PreparedPool(x)(x[:1])
