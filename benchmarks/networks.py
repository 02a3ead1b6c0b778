"""Suites 2 to 4: resnet20 whole, in spikefold, of SpikingJelly's parts, and its convolutions alone.

The networks share weights, gains and running statistics. The input is T distinct frames, so that
nobody computes a first convolution once and shows it T times.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import spikefold as sf
from benchmarks import formula
from benchmarks.check import check_inference, check_training, watching
from benchmarks.contestant import SEED, Check, Contestant, Contestants, generator, randomize
from benchmarks.formula import Definition
from benchmarks.neurons import jelly_node

CLASSES = 10
LEARNING_RATE = 1e-4  # small: the weights, and with them the spikes, stay about what they are


class JellyLayer(nn.Module):
    """A unit of SpikingJelly's parts: connection and batch norm over merged time, then its node.

    Arguments:
        unit: spikefold's, whose modules are taken over.
        node: SpikingJelly's neuron.
    """

    def __init__(self, unit: sf.SpikingLayer, node: nn.Module) -> None:
        super().__init__()
        self.currents = layer.SeqToANNContainer(unit.connection, unit.norm)
        self.node = node

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Spikes of `[T, N, C, H, W]`."""
        currents = self.currents(x)
        return self.node(currents if shortcut is None else currents + shortcut)


class Jelly(nn.Module):
    """A network whose SpikingJelly nodes are reset before every sequence."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Logits `[N, K]` of frames `[T, N, C, H, W]`."""
        functional.reset_net(self.network)
        return self.network(frames)


def jelly(network: nn.Module) -> Jelly:
    """The same network built from SpikingJelly's parts; the given one is left as it is."""
    network = copy.deepcopy(network)
    units = {n: m for n, m in network.named_modules() if isinstance(m, sf.SpikingLayer)}
    for name, unit in units.items():
        network.set_submodule(name, JellyLayer(unit, jelly_neuron(unit.lif)))
    merged = {n: m for n, m in network.named_modules() if isinstance(m, sf.OverTime)}
    for name, modules in merged.items():
        network.set_submodule(name, layer.SeqToANNContainer(*modules))
    return Jelly(network)


def jelly_neuron(lif: sf.LIF) -> nn.Module:
    """SpikingJelly's node with the gain, shift and running statistics of ours."""
    node = jelly_node(lif.norm.shape[0]).to(lif.norm.weight.device)
    node.vbn.load_state_dict(lif.norm.state_dict())
    return node.train(lif.training)


def jelly_folded(network: nn.Module) -> Jelly:
    """SpikingJelly's network after its own fold, at the defaults of that."""
    folded = jelly(network)
    for unit in units(folded):
        unit.node.re_parameterize_v_threshold()
    return folded.eval()


def units(network: nn.Module) -> list[nn.Module]:
    """The layers of neurons of either library, in the order in which they fire."""
    kinds = sf.SpikingLayer | JellyLayer
    return [module for module in network.modules() if isinstance(module, kinds)]


def trained(width: float, device: torch.device, norm: str = "mpbn") -> nn.Module:
    """A resnet20 with random weights and gains, and running statistics of random frames."""
    torch.manual_seed(SEED)
    network = sf.models.resnet20(CLASSES, norm=norm, width=width).to(device)
    for module in network.modules():
        if isinstance(module, sf.MPBN):
            randomize(module)
    with torch.no_grad():
        for _ in range(8):
            network(random_frames(2, 8, device))
    return network


def random_frames(steps: int, batch: int, device: torch.device) -> Tensor:
    """Frames `[T, N, 3, 32, 32]`, all distinct."""
    return torch.rand(steps, batch, 3, 32, 32, generator=generator()).to(device)


def training(size: dict[str, Any], device: torch.device) -> Contestants:
    """Whole training steps: forward, cross entropy, backward, SGD.

    Arguments:
        size: width, batch and steps.
        device: where everything lies.
    """
    frames = random_frames(size["steps"], size["batch"], device)
    network = cache(lambda: trained(size["width"], device).train())

    def ours() -> Contestant:
        return step(copy.deepcopy(network()), network(), Definition(), frames)

    def theirs() -> Contestant:
        definition = Definition(carries_normalized=True, soft=formula.sigmoid)
        return step(jelly(network()), network(), definition, frames)

    return {
        "spikefold": ours,
        "spikefold, reference": lambda: on_reference(ours()),
        "SpikingJelly": theirs,
        "convolutions": lambda: convolutions(network(), frames),
    }


def step(made: nn.Module, network: nn.Module, definition: Definition, frames: Tensor) -> Contestant:
    """One training step.

    Arguments:
        made: the network to train.
        network: spikefold's with the same weights, which stays as it is.
        definition: of the neurons in `made`.
        frames: the batch.
    """
    parameters = tuple(made.parameters())
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9)
    labels = torch.arange(frames.shape[1], device=frames.device) % CLASSES

    def loss_of(module: nn.Module, dtype: torch.dtype) -> Tensor:
        return cross_entropy(module(frames.to(dtype)), labels)

    def loss() -> Tensor:
        return loss_of(made, frames.dtype)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def check() -> Check:
        return check_training(made, units(made), network, definition, loss_of)

    return Contestant(run, check, loss, (frames, labels, *parameters, *made.buffers()))


def on_reference(contestant: Contestant) -> Contestant:
    """The same on the plain torch code that spikefold's kernels are held to."""

    def within(work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with sf.backend("reference"):
                return work()

        return run

    return replace(
        contestant,
        run=within(contestant.run),
        check=within(contestant.check),
        loss=within(contestant.loss),
    )


def convolutions(network: nn.Module, frames: Tensor) -> Contestant:
    """The floor: convolutions and linear layer alone, forward, backward and SGD.

    Inputs are those of the network, spikes included; all but the first one's get a gradient.
    """
    network = copy.deepcopy(network)
    modules = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad(), watching(modules) as calls:
        network(frames)
    inputs = [call.x.clone().requires_grad_(number > 0) for number, call in enumerate(calls)]
    grads = [torch.randn_like(call.y) for call in calls]
    called = [call.module for call in calls]
    parameters = [parameter for module in called for parameter in module.parameters()]
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        for x in inputs:
            x.grad = None
        outputs = [module(x) for module, x in zip(called, inputs, strict=True)]
        torch.autograd.backward(outputs, grads)
        optimizer.step()

    return Contestant(run)


def inference(size: dict[str, Any], device: torch.device) -> Contestants:
    """Networks in evaluation: without MPBN, folded, not folded, and folded by SpikingJelly.

    Arguments:
        size: width, batch and steps.
        device: where everything lies.
    """
    frames = random_frames(size["steps"], size["batch"], device)
    network = cache(lambda: trained(size["width"], device).eval())

    def plain() -> Contestant:
        made = trained(size["width"], device, norm="none").eval()
        return logits(made, made, frames)

    return {
        "without MPBN": plain,
        "folded": lambda: logits(sf.fold(network()), network(), frames),
        "MPBN, not folded": lambda: logits(network(), network(), frames),
        "SpikingJelly, folded": lambda: logits(jelly_folded(network()), network(), frames),
    }


def logits(made: nn.Module, network: nn.Module, frames: Tensor) -> Contestant:
    """One forward pass in evaluation.

    Arguments:
        made: the network to run.
        network: the one it was folded from, whose running statistics define what it should do.
        frames: the batch.
    """

    @torch.inference_mode()
    def run() -> Tensor:
        return made(frames)

    return Contestant(run, lambda: check_inference(made, units(made), network, frames))
