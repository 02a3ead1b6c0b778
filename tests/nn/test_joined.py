"""Units that compute batch norm, shortcut and neurons together: the same as module by module."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from tests.nn.current_norms import NORMS


def unit(norm: nn.Module, lif: sf.LIF | None = None) -> sf.SpikingLayer:
    return sf.SpikingLayer(nn.Conv2d(3, 6, 3, padding=1), norm, lif or sf.LIF(sf.MPBN(6)))


def run(layer: sf.SpikingLayer, x: Tensor, shortcut: Tensor) -> dict[str, Tensor]:
    """Spikes, gradients of everything, and running statistics after."""
    x, shortcut = x.clone().requires_grad_(), shortcut.clone().requires_grad_()
    spikes = layer(x, shortcut)
    weights = torch.linspace(-1, 1, spikes.numel()).reshape(spikes.shape)
    (spikes * weights).sum().backward()
    grads = {name: p.grad for name, p in layer.named_parameters()}
    return {
        "spikes": spikes,
        "x": x.grad,
        "shortcut": shortcut.grad,
        **grads,
        **dict(layer.named_buffers()),
    }


def watched(layer: sf.SpikingLayer, name: str) -> sf.SpikingLayer:
    """A copy with a hook, which makes it call its modules one by one."""
    layer = copy.deepcopy(layer)
    layer.get_submodule(name).register_forward_hook(lambda *args: None)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("watch", ["norm", "lif"])
@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(6),
        lambda: nn.BatchNorm2d(6, momentum=None),
        lambda: nn.BatchNorm2d(6, eps=0.1, momentum=0.5),
        lambda: nn.BatchNorm2d(6, affine=False),
        lambda: nn.BatchNorm2d(6, track_running_stats=False),
        lambda: nn.GroupNorm(2, 6),
        nn.Identity,
        *(partial(norm, 6, 3) for norm in NORMS.values()),
    ],
    ids=[
        *("plain", "cumulative", "settings", "no parameters", "no statistics", "other", "none"),
        *NORMS,
    ],
)
def test_together_or_module_by_module(
    norm: Callable[[], nn.Module], watch: str, training: bool
) -> None:
    layer = unit(norm()).train(training)
    with torch.no_grad():
        for parameter in layer.norm.parameters():
            parameter.uniform_(0.5, 1.5)
    x, shortcut = torch.randn(3, 4, 3, 5, 5), torch.randn(3, 4, 6, 5, 5)
    apart = watched(layer, watch)
    for _ in range(2):  # running statistics twice
        ours, theirs = run(layer, x, shortcut), run(apart, x, shortcut)
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours.pop("spikes"), theirs.pop("spikes"))
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_reference_backend_gives_the_same_network() -> None:
    network = sf.models.resnet20(width=0.0625, steps=2, image_size=16)
    other = copy.deepcopy(network)
    x = torch.rand(4, 3, 16, 16)
    grads = []
    for model, backend in ((network, "fused"), (other, "reference")):
        with sf.backend(backend):
            output = model(x)
            output.square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (grads[0] - grads[1]).norm() < 1e-3 * grads[1].norm()
    for (name, one), two in zip(network.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4, msg=name)
    network.eval()
    with sf.backend("fused"):
        ours = network(x)
    with sf.backend("reference"):
        assert torch.equal(ours, network(x))


def test_a_neuron_of_ones_own_is_called() -> None:
    class Silent(sf.LIF):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    layer = unit(nn.BatchNorm2d(6), Silent())
    assert layer(torch.randn(2, 2, 3, 4, 4)).sum() == 0
    assert layer.norm.num_batches_tracked == 1


def test_one_value_a_statistic_is_refused_as_torch_does() -> None:
    layer = sf.SpikingLayer(nn.Linear(3, 6), nn.BatchNorm1d(6), sf.LIF())
    with pytest.raises(sf.ShapeError, match="larger batch"):
        layer(torch.randn(1, 1, 3))


def test_memory_kept_for_backward_is_the_convolutions_inputs_and_outputs() -> None:
    layer, kept = unit(nn.BatchNorm2d(6)), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x, shortcut = torch.randn(3, 4, 3, 8, 8), torch.randn(3, 4, 6, 8, 8, requires_grad=True)
    parameters = {p.data_ptr() for p in layer.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        spikes = layer(x, shortcut)
    small = 2 * 6 * 4 + 2 * 3 * 6 * 4  # statistics, in bytes
    activations = (x.numel() + 2 * spikes.numel()) * 4  # x, currents, shortcut
    assert sum(size for at, size in kept.items() if at not in parameters) == activations + small
