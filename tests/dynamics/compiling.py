"""Layers and networks under torch.compile and torch.export; `test_kernels` runs it."""

import copy
import io
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import spikefold as sf
from spikefold import dynamics
from spikefold.errors import FoldError
from tests.dynamics.cases import Case, make
from tests.nn.current_norms import NORMS


def small() -> sf.models.Network:
    return sf.models.small(in_channels=1, steps=3, width=0.25).eval()


def operator() -> None:
    """The operator computes what eager mode does, to the bit."""
    layer = make(Case(norm="batch", shortcut=True, state=True))
    compiled = torch.compile(dynamics.simulate, backend="aot_eager", fullgraph=True)
    results = []
    for run in (dynamics.simulate, compiled):
        fired = layer.run(run)
        results.append([fired.spikes, *layer.gradients(fired.spikes, fired.v).values()])
    assert all(map(torch.equal, *results))


def training() -> None:
    """A network compiles whole, and trains as it does without."""
    network = sf.models.small(in_channels=1, steps=3, width=0.25)
    x, labels = torch.rand(4, 1, 8, 8), torch.arange(4)
    grads = []
    for run in (network, torch.compile(network, backend="aot_eager", fullgraph=True)):
        network.zero_grad()
        torch.nn.functional.cross_entropy(run(x), labels).backward()
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def inductor() -> None:
    """A folded network by torch's default compiler."""
    folded = sf.fold(sf.models.small(in_channels=1, steps=3, width=0.25).eval())
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(folded, fullgraph=True)(x), folded(x))


def export() -> None:
    """Networks export with the operator in them, for any batch."""
    network = sf.models.small(in_channels=1, steps=3, width=0.25).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    for model in (network, sf.fold(network)):
        example = (torch.rand(4, 1, 8, 8),)
        exported = torch.export.export(model, example, dynamic_shapes={"x": {0: batch}})
        called = [node.target for node in exported.graph.nodes]
        assert torch.ops.spikefold.layer.default in called
        x = torch.rand(7, 1, 8, 8)
        assert torch.equal(exported.module()(x), model(x))


def expanded() -> None:
    """An image shown at all steps gets its gradient, compiled too."""
    for norm in (None, sf.MPBN(3)):
        lif = sf.LIF(norm)

        def run(y: Tensor, lif: sf.LIF = lif) -> Tensor:
            return lif(sf.OverTime(nn.Identity())(y.expand(4, *y.shape)))

        y, weights = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(4, 2, 3, 5, 5)
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        grads = [torch.autograd.grad((f(y) * weights).sum(), y)[0] for f in (run, compiled)]
        torch.testing.assert_close(*grads)


def cumulative() -> None:
    """Cumulative statistics compile whole, and count on."""

    def layer() -> sf.SpikingLayer:
        norm = nn.BatchNorm1d(4, momentum=None)
        return sf.SpikingLayer(nn.Linear(3, 4), norm, sf.LIF(sf.MPBN(4, momentum=None)))

    one, other = layer(), layer()
    other.load_state_dict(one.state_dict())
    compiled = torch.compile(one, fullgraph=True, backend="aot_eager")
    for x in torch.randn(3, 2, 5, 3):
        assert torch.equal(compiled(x), other(x))
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def inside() -> None:
    """A backend may be chosen inside of what is compiled."""
    neuron = sf.LIF()

    def run(x: Tensor) -> Tensor:
        with sf.backend("reference"):
            return neuron(x)

    x = torch.randn(3, 2, 4)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(x), neuron(x))


def traced() -> None:
    """torch.jit.trace records the operator, with gradients and without."""
    network, other = small(), torch.rand(2, 1, 8, 8)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            trace = torch.jit.trace(network, torch.rand(2, 1, 8, 8))
        assert torch.equal(trace(other), network(other))
    trace(other).sum().backward()
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    network(other).sum().backward()
    for one, two in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(one, two.grad)
    with pytest.raises(Exception, match="spikefold::layer"):  # not a model without the neurons
        torch.onnx.export(network, (other,), io.BytesIO(), dynamo=False)


