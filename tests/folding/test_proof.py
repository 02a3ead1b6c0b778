"""A proof compares what runs, counts every decision, and is never empty."""

import copy
import json
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import FoldError, ShapeError


def spoilt(folded: nn.Module) -> nn.Module:
    """With thresholds that are wrong on purpose."""
    for module in folded.modules():
        if isinstance(module, sf.FoldedLIF):
            module.theta += 0.5
    return folded


class Net(nn.Module):
    """From images to logits, in the way given by `run`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = sf.SpikingLayer(nn.Linear(6, 8), nn.BatchNorm1d(8), sf.LIF(sf.MPBN(8)))
        self.lif = sf.LIF(sf.MPBN(8))
        self.readout = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.readout(self.lif(self.layer(x.expand(3, *x.shape))).mean(0))


class Stepping(Net):
    def forward(self, x: Tensor) -> Any:
        state, total = None, torch.zeros(())
        for _ in range(4):
            y = self.layer(x[None])[0]
            s, state = self.lif.step(y, state)
            total = total + s
        return self.readout(total)


class Hidden(Net):
    """Its first layer is called twice, and only the first call differs in a spoilt one."""

    def forward(self, x: Tensor) -> Any:
        once = self.lif(self.layer(x[None]))
        return self.readout((once * 0 + self.lif(torch.zeros(1, len(x), 8))).mean(0))


def pair(kind: type[Net]) -> tuple[Net, Net]:
    torch.manual_seed(3)
    network = kind()
    for x in torch.randn(20, 30, 6):
        network(x)
    return network.eval(), sf.fold(network)


X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "calls"), [(Net, 6), (Stepping, 8), (Hidden, 3)])
def test_every_call_counts_and_a_spoilt_network_never_passes(kind: type[Net], calls: int) -> None:
    network, folded = pair(kind)
    record = sf.verify(network, folded, [X])
    assert (record.mismatches, record.spikes) == (0, calls * 50 * 8)
    assert sf.verify(network, spoilt(folded), [X]).mismatches > 0


def test_the_joined_kernels_are_what_is_verified() -> None:
    """A threshold as the kernel alone sees it: what ships is compared, not module by module."""
    network, folded = pair(Net)
    seen: list[tuple[int, ...]] = []
    with sf.nn.observing(network, lambda name, call: seen.append(call.currents.input.shape)):
        network(X)
    assert seen[0] == (1, 50, 8)  # one image, not expanded; the batch norm not yet applied
    assert sf.verify(network, folded, [X]).mismatches == 0


class Unused(Net):
    def forward(self, x: Tensor) -> Any:
        return self.readout(self.layer(x[None]).mean(0))


def test_a_folded_layer_that_decided_nothing_is_no_success() -> None:
    network, folded = pair(Unused)
    for other in (folded, spoilt(folded)):
        with pytest.raises(FoldError, match="nothing is proved of layer 'lif'"):
            sf.verify(network, other, [X])


def test_no_decision_at_all_is_no_success() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with pytest.raises(FoldError, match="no decision of any neuron"):
        sf.verify(network, sf.fuse_conv_bn(network), [torch.rand(2, 3, 8, 8)])
    network, folded = pair(Net)
    with pytest.raises(FoldError, match="no batch"):
        sf.verify(network, folded, [X[:0]])


@pytest.mark.usefixtures("as_user")
def test_what_runs_other_code_is_refused_by_name() -> None:
    network, folded = pair(Net)
    with pytest.raises(FoldError, match=r"OptimizedModule\) is compiled: verify the module you c"):
        sf.verify(network, torch.compile(folded), [X])
    inside = copy.deepcopy(folded)
    inside.layer.compile()
    with pytest.raises(FoldError, match=r"layer 'layer' \(SpikingLayer\) is compiled"):
        sf.verify(network, inside, [X])
    exported = torch.export.export(folded, (X,))
    with pytest.raises(FoldError, match="is exported: verify the module you exported"):
        sf.verify(network, exported.module(), [X])
    with pytest.raises(FoldError, match="verify takes networks, got ExportedProgram"):
        sf.verify(network, exported, [X])  # type: ignore[arg-type]


@pytest.mark.usefixtures("as_user")
def test_a_batch_is_not_taken_for_batches() -> None:
    net, x = Net().eval(), torch.rand(4, 6)
    for batches in (x, (x, torch.zeros(4))):
        with pytest.raises(ShapeError, match=r"an iterable of batches: \[x\], or \[\(x, labels"):
            sf.verify(net, sf.fold(net), batches)  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match="an iterable of batches"):
            sf.cost(net, batches)  # type: ignore[arg-type]


def test_networks_of_two_dtypes_are_refused() -> None:
    net = Net().eval()
    with pytest.raises(FoldError, match=r"weights of torch.float64, the first has not"):
        sf.verify(net, sf.fold(copy.deepcopy(net).double()), [torch.rand(4, 6)])


def test_networks_with_other_calls_are_refused() -> None:
    once, twice = pair(Unused)[0], pair(Hidden)[0]
    with pytest.raises(FoldError, match=r"layer 'lif' fires more often in the second"):
        sf.verify(once, twice, [X])
    with pytest.raises(FoldError, match=r"layer 'lif' fires less often in the second"):
        sf.verify(twice, once, [X])


# ------------------------------------------------------------------ outputs


class Spoiling(Net):
    """Logits with a value in the place of one."""

    value = 0.0

    def forward(self, x: Tensor) -> Any:
        output = super().forward(x)
        output[0, 0] = self.value if self.value else output[0, 0]
        return output


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_reported(value: float) -> None:
    network, folded = pair(Spoiling)
    folded.value = value
    record = sf.verify(network, folded, [X])
    assert record.not_finite == (0, 1)
    assert record.max_output_difference == math.inf
    assert json.loads(json.dumps(record.to_dict(), allow_nan=False))["not_finite"] == [0, 1]
    network.value = value
    record = sf.verify(network, folded, [X])
    assert record.not_finite == (1, 1)
    assert record.max_output_difference == 0
    network.value = -value if value == value else math.inf
    assert sf.verify(network, folded, [X]).max_output_difference == math.inf


class Several(Net):
    form = "tuple"

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return {
            "tuple": (logits, logits * 2),
            "dict": {"features": logits[:, :2], "logits": logits},
            "nested": {"logits": logits, "others": [logits, (logits,)]},
            "steps": torch.stack([logits, logits * 2, logits * 3]),
            "nothing": None,
        }[self.form]


@pytest.mark.parametrize("form", ["tuple", "dict", "nested", "steps"])
def test_outputs_may_be_several_or_one_a_step(form: str) -> None:
    network, folded = pair(Several)
    network.form = folded.form = form
    expected = pair(Net)[0](X).argmax(1)
    labels = torch.where(torch.arange(50) < 40, expected, (expected + 1) % 5)
    record = sf.verify(network, folded, [(X, labels)], per_step=form == "steps")
    assert record.accuracy == (0.8, 0.8)
    assert (record.samples, record.labelled) == (50, 50)
    folded.readout.bias.data += 1.0
    assert sf.verify(network, folded, [X], per_step=form == "steps").max_output_difference >= 1


def test_outputs_of_other_names_are_not_compared() -> None:
    network, folded = pair(Several)
    network.form, folded.form = "tuple", "dict"
    with pytest.raises(FoldError, match="differ in their outputs"):
        sf.verify(network, folded, [X])


@pytest.mark.usefixtures("as_user")
def test_batches_of_other_forms() -> None:
    network, folded = pair(Net)
    labels = network(X).argmax(1)
    for batch in ([X], (X, labels.numpy()), [X, labels.tolist()]):
        assert sf.verify(network, folded, [batch]).mismatches == 0
    wrong: list[tuple[Any, str]] = [
        ({"x": X}, "got a dict"),
        ((X, labels, labels), "got a tuple"),
        (["x"], "inputs must be a tensor, got a str"),
        ((X, "labels"), "labels must be whole numbers"),
    ]
    for batch, message in wrong:
        with pytest.raises(ShapeError, match=message):
            sf.verify(network, folded, [batch])


def test_compiled_and_exported_parts_without_neurons_are_no_obstacle() -> None:
    network, _ = pair(Net)
    network.readout = torch.fx.symbolic_trace(network.readout)
    network.readout.compile(backend="eager")
    assert sf.verify(network, sf.fold(network), [X]).mismatches == 0


def test_labels_that_do_not_fit_are_refused() -> None:
    network, folded = pair(Several)
    network.form = folded.form = "tuple"
    labels = torch.zeros(50, dtype=torch.long)
    for wrong, message in (
        (nn.functional.one_hot(labels, 5), r"50 whole numbers, one a sample, got \[50, 5\]"),
        (labels[:49], r"got \[49\]"),
        (labels.float(), "float32"),
        (labels + 5, "between 5 and 5, but the network tells 5 classes"),
    ):
        with pytest.raises(ShapeError, match=message):
            sf.verify(network, folded, [(X, wrong)])
    network.form = folded.form = "steps"
    with pytest.raises(ShapeError, match="per_step=True"):
        sf.verify(network, folded, [(X, labels)])
    network.form = folded.form = "nothing"
    with pytest.raises(ShapeError, match="returns a NoneType"):
        sf.verify(network, folded, [X])


def test_verify_leaves_modes_statistics_and_hooks_alone() -> None:
    network, folded = pair(Net)
    network.train()
    before = copy.deepcopy(network.state_dict())
    calls: list[Any] = []
    folded.readout.register_forward_hook(lambda *args: calls.append(args))
    sf.verify(network, folded, [X, X])
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert len(calls) == 2


def test_no_more_than_a_batch_is_in_memory() -> None:
    """Of a generator's batches, and of the spikes that are compared, one is left at a time."""
    network, folded = pair(Net)
    inputs: list[weakref.ref[Tensor]] = []
    spikes: list[weakref.ref[Tensor]] = []

    def watch(module: nn.Module, args: Any, output: Tensor) -> None:
        spikes.append(weakref.ref(output))

    network.lif.register_forward_hook(watch)
    folded.lif.register_forward_hook(watch)
    alive: list[tuple[int, int]] = []

    def batches() -> Iterator[Tensor]:
        for x in X.split(10):
            alive.append(tuple(sum(r() is not None for r in refs) for refs in (inputs, spikes)))
            inputs.append(weakref.ref(x := x.clone()))
            yield x
            del x

    assert sf.verify(network, folded, batches()).samples == 50
    assert len(spikes) == 10
    assert alive == [(0, 0)] * 5
