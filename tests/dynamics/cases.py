"""Layers of all kinds, for tests of the kernels, and what is right for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from spikefold import dynamics
from spikefold.dynamics import (
    Condition,
    Currents,
    Fired,
    Neuron,
    Normalization,
    Statistics,
    _kernels,
)
from tests.dynamics import reference

SHAPES = [
    (1, 2, 1, 1, 1),
    (1, 1, 5, 3, 3),
    (3, 2, 1, 1, 5),
    (4, 5, 3),
    (2, 70, 37),
    (4, 8, 17, 7, 7),
    (3, 3, 2, 16, 8),
    (2, 3, 3, 13, 13),
    (2, 2, 3, 24, 48),
    (2, 9, 20, 2, 2),
    (3, 2, 4, 3, 2, 5),
    (2, 3, 8, 6, 6),
    (2, 1, 8, 1, 7),
]


@dataclass(frozen=True)
class Case:
    """A layer to be run."""

    shape: tuple[int, ...] = (4, 8, 17, 7, 7)
    last: bool = False
    elementwise: bool = False
    condition: str = "batch"  # or "fixed", "folded", "plain"
    norm: str = "none"  # after the connection; or "batch", "fixed", "fixed per step"
    shortcut: bool = False
    constant: bool = False
    state: bool = False
    per_step: bool = False  # parameters of the condition
    decay: str = "constant"  # or "layer", "channel"
    neuron: Neuron = field(default_factory=Neuron)
    dtype: torch.dtype = torch.float32
    seed: int = 0

    @property
    def infers(self) -> bool:
        """Whether no statistic is taken of the batch."""
        return "batch" not in (self.condition, self.norm)


def cases(**fixed: Any) -> st.SearchStrategy[Case]:
    """Any layer; what is `fixed` stays."""
    neurons = st.builds(
        Neuron,
        decay=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
        threshold=st.sampled_from([0.5, 1.0, -0.25]),
        reset=st.sampled_from(["hard", "soft"]),
        surrogate=st.sampled_from(
            [*(kind() for kind in dynamics.SURROGATES.values()), dynamics.Tanh(2.0)]
        ),
        detach_reset=st.booleans(),
    )
    parts: dict[str, Any] = {
        "shape": st.sampled_from(SHAPES),
        "last": st.booleans(),
        "elementwise": st.booleans(),
        "condition": st.sampled_from(["batch", "fixed", "folded", "plain"]),
        "norm": st.sampled_from(["none", "batch", "fixed", "fixed per step"]),
        "shortcut": st.booleans(),
        "constant": st.booleans(),
        "state": st.booleans(),
        "per_step": st.booleans(),
        "decay": st.sampled_from(["constant", "layer", "channel"]),
        "neuron": neurons,
        "seed": st.integers(0, 10**6),
    }
    parts.update({name: st.just(value) for name, value in fixed.items()})
    return st.builds(Case, **parts).filter(is_possible)


def is_possible(case: Case) -> bool:
    """Statistics need two values."""
    steps, batch, _, *spatial = case.shape
    pixels = torch.Size(spatial).numel()
    enough = batch > 1 if case.elementwise else batch * pixels > 1
    shown = 1 if case.constant else steps
    return (enough or case.condition != "batch") and (
        batch * pixels * shown > 1 or case.norm != "batch"
    )


def is_one_kernel(case: Case) -> bool:
    """Whether one kernel does all of it: statistics of channels come first where the condition has
    parameters for each element.
    """
    return case.norm != "batch" or case.condition == "plain" or not case.elementwise


def simulate_fused(
    currents: Currents,
    condition: Condition,
    neuron: Neuron,
    v: Tensor | None = None,
    decay: Tensor | None = None,
) -> Fired:
    """What the kernels do, and no other."""
    fired = _kernels.simulate_fused(currents, condition, neuron, v, decay)
    assert not isinstance(fired, str), fired
    return fired


@dataclass
class Layer:
    """The tensors of a case."""

    case: Case
    currents: Currents
    condition: Condition
    state: Tensor | None
    decay: Tensor | None
    leaves: dict[str, Tensor]  # what gets a gradient
    weights: tuple[Tensor, Tensor]  # of spikes and last potential, in the loss

    def run(self, layer: Callable[..., Fired] = dynamics.simulate) -> Fired:
        """Spikes and last potential, by this implementation."""
        return layer(self.currents, self.condition, self.case.neuron, self.state, self.decay)

    def gradients(self, spikes: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Of the weighted sum of spikes and last potential."""
        loss = (spikes.double() * self.weights[0]).sum() + (v.double() * self.weights[1]).sum()
        found = torch.autograd.grad(loss, list(self.leaves.values()), allow_unused=True)
        zeros = (torch.zeros_like(leaf) for leaf in self.leaves.values())
        return {
            name: zero if grad is None else grad
            for name, grad, zero in zip(self.leaves, found, zeros, strict=True)
        }


