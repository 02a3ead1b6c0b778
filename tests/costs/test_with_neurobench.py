"""Operations beside NeuroBench's counter, which `make interop` installs."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import spikefold as sf

pytestmark = pytest.mark.interop
models = pytest.importorskip("neurobench.models", reason="NeuroBench is not here: make interop")
benchmarks = pytest.importorskip("neurobench.benchmarks")
workload = pytest.importorskip("neurobench.metrics.workload")


@pytest.mark.parametrize("name", ["small", "resnet20"])
def test_the_same_operations(name: str) -> None:
    x = torch.rand(8, 3, 32, 32)
    network = getattr(sf.models, name)(steps=4, width=0.125)
    for _ in range(4):
        network(x)
    network = sf.fuse_conv_bn(sf.fold(network))
    wrapped = models.TorchModel(network)
    wrapped.add_activation_module(sf.FoldedLIF)
    loader = DataLoader(TensorDataset(x, torch.zeros(8)), batch_size=8)
    metrics = [[], [workload.SynapticOperations]]
    run = benchmarks.Benchmark(wrapped, loader, [], [], metrics).run
    with torch.no_grad():
        expected = run(quiet=True, verbose=False)["SynapticOperations"]
    cost = sf.cost(network, [x])
    assert cost.acs == expected["Effective_ACs"] > 0
    assert cost.effective_macs == expected["Effective_MACs"]
    assert cost.dense == expected["Dense"]
