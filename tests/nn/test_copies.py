"""Twins share tensors and nothing else; copies, parts of state dicts, other dtypes."""

import copy
import functools
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import spikefold as sf
from spikefold.data import TensorSamples
from spikefold.errors import ConfigError, FoldError
from spikefold.folding import evaluation
from spikefold.nn import twin
from spikefold.training import evaluate


def folded(negative: bool, channels: int = 4) -> sf.FoldedLIF:
    norm = sf.MPBN(channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-0.3, 0.3)
        if negative:
            norm.weight[::2] *= -1
    return sf.fold(sf.LIF(norm))


# ------------------------------------------------------------------ state dicts


def test_what_a_part_of_a_state_dict_does_not_hold_stays() -> None:
    network = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "lif": folded(negative=True)})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    part = {"conv.weight": torch.ones(4, 3, 3, 3)}
    network.load_state_dict(part, strict=False)
    assert network["lif"].polarity.tolist() == [-1, 1, -1, 1]
    thetas = {"lif.theta": torch.full((4,), 0.25)}
    network.load_state_dict(thetas, strict=False)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["lif.polarity"], before["lif.polarity"])
    assert after["lif.theta"].tolist() == [0.25] * 4


def test_a_whole_state_dict_decides_about_the_polarity() -> None:
    for first, second in ((True, False), (False, True)):
        one, other = folded(first), folded(second)
        one.load_state_dict(other.state_dict())
        x = torch.randn(3, 50, 4)
        assert torch.equal(one(x), other(x))
        assert torch.equal(one.polarity, other.polarity)
    with pytest.raises(RuntimeError, match=r"Missing key.*polarity"):
        folded(negative=True).load_state_dict({"theta": folded(negative=False).theta})


# ------------------------------------------------------------------ dtypes


@pytest.mark.parametrize("convert", ["half", "bfloat16", "double"])
def test_thresholds_keep_the_dtype_they_were_found_in(convert: str) -> None:
    lif = folded(negative=True)
    theta, spikes = lif.theta.clone(), lif(x := torch.randn(3, 50, 4))
    getattr(lif, convert)()
    assert lif.theta.dtype == torch.float32
    assert torch.equal(lif.theta, theta)
    assert torch.equal(lif(x), spikes)
    if convert == "double":
        for call in (lif, lambda x: lif.step(x[0])):
            with pytest.raises(ConfigError, match="convert the network first, then fold"):
                call(x.double())
    else:  # its potentials are float32 as well
        assert lif(x.to(torch.float16)).dtype == torch.float16
    assert lif.to("meta").theta.device.type == "meta"


def test_a_network_is_converted_first_and_folded_then() -> None:
    network = sf.models.small(in_channels=1, steps=2, width=0.25)
    for x in torch.rand(3, 8, 1, 8, 8):
        network(x)
    double = copy.deepcopy(network).double()
    x = torch.rand(16, 1, 8, 8, dtype=torch.float64)
    assert sf.verify(double, sf.fold(double), [x]).mismatches == 0
    with pytest.raises(ConfigError, match="convert the network first"):
        sf.fold(network).double()(x)


def test_flushed_denormals_are_refused() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormals")
    try:
        with pytest.raises(FoldError, match=r"set_flush_denormal\(False\)"):
            folded(negative=False)
    finally:
        torch.set_flush_denormal(False)
    folded(negative=False)


# ------------------------------------------------------------------ twins


def test_a_twin_has_a_mode_of_its_own_and_the_same_tensors() -> None:
    network = sf.models.resnet20(width=0.0625, steps=2)
    other = twin(network.train()).eval()
    assert all(module.training for module in network.modules())
    assert not any(module.training for module in other.modules())
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert one is two
    names = [name for name, _ in network.named_modules()]
    assert names == [name for name, _ in other.named_modules()]
    other.features[0].lif = nn.Identity()
    assert isinstance(network.features[0].lif, sf.LIF)