def make(case: Case) -> Layer:
    """Random tensors; gains of both signs."""
    generator = torch.Generator().manual_seed(case.seed)
    random = partial(torch.randn, generator=generator)
    leaves: dict[str, Tensor] = {}

    def leaf(name: str, tensor: Tensor) -> Tensor:
        leaves[name] = tensor.requires_grad_()
        return tensor

    def arranged(tensor: Tensor) -> Tensor:
        return tensor.movedim(2, -1).contiguous().movedim(-1, 2) if case.last else tensor

    def norm(name: str, shape: tuple[int, ...], kind: str) -> Normalization:
        gain, shift = (
            leaf(f"{name} gain", random(shape)),
            leaf(f"{name} shift", random(shape) * 0.3),
        )
        fixed = Statistics(random(shape) * 0.3, torch.rand(shape, generator=generator) + 0.5)
        eps = {"current": 1e-3, "potential": 0.1}[name]  # not each other's
        return Normalization(gain, shift, eps, fixed if kind.startswith("fixed") else None)

    steps, *step = case.shape
    shown = 1 if case.constant else steps
    x = leaf("input", arranged(random(shown, *step)).to(case.dtype))
    sets = steps if case.norm == "fixed per step" else 1
    before = None if case.norm == "none" else norm("current", (sets, step[1]), case.norm)
    parameters = (steps if case.per_step else 1, *(step[1:] if case.elementwise else step[1:2]))
    condition = dynamics.PLAIN
    if case.condition == "folded":
        polarity = random(parameters).sign()
        condition = Condition(None, random(parameters) * 0.5, polarity)
    elif case.condition != "plain":
        condition = Condition(norm("potential", parameters, case.condition))
    shortcut = (
        leaf("shortcut", arranged(random(case.shape)).to(case.dtype)) if case.shortcut else None
    )
    state = leaf("state", random(step)) if case.state else None
    decay = None
    if case.decay != "constant":
        size = () if case.decay == "layer" else (step[1],)
        decay = leaf("decay", torch.rand(size, generator=generator))
    weights = (random(case.shape, dtype=torch.float64), random(step, dtype=torch.float64))
    currents = Currents(x, steps, before, shortcut)
    return Layer(case, currents, condition, state, decay, leaves, weights)


def expected(layer: Layer, spikes: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """In float64, for neurons that fire these spikes.

    Returns:
        gradients, how far each decision was from the threshold (above: positive), last potential.
    """
    case, currents, condition = layer.case, layer.currents, layer.condition
    wide = {name: leaf.detach().double().requires_grad_() for name, leaf in layer.leaves.items()}
    ndim = len(case.shape) - 1

    def broadcast(parameter: Tensor) -> Tensor:
        return parameter.double().reshape(parameter.shape + (1,) * (ndim - 1 - parameter.ndim))

    def at(parameter: Tensor, t: int) -> Tensor:
        return broadcast(parameter[min(t, len(parameter) - 1)])

    def normalized(name: str, norm: Normalization, a: Tensor, t: int = 0) -> Tensor:
        gain, shift = at(wide[f"{name} gain"], t), at(wide[f"{name} shift"], t)
        fixed = norm.fixed and tuple(at(value, t) for value in norm.fixed)
        return reference.normalize(a, gain, shift, norm.eps, fixed)

    x = wide["input"]
    if case.norm == "fixed per step":
        by_step = enumerate(x.expand(case.shape))
        x = torch.stack([normalized("current", currents.norm, x_t, t) for t, x_t in by_step])
    elif currents.norm is not None:
        x = normalized("current", currents.norm, x.flatten(0, 1)).unflatten(0, x.shape[:2])
    x = x.expand(case.shape)
    if case.shortcut:
        x = x + wide["shortcut"]
    norm, theta, polarity = condition

    def compare(u: Tensor, t: int) -> Tensor:
        if isinstance(norm, Normalization):
            return normalized("potential", norm, u, t)
        return u if polarity is None else u * at(polarity, t)

    thresholds: list[Any] = [case.neuron.threshold] * case.shape[0]
    if theta is not None and polarity is not None:
        thresholds = [at(polarity * theta, t) for t in range(case.shape[0])]
    fired, compared, v = reference.follow(
        x,
        spikes.double(),
        compare,
        thresholds=thresholds,
        decay=broadcast(wide["decay"]) if "decay" in wide else case.neuron.decay,
        reset_by=None if case.neuron.reset == "hard" else case.neuron.threshold,
        detach=case.neuron.detach_reset,
        derivative=case.neuron.surrogate.derivative,
        v=wide["state"] if case.state else torch.zeros(case.shape[1:], dtype=torch.float64),
    )
    wide_layer = Layer(case, currents, condition, None, None, wide, layer.weights)
    above = torch.stack([h - limit for h, limit in zip(compared, thresholds, strict=True)])
    return wide_layer.gradients(fired, v), above, v.detach()
