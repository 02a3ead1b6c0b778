"""Whole residual networks in training against the equations, written down once more.

Nothing of spikefold's dynamics or modules computes here: only names and tensors of the state dict
are taken over. float64, so that spikes are equal and gradients agree to rounding.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import spikefold as sf
from spikefold.nn import Call, observing

EPS, DECAY, THRESHOLD = 1e-5, 0.25, 0.5


class Spike(torch.autograd.Function):
    """1[h > threshold]; ds/dh = k (1 - tanh²(k (w - ½))) / (2 tanh(k / 2)), w in [0, 1], k = 3."""

    @staticmethod
    def forward(ctx, h):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(h)
        return (h > THRESHOLD).double()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (h,) = ctx.saved_tensors
        w = h - THRESHOLD + 0.5
        slope = 3 * (1 - torch.tanh(3 * (w - 0.5)) ** 2) / (2 * math.tanh(1.5))
        return grad * slope * (w >= 0) * (w <= 1)


class Restated:
    """A residual network as functions of its tensors."""

    def __init__(self, tensors: dict[str, Tensor], steps: int, strided: bool) -> None:
        self.tensors = tensors
        self.steps = steps
        self.strided = strided  # shortcuts: a strided convolution, or pooled before one
        self.spikes: dict[str, Tensor] = {}

    def batch_norm(self, x: Tensor, name: str, axes: list[int]) -> Tensor:
        mean = x.mean(axes, keepdim=True)
        variance = ((x - mean) ** 2).mean(axes, keepdim=True)
        gain, shift = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        if gain.ndim == 1:
            gain, shift = gain[:, None, None], shift[:, None, None]
        return gain * (x - mean) / torch.sqrt(variance + EPS) + shift

    def currents(self, x: Tensor, name: str, norm: str, stride: int) -> Tensor:
        weight = self.tensors[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        y = torch.stack([F.conv2d(x_t, weight, stride=stride, padding=padding) for x_t in x])
        return self.batch_norm(y, norm, [0, 1, 3, 4])

    def neurons(self, x: Tensor, name: str) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        element = self.tensors[f"{name}.norm.weight"].ndim > 1
        for x_t in x:
            u = DECAY * v + x_t
            h = self.batch_norm(u, f"{name}.norm", [0] if element else [0, 2, 3])
            s = Spike.apply(h)
            v = u * (1 - s)
            spikes.append(s)
        self.spikes[name] = torch.stack(spikes)
        return self.spikes[name]

    def unit(self, x: Tensor, name: str, stride: int = 1, shortcut: Tensor | float = 0.0) -> Tensor:
        currents = self.currents(x, f"{name}.connection", f"{name}.norm", stride)
        return self.neurons(currents + shortcut, f"{name}.lif")

    def block(self, x: Tensor, name: str) -> Tensor:
        # a projection stands where channels change, and there the size halves but in the first
        shortcut, stride = x, 1
        convolution, norm = ("0", "1") if self.strided else ("1", "2")
        if f"{name}.shortcut.{norm}.weight" in self.tensors:
            stride = 2
            if not self.strided:
                shortcut = torch.stack([F.avg_pool2d(x_t, 2, ceil_mode=True) for x_t in x])
            names = (f"{name}.shortcut.{convolution}", f"{name}.shortcut.{norm}")
            shortcut = self.currents(shortcut, *names, 2 if self.strided else 1)
        first = self.unit(x, f"{name}.first", stride)
        return self.unit(first, f"{name}.second", 1, shortcut)

    def __call__(self, image: Tensor) -> Tensor:
        x = torch.stack([image] * self.steps)
        places = sorted({int(name.split(".")[1]) for name in self.tensors if "features" in name})
        for place in range(max(places) + 1):
            name = f"features.{place}"
            if place not in places:  # the pooling behind the stem
                x = torch.stack([F.avg_pool2d(x_t, 2) for x_t in x])
            elif f"{name}.connection.weight" in self.tensors:
                x = self.unit(x, name)
            else:
                x = self.block(x, name)
        features = x.mean((3, 4))
        logits = features @ self.tensors["classifier.weight"].T + self.tensors["classifier.bias"]
        return logits.mean(0)


@pytest.mark.parametrize("norm", ["mpbn", "mpbn-element"])
@pytest.mark.parametrize(("name", "strided"), [("resnet20", False), ("resnet19", True)])
def test_spikes_are_equal_and_gradients_to_rounding(name: str, strided: bool, norm: str) -> None:
    network = sf.models.MODELS[name](norm=norm, width=0.0625, steps=3, image_size=16).double()
    if strided:  # its first stage has no projection, as channels do not change there
        assert not hasattr(network.features[1].shortcut, "0")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    spikes: dict[str, Tensor] = {}

    def see(layer: str, call: Call) -> None:
        spikes[layer] = call.fired.spikes

    for _ in range(4):
        x, labels = torch.rand(6, 3, 16, 16, dtype=torch.float64), torch.randint(10, (6,))
        leaves = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
        restated = Restated(leaves, steps=3, strided=strided)
        expected = restated(x)
        F.cross_entropy(expected, labels).backward()
        optimizer.zero_grad()
        with observing(network, see):
            logits = network(x)
        F.cross_entropy(logits, labels).backward()
        assert spikes.keys() == restated.spikes.keys()
        for layer, fired in spikes.items():
            assert torch.equal(fired, restated.spikes[layer]), layer
            assert 0 < fired.mean() < 1, layer
        assert (logits - expected).abs().max() < 1e-12
        for key, parameter in network.named_parameters():
            grad, wanted = parameter.grad, leaves[key].grad
            assert grad is not None
            assert wanted is not None
            assert (grad - wanted).norm() <= 1e-12 * max(wanted.norm(), 1), key
        optimizer.step()