class Shared(nn.Module):
    """One layer by two names, a forward patched onto it, a pruned weight that is no leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = sf.LIF(sf.MPBN(3))
        self.linear = prune.l1_unstructured(nn.Linear(3, 3), "weight", amount=2)
        self.dropout = nn.Dropout(0.5)

        def forward(module: nn.Module, x: Tensor) -> Tensor:
            return x * 2 if module.training else x

        self.dropout.forward = types.MethodType(forward, self.dropout)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(self.linear(self.first(x))))


def test_a_twin_keeps_what_is_shared_and_what_was_patched() -> None:
    network, x = Shared(), torch.randn(3, 4, 3)
    network(x).sum().backward()  # now the pruned weight cannot be copied
    with evaluation(network) as other:
        assert other.first is other.second
        assert other.first is not network.first
        assert torch.equal(other.dropout(x), x)  # its own mode, not the original's
        y = other(x)
    assert network.training
    assert torch.equal(network.eval()(x), y)
    with pytest.raises(FoldError, match=r"layer 'linear': weight .*prune.remove"):
        sf.fold(network)
    prune.remove(network.linear, "weight")
    assert torch.equal(sf.fold(network)(x), y)


def test_evaluations_and_a_training_do_not_meet() -> None:
    network = sf.models.small(in_channels=1, steps=2, width=0.25).train()
    samples = TensorSamples(torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
    found: list[dict] = []
    threads = [
        threading.Thread(target=lambda: found.append(evaluate(network, samples, 8)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    modes = set()
    while any(thread.is_alive() for thread in threads):
        modes |= {module.training for module in network.modules()}
    assert modes <= {True}
    assert all(module.training for module in network.modules())
    assert len(found) == 3
    assert all(one == found[0] for one in found)
    assert network.features[0].norm.num_batches_tracked == 0


class Scattered(nn.Module):
    """Modules reached in all ways but by a name alone."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.lif = sf.LIF(sf.MPBN(3))
        self.way = way
        self.listed: Any = [self.lif, {"norm": self.norm}]
        self.method = self.norm.forward
        self.called = functools.partial(self.call, self.norm)
        first = self.lif.forward
        if way == "patched closure":
            self.lif.forward = lambda x: first(x)  # type: ignore[method-assign]

    @staticmethod
    def call(norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x)

    def forward(self, x: Tensor) -> Tensor:
        normed = {
            "list": lambda: self.listed[1]["norm"](x),
            "method": lambda: self.method(x),
            "partial": lambda: self.called(x),
            "patched closure": lambda: self.norm(x),
        }[self.way]()
        lif = self.listed[0] if self.way == "list" else self.lif
        return lif(normed[None]).mean(0)


WAYS = ["list", "method", "partial", "patched closure"]


@pytest.mark.parametrize("compiled", ["not", "in place", "wrapped"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_leads_to_a_module_leads_to_its_twin(way: str, compiled: str) -> None:
    """A network in training is evaluated in evaluation mode, and its statistics stay."""
    network: Any = Scattered(way)
    for x in torch.randn(5, 20, 3):
        network(x)
    x = torch.randn(20, 3)
    expected = copy.deepcopy(network).eval()(x) if way != "patched closure" else None
    if compiled == "in place":
        network.compile(backend="eager")
    elif compiled == "wrapped":
        network = torch.compile(network, backend="eager")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with evaluation(network) as other:
        found = other(x)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert expected is None or torch.equal(found, expected)
    assert network.training


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_spoilt_network_is_found_whatever_leads_to_its_neurons(way: str) -> None:
    class Twice(Scattered):
        def forward(self, x: Tensor) -> Tensor:
            events = self.lif((x > 0).float()[None] * 20 - 10)  # far from every threshold
            return (events + self.listed[0](x[None])).mean(0)

    network = Twice(way)
    for x in torch.randn(5, 20, 3):
        network(x)
    network.train()
    folded = sf.fold(network)
    x = torch.randn(20, 3)
    record = sf.verify(network, folded, [x])
    assert (record.mismatches, record.spikes) == (0, 120)
    folded.lif.theta -= 2.5
    assert sf.verify(network, folded, [x]).mismatches > 0
    assert list(sf.with_spikes(network.eval())(x)[1]["lif"].shape) == [2, 20, 3]


def test_a_module_that_has_no_parameters_yet_is_named() -> None:
    network = nn.Sequential(nn.LazyConv2d(6, 3), sf.LIF(sf.MPBN(6)))
    for transform in (sf.fold, sf.with_spikes):
        with pytest.raises((ConfigError, FoldError), match=r"layer '0' \(LazyConv2d\) has no para"):
            transform(network)


def test_graphs_scripts_and_wilful_constructors_have_twins() -> None:
    class Wilful(nn.Linear):
        def __new__(cls, size: int) -> "Wilful":
            return super().__new__(cls)

        def __init__(self, size: int) -> None:
            super().__init__(size, size)

    network = nn.Sequential(
        torch.fx.symbolic_trace(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))),
        torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))),
        Wilful(3),
    ).train()
    x = torch.randn(4, 3)
    with evaluation(network) as other:
        assert torch.equal(other(x), other(x))  # no dropout
    assert all(module.training for module in network)
    assert torch.equal(other(x), network.eval()(x))


def test_thresholds_of_another_dtype_are_not_loaded(tmp_path: Path) -> None:
    network = sf.models.small(in_channels=1, steps=2, width=0.25)
    converted = sf.fold(network).double()
    with pytest.raises(ConfigError, match=r"folded for torch.float32 do not hold"):
        converted(torch.rand(2, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"theta is of torch.float32, which does not go with"):
        sf.save(converted, tmp_path / "f.safetensors")
    with pytest.raises(RuntimeError, match=r"hold for the dtype they were found in"):
        sf.fold(copy.deepcopy(network).double()).load_state_dict(sf.fold(network).state_dict())
