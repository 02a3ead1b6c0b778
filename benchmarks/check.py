"""Whole networks against the straight formula, on the very path that is timed.

A formula network has the weights of a spikefold network and runs in double precision: convolution,
batch norm and shortcut by torch, neurons by `formula.potentials`. It follows the spikes that the
contestant fired, so that every layer is checked on the same input, and its gradients are those
that the contestant should have found.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

import spikefold as sf
from benchmarks.contestant import THRESHOLD, Check
from benchmarks.formula import GRADIENT_TOLERANCE, TIE, Definition, potentials


class Call(NamedTuple):
    """One call of a module."""

    module: nn.Module
    x: Tensor
    y: Tensor


@contextmanager
def watching(modules: list[nn.Module]) -> Iterator[list[Call]]:
    """The calls of the modules, in order. Whole units are watched: a hook inside one unfuses it."""
    calls: list[Call] = []

    def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(Call(module, inputs[0].detach(), output.detach()))

    handles = [module.register_forward_hook(see) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class FormulaLayer(nn.Module):
    """A unit written down straight, which follows given spikes and counts those that are wrong.

    Arguments:
        unit: spikefold's, whose weights it has.
        spikes: what the contestant fired.
        definition: of the neuron, but for the norm, which is the unit's.
    """

    def __init__(self, unit: sf.SpikingLayer, spikes: Tensor, definition: Definition) -> None:
        super().__init__()
        self.currents = sf.OverTime(unit.connection, unit.norm)
        self.membrane_norm = unit.lif.norm
        self.spikes = spikes.double()
        self.definition = definition
        self.wrong = 0

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """The contestant's spikes, with the gradient of the definition."""
        currents = self.currents(x)
        currents = currents if shortcut is None else currents + shortcut
        norm = self.membrane_norm
        affine = () if norm is None else (norm.weight, norm.bias)
        definition = replace(self.definition, norm=norm)
        decided, fired = potentials(currents, self.spikes, definition, affine)
        for h, s in zip(decided, self.spikes, strict=True):
            margin = h.detach() - THRESHOLD
            self.wrong += int(((s != (margin > 0)) & (margin.abs() > TIE)).sum())
        return torch.stack(fired)


def formula_network(network: nn.Module, spikes: list[Tensor], definition: Definition) -> nn.Module:
    """A copy of a spikefold network whose units are written down straight."""
    made = copy.deepcopy(network).double()
    units = [(n, m) for n, m in made.named_modules() if isinstance(m, sf.SpikingLayer)]
    for (name, unit), fired in zip(units, spikes, strict=True):
        made.set_submodule(name, FormulaLayer(unit, fired, definition))
    return made


def wrong_spikes(formula: nn.Module) -> tuple[int, str]:
    """How many spikes of a formula network that has run were wrong, and that in words."""
    layers = [layer for layer in formula.modules() if isinstance(layer, FormulaLayer)]
    wrong = sum(layer.wrong for layer in layers)
    count = sum(layer.spikes.numel() for layer in layers)
    return wrong, f"{wrong} of {count} spikes in {len(layers)} layers wrong"


def check_training(
    contestant: nn.Module,
    units: list[nn.Module],
    network: nn.Module,
    definition: Definition,
    loss: Callable[[nn.Module, torch.dtype], Tensor],
) -> Check:
    """Spikes and the gradients of all parameters, in one training step.

    Arguments:
        contestant: a network.
        units: its layers of neurons.
        network: spikefold's with the same weights, parameters in the same order.
        definition: of the contestant's neurons.
        loss: of a network, on input of a dtype.
    """
    contestant.zero_grad()
    with watching(units) as calls:
        loss(contestant, torch.float32).backward()
    formula = formula_network(network, [call.y for call in calls], definition)
    loss(formula, torch.float64).backward()
    wrong, what = wrong_spikes(formula)
    # Over all parameters at once: before a batch norm some gradients are zero but for rounding.
    found, expected = (gradients(module) for module in (contestant, formula))
    error = float((found - expected).norm() / expected.norm())
    passed = wrong == 0 and error < GRADIENT_TOLERANCE
    return Check(passed, f"{what}, gradients within {error:.0e}")


def gradients(module: nn.Module) -> Tensor:
    """All gradients of a module, in a row."""
    return torch.cat([parameter.grad.double().flatten() for parameter in module.parameters()])


@torch.no_grad()
def check_inference(
    contestant: nn.Module, units: list[nn.Module], network: nn.Module, frames: Tensor
) -> Check:
    """Spikes in evaluation; `network` is the one that was folded."""
    with watching(units) as calls:
        contestant(frames)
    spikes = [call.y for call in calls]
    formula = formula_network(network, spikes, Definition(batch_statistics=False))
    formula(frames.double())
    wrong, what = wrong_spikes(formula)
    return Check(wrong == 0, what)
