"""Layers and networks under torch.compile and torch.export; `test_kernels` runs it."""

import sys

import torch

import spikefold as sf
from spikefold import dynamics
from tests.dynamics.cases import Case, make


def operator() -> None:
    """The operator computes what eager mode does, to the bit."""
    layer = make(Case(norm="batch", shortcut=True, state=True))
    compiled = torch.compile(dynamics.layer, backend="aot_eager", fullgraph=True)
    results = []
    for run in (dynamics.layer, compiled):
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


CHECKS = {check.__name__: check for check in (operator, training, inductor, export)}

if __name__ == "__main__":
    torch.manual_seed(0)
    with sf.backend("fused"):
        CHECKS[sys.argv[1]]()
