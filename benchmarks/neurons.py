"""Suite 1: the neuron layer alone, forward and backward, in every library.

All have decay 0.25, threshold 0.5 and a hard reset, and see the same currents `[T, N, C, H, W]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import norse.torch as norse
import snntorch
import torch
from snntorch import surrogate as snntorch_surrogate
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

import spikefold as sf
from benchmarks import formula
from benchmarks.contestant import DECAY, THRESHOLD, Contestant, Contestants, generator, randomize
from benchmarks.formula import Definition

TAU = 1 / (1 - DECAY)  # SpikingJelly: u = v - v / tau + x


@dataclass(frozen=True)
class Layer:
    """Neurons of one library, and what they say they compute."""

    forward: Callable[[Tensor], Tensor]
    definition: Definition


def spikefold_mpbn(channels: int, device: torch.device) -> Layer:
    """Spikefold's LIF with MPBN."""
    lif = sf.LIF(norm=sf.MPBN(channels), decay=DECAY, threshold=THRESHOLD).to(device)
    randomize(lif.norm)
    return Layer(lif, Definition(lif.norm))


def spikefold_reference(channels: int, device: torch.device) -> Layer:
    """The same on the plain torch code that the kernels are held to."""
    layer = spikefold_mpbn(channels, device)

    def forward(x: Tensor) -> Tensor:
        with sf.backend("reference"):
            return layer.forward(x)

    return Layer(forward, layer.definition)


def spikefold_lif(channels: int, device: torch.device) -> Layer:
    """Spikefold's LIF without a norm."""
    return Layer(sf.LIF(decay=DECAY, threshold=THRESHOLD), Definition())


def jelly_node(channels: int) -> neuron.MPBNLIFNode:
    """SpikingJelly's MPBN neuron, multi-step, with its default surrogate."""
    return neuron.MPBNLIFNode(
        tau=TAU,
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(),
        step_mode="m",
        out_channels=channels,
    )


def jelly_mpbn(channels: int, device: torch.device) -> Layer:
    """SpikingJelly's MPBN neuron. It carries the normalized potential: checked as it defines it."""
    node = jelly_node(channels).to(device)
    randomize(node.vbn)
    definition = Definition(node.vbn, carries_normalized=True, soft=formula.sigmoid)
    return Layer(without_state(node), definition)


def jelly_lif(channels: int, device: torch.device) -> Layer:
    """SpikingJelly's LIF: its 2.0.0 chooses the implementation by device."""
    node = neuron.LIFNode(
        tau=TAU,
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(),
        step_mode="m",
    )
    return Layer(without_state(node), Definition(soft=formula.sigmoid))


def without_state(node: nn.Module) -> Callable[[Tensor], Tensor]:
    """A SpikingJelly module that forgets the sequence before, as its documentation asks."""

    def forward(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return forward


def snntorch_leaky(channels: int, device: torch.device) -> Layer:
    """The Leaky of snnTorch in a loop over time. Its reset never lets a gradient through."""
    leaky = snntorch.Leaky(
        beta=DECAY,
        threshold=THRESHOLD,
        spike_grad=snntorch_surrogate.atan(),
        reset_mechanism="zero",
    ).to(device)

    def forward(x: Tensor) -> Tensor:
        potential = leaky.reset_mem()
        spikes = []
        for x_t in x:
            s, potential = leaky(x_t, potential)
            spikes.append(s)
        return torch.stack(spikes)

    return Layer(forward, Definition(soft=formula.atan, detach_reset=True))


def norse_box(channels: int, device: torch.device) -> Layer:
    """Norse's LIF without synaptic current, lifted over time.

    It decays the input as well: u' = 0.25 v' + 0.75 x is 0.75 u, so the threshold is 0.75 of ours.
    """
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor((1 - DECAY) / 0.001, device=device),  # its time step is 0.001
        v_leak=torch.tensor(0.0, device=device),
        v_th=torch.tensor((1 - DECAY) * THRESHOLD, device=device),
        v_reset=torch.tensor(0.0, device=device),
    )
    lifted = norse.Lift(norse.LIFBoxCell(parameters))
    return Layer(lambda x: lifted(x)[0], Definition(soft=formula.superspike))


LAYERS: dict[str, Callable[[int, torch.device], Layer]] = {
    "spikefold MPBN": spikefold_mpbn,
    "spikefold MPBN, reference": spikefold_reference,
    "spikefold LIF": spikefold_lif,
    "SpikingJelly MPBN": jelly_mpbn,
    "SpikingJelly LIF": jelly_lif,
    "snnTorch Leaky": snntorch_leaky,
    "Norse LIFBox": norse_box,
}


def contestants(shape: list[int], device: torch.device) -> Contestants:
    """All layers, one nn.BatchNorm2d, and the floor: two plain copies, one each way.

    Arguments:
        shape: of the currents, `[T, N, C, H, W]`.
        device: where they lie.
    """

    @cache
    def tensors() -> tuple[Tensor, Tensor]:
        random = generator()
        x, grad = (torch.randn(shape, generator=random).to(device) for _ in range(2))
        return x.requires_grad_(), grad

    def neurons(make: Callable[[int, torch.device], Layer]) -> Contestant:
        return training(make(shape[2], device), *tensors())

    def batch_norm() -> Contestant:
        x, grad = tensors()
        norm = nn.BatchNorm2d(shape[2]).to(device)
        leaves = [x, norm.weight, norm.bias]
        return Contestant(
            lambda: backward(norm(x.flatten(0, 1)).unflatten(0, shape[:2]), grad, leaves)
        )

    def copies() -> Contestant:
        x, grad = tensors()
        return Contestant(lambda: (x.detach().clone(), grad.clone()))

    return {
        **{name: lambda make=make: neurons(make) for name, make in LAYERS.items()},
        "nn.BatchNorm2d": batch_norm,
        "copy": copies,
    }


def training(layer: Layer, x: Tensor, grad: Tensor) -> Contestant:
    """Forward and backward of one layer."""
    norm = layer.definition.norm
    leaves = [x] if norm is None else [x, norm.weight, norm.bias]

    def run() -> tuple[Tensor, tuple[Tensor, ...]]:
        spikes = layer.forward(x)
        return spikes, backward(spikes, grad, leaves)

    def check() -> formula.Check:
        spikes, found = run()
        return formula.check_training(x.detach(), spikes, grad, list(found), layer.definition)

    return Contestant(run, check, lambda: layer.forward(x), tuple(leaves))


def backward(output: Tensor, grad: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients with respect to the leaves."""
    return torch.autograd.grad(output, leaves, grad)
