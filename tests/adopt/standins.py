"""Stand-ins for modules of SpikingJelly and snnTorch: their names and attributes, and the published
equations in plain torch. With them the importers are tested where the libraries are absent;
`test_with_spikingjelly.py` and `test_with_snntorch.py` hold both to the real ones.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = TypeVar("Kind", bound=type)


def as_if_from(path: str) -> Callable[[Kind], Kind]:
    def claim(kind: Kind) -> Kind:
        kind.__module__ = path
        return kind

    return claim


of_nodes = as_if_from("spikingjelly.activation_based.neuron")
of_layers = as_if_from("spikingjelly.activation_based.layer")
of_surrogates = as_if_from("spikingjelly.activation_based.surrogate")


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, slope):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z)
        ctx.slope = slope
        return (z >= 0).to(z)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (z,) = ctx.saved_tensors
        return grad * ctx.slope(z), None


@of_surrogates
class Sigmoid(nn.Module):
    def __init__(self, alpha: float = 4.0, spiking: bool = True) -> None:
        super().__init__()
        self.alpha = alpha
        self.spiking = spiking

    def slope(self, z: Tensor) -> Tensor:
        s = torch.sigmoid(self.alpha * z)
        return self.alpha * s * (1 - s)

    def forward(self, z: Tensor) -> Tensor:
        return Step.apply(z, self.slope) if self.spiking else torch.sigmoid(self.alpha * z)


@of_surrogates
class ATan(Sigmoid):
    def slope(self, z: Tensor) -> Tensor:
        return self.alpha / 2 / (1 + (torch.pi / 2 * self.alpha * z) ** 2)


@of_surrogates
class PiecewiseQuadratic(Sigmoid):
    def slope(self, z: Tensor) -> Tensor:
        return (self.alpha - self.alpha**2 * z.abs()).clamp(min=0)


@of_surrogates
class Rect(Sigmoid):
    def slope(self, z: Tensor) -> Tensor:
        return self.alpha * (z.abs() < 0.5 / self.alpha).to(z)


@of_surrogates
class Erf(Sigmoid):
    pass


class Node(nn.Module):
    """Charge, fire at u >= threshold, reset; in multi-step mode from what the call before left."""

    def __init__(
        self,
        *,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = False,
        step_mode: str = "m",
    ) -> None:
        super().__init__()
        self.v_threshold = v_threshold
        self.v_reset = v_reset
        self.surrogate_function = surrogate_function or Sigmoid()
        self.detach_reset = detach_reset
        self.step_mode = step_mode
        self.v: Any = 0.0

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + x

    def single(self, x: Tensor) -> Tensor:
        u = self.charge(x, torch.zeros_like(x) if isinstance(self.v, float) else self.v)
        spike = self.surrogate_function(u - self.v_threshold)
        s = spike.detach() if self.detach_reset else spike
        if self.v_reset is None:
            self.v = u - s * self.v_threshold
        else:
            self.v = s * self.v_reset + (1 - s) * u
        return spike

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.single(x_t) for x_t in x])


@of_nodes
class IFNode(Node):
    pass


@of_nodes
class LIFNode(Node):
    def __init__(self, tau: float = 2.0, decay_input: bool = True, **constants: Any) -> None:
        super().__init__(**constants)
        self.tau = tau
        self.decay_input = decay_input

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + (x - v) / self.tau if self.decay_input else v - v / self.tau + x


@of_nodes
class ParametricLIFNode(Node):
    def __init__(self, w: float = 0.0, decay_input: bool = True, **constants: Any) -> None:
        super().__init__(**constants)
        self.decay_input = decay_input
        self.w = nn.Parameter(torch.tensor(w))

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        rate = self.w.sigmoid()
        return v + (x - v) * rate if self.decay_input else v - v * rate + x


@of_nodes
class MPBNLIFNode(LIFNode):
    """It carries on what it normalized; folded, the raw potential, with a threshold a channel."""

    def __init__(self, vbn: nn.Module, decay_input: bool = False, **constants: Any) -> None:
        super().__init__(decay_input=decay_input, **constants)
        self.vbn = vbn
        self.fold_bn = self.normalize_residual = self.learnable_vth = False

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return self.vbn(super().charge(x, v))


@of_nodes
class IzhikevichNode(Node):
    pass


class Stepped(nn.Module):
    """A layer of torch with time before the batch, in multi-step mode."""

    step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return super().forward(x)
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def layer(name: str) -> Any:
    """The layer of SpikingJelly of this name."""
    return of_layers(type(name, (Stepped, getattr(nn, name)), {}))


Conv2d, BatchNorm2d, AvgPool2d = layer("Conv2d"), layer("BatchNorm2d"), layer("AvgPool2d")
Flatten, Linear = layer("Flatten"), layer("Linear")


@of_layers
class SeqToANNContainer(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@of_layers
class MultiStepContainer(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(x_t) for x_t in x])

    def one(self, x: Tensor) -> Tensor:
        for part in self:
            x = part.single(x) if isinstance(part, Node) else part(x)
        return x


@of_layers
class Dropout(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.step_mode = "m"

    def forward(self, x: Tensor) -> Tensor:
        return x * F.dropout(torch.ones_like(x[0]), self.p, self.training)


def rest(network: nn.Module) -> None:
    """What `reset_net` does."""
    for module in network.modules():
        if isinstance(module, Node):
            module.v = 0.0


@as_if_from("snntorch._neurons.leaky")
class Leaky(nn.Module):
    def __init__(
        self,
        beta: float,
        threshold: float = 1.0,
        reset_mechanism: str = "subtract",
        reset_delay: bool = True,
        output: bool = False,
        **others: Any,
    ) -> None:
        super().__init__()
        self.register_buffer("beta", torch.as_tensor(beta))
        self.register_buffer("threshold", torch.as_tensor(threshold))
        self.reset_mechanism = reset_mechanism
        self.reset_delay = reset_delay
        self.output = output
        self.spike_grad: Any = lambda z: (z > 0).float()
        self.inhibition = self.state_quant = False
        self.graded_spikes_factor: Any = torch.tensor(1.0)
        vars(self).update(others)
        self.mem: Any = 0.0

    def forward(self, x: Tensor) -> Any:
        mem = torch.zeros_like(x) if isinstance(self.mem, float) else self.mem
        reset = (mem > self.threshold).to(x)
        if self.reset_mechanism == "zero":
            mem = self.beta.clamp(0, 1) * ((1 - reset) * mem) + x
        else:
            mem = self.beta.clamp(0, 1) * mem + x - reset * self.threshold
        spikes = (mem > self.threshold).to(x)
        if not self.reset_delay:
            drop = mem if self.reset_mechanism == "zero" else self.threshold
            mem = mem - (spikes - reset) * drop
        self.mem = mem
        return (spikes, mem) if self.output else spikes