def graphs() -> None:
    """Graphs of other tracers hold the operator and compute the same."""
    network, x = small(), torch.rand(2, 1, 8, 8)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}

    def run(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(network, tensors, (x,))

    for mode in ("real", "fake", "symbolic"):
        for pre_dispatch in (False, True):
            with torch.no_grad():
                tracer = make_fx(run, tracing_mode=mode, pre_dispatch=pre_dispatch)
                graph = tracer(tensors, torch.rand(2, 1, 8, 8))
                assert torch.equal(graph(tensors, x), network(x)), (mode, pre_dispatch)
            called = [node.target for node in graph.graph.nodes]
            assert called.count(torch.ops.spikefold.layer.default) == 4


def spikes() -> None:
    """with_spikes compiled, traced and exported: every spike is an output."""
    network, x = sf.fold(small()), torch.rand(4, 1, 8, 8)
    watched = sf.with_spikes(network)
    output, expected = watched(x)
    assert torch.equal(output, network(x))
    runs = {
        "compiled": torch.compile(watched, fullgraph=True, backend="aot_eager"),
        "exported": torch.export.export(watched, (x,)).module(),
        "traced": torch.jit.trace(watched, x, strict=False),
    }
    for name, run in runs.items():
        for _ in range(2):
            result, found = run(x)
            assert torch.equal(result, output), name
            assert found.keys() == expected.keys(), name
            assert all(torch.equal(found[key], expected[key]) for key in expected), name
    training = sf.with_spikes(sf.models.small(in_channels=1, steps=3, width=0.25))
    compiled = torch.compile(training, fullgraph=True, backend="aot_eager")
    logits, fired = compiled(x)
    (logits.sum() + sum(s.mean() for s in fired.values())).backward()
    assert all(p.grad is not None for p in training.network.features.parameters())


class Hidden(nn.Module):
    """Compiles a part of itself where nobody sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = sf.LIF(sf.MPBN(4))
        self.plain = sf.LIF()
        self.run: list[Callable[[Tensor], Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.run:
            lif = self.lif
            self.run = [torch.compile(lambda x: lif(x), backend="eager")]
        return self.run[0](self.plain(x)).mean(0)


def proof() -> None:
    """Parts that are compiled where nobody sees it run as they were written: they are compared."""
    network = Hidden().eval()
    folded = sf.fold(network)
    x = torch.randn(3, 8, 4)
    if "torch._dynamo" not in sys.modules:
        with pytest.raises(FoldError, match=r"compiled while it was verified|nothing is proved"):
            sf.verify(network, folded, [x])
    for _ in range(2):  # before and after they ran
        record = sf.verify(network, folded, [x])
        assert (record.mismatches, record.spikes) == (0, 2 * x.numel())
        folded(x)
        network(x)
    folded.lif.theta += 0.5
    assert sf.verify(network, folded, [x]).mismatches > 0
    # one that was compiled and has run can be verified itself
    small_one = small()
    folded = sf.fold(small_one)
    images = torch.rand(4, 1, 8, 8)
    torch.compile(folded, backend="aot_eager")(images)
    assert sf.verify(small_one, folded, [images]).mismatches == 0
    for module in folded.modules():
        if isinstance(module, sf.FoldedLIF):
            module.theta += 0.5
    assert sf.verify(small_one, folded, [images]).mismatches > 0


def maps() -> None:
    """Norms of the currents that know time, on frames and on an image shown at all steps."""
    for norm in NORMS.values():
        layer = sf.SpikingLayer(nn.Conv2d(3, 6, 3), norm(6, 4), sf.LIF(sf.MPBN(6)))
        other = copy.deepcopy(layer)
        compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
        image = torch.randn(5, 3, 6, 6)
        for x in (torch.randn(4, 5, 3, 6, 6), image.expand(4, *image.shape)):
            for run in (layer, compiled):
                run(x).sum().backward()
        for one, two in zip(layer.parameters(), other.parameters(), strict=True):
            # Norms make the sums of a gradient cancel: either is up to 4e-5 from float64.
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-4)
        for one, two in zip(layer.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(one, two)
        exported = torch.export.export(layer.eval(), (x,)).module()
        assert torch.equal(exported(x), layer(x))


def reference() -> None:
    """The reference compiles whole too."""
    network, x = small().train(), torch.rand(4, 1, 8, 8)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), network(x))


CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        *(operator, training, inductor, export),
        *(expanded, cumulative, inside, traced, graphs, spikes, proof, maps, reference),
    )
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        print("check", name, file=sys.stderr)
        torch.manual_seed(0)
        torch.compiler.reset()
        with sf.backend("reference" if name == "reference" else "fused"):
            CHECKS[name]()
