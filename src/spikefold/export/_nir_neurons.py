"""Neurons as populations of NIR's, in the form that an importer computes rightly.

A layer of ours becomes one population or several, whose spikes are added: a neuron fires in one of
them and is silent in the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikefold.adopt import NIR_CONVENTIONS, NIRConvention
from spikefold.export._known import refused
from spikefold.export._walk import Operation


@dataclass(frozen=True)
class Target:
    """What an importer takes and computes rightly.

    Attributes:
        name: of the library, for messages.
        convention: how it steps.
        scales: whether it counts a LIF's r; if not, r is 1 and the weights are larger.
        thresholds: whether neurons of a node may differ in their thresholds.
        decays: whether they may differ in tau.
        sums: whether it adds what meets in a node.
        negative: whether thresholds below 0 are right.
        has_if: whether IF nodes are right.
        has_zero: whether a decay of 0 is right.
    """

    name: str
    convention: NIRConvention
    scales: bool = True
    thresholds: bool = True
    decays: bool = True
    sums: bool = True
    negative: bool = True
    has_if: bool = True
    has_zero: bool = True


TARGETS = {
    None: Target("NIR", NIR_CONVENTIONS["nir"]),
    # its importer's dt is 1e-3, and its IF has none
    "norse": Target("Norse", NIRConvention(1e-3, 1.0), scales=False, sums=False),
    "snntorch": Target(
        "snnTorch", NIR_CONVENTIONS["snntorch"], thresholds=False, negative=False, has_if=False
    ),
    "spikingjelly": Target(
        "SpikingJelly", NIR_CONVENTIONS["spikingjelly"], thresholds=False, decays=False,
        has_zero=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Neurons:
    """Of a layer, a number a neuron, of the shape that its currents have in NIR, float64.

    Attributes:
        theta: a neuron fires above it.
        polarity: or below it, where this is -1.
        decay: of the potential.
    """

    theta: Tensor
    polarity: Tensor
    decay: Tensor


@dataclass(frozen=True)
class Population:
    """A node of neurons.

    Attributes:
        factor, offset: what becomes of the currents of each channel, `[C]`.
        theta: a neuron fires above it; of the neurons' shape.
        name: what tells it from the layer's others.
    """

    factor: Tensor
    offset: Tensor
    theta: Tensor
    name: str = ""


def neurons_of(operation: Operation, shape: tuple[int, ...]) -> Neurons:
    """The numbers of a layer's neurons.

    Arguments:
        operation: neurons.
        shape: of their currents in NIR; the elements are in the same order.

    Raises:
        ExportError: if they do what NIR cannot say.
    """
    module = operation.module
    constants, condition = module.constants, module.condition()
    if constants.reset == "soft":
        raise refused(operation.node, "NIR has no soft reset: train with reset='hard'")
    if condition.steps() is not None:
        raise refused(operation.node, "NIR has no thresholds that change over time")

    def spread(value: Tensor) -> Tensor:
        like = value.reshape(*value.shape, *(1,) * (len(operation.value.shape) - value.ndim))
        return like.expand(operation.value.shape).reshape(shape).double()

    decay = module.decay()
    threshold = torch.tensor(constants.threshold) if condition.theta is None else condition.theta[0]
    polarity = torch.ones(()) if condition.polarity is None else condition.polarity[0]
    decay = torch.tensor(constants.decay) if decay is None else decay.detach()
    return Neurons(*map(spread, (threshold, polarity, decay)))


def populations(operation: Operation, neurons: Neurons, target: Target) -> list[Population]:
    """The nodes that fire as a layer does.

    Arguments:
        operation: the layer's neurons.
        neurons: their numbers.
        target: whose importer reads them.

    Raises:
        ExportError: if there are none which that importer computes rightly.
    """
    _require_decays(operation, neurons.decay, target)
    made = _above(neurons)
    if not target.thresholds:
        made = [part for whole in made for part in _of_one_threshold(operation, whole)]
    if not target.negative and any(bool((part.theta < 0).any()) for part in made):
        raise refused(
            operation.node,
            f"has thresholds below 0 ({_below_zero(neurons)} of {neurons.theta.numel()} neurons), "
            f"which {target.name} computes wrongly",
        )
    if target.scales:
        return made
    larger = 1 / (1 - by_channel(neurons.decay)[0]) if _leaks(neurons.decay) else 1.0
    return [
        Population(part.factor * larger, part.offset * larger, part.theta, part.name)
        for part in made
    ]


def _below_zero(neurons: Neurons) -> int:
    theta = neurons.polarity * neurons.theta
    return int(((theta < 0) & theta.isfinite()).sum())


def _require_decays(operation: Operation, decay: Tensor, target: Target) -> None:
    if not target.decays and bool((decay != decay.flatten()[0]).any()):
        raise refused(operation.node, f"its decays differ: {target.name} takes one a layer")
    if not target.has_zero and bool((decay == 0).any()):
        raise refused(operation.node, f"{target.name} takes no decay of 0")
    if not target.scales and bool((decay == 1).any()) and _leaks(decay):
        raise refused(operation.node, f"some of its decays are 1: {target.name} takes all or none")


def _leaks(decay: Tensor) -> bool:
    return bool((decay != 1).any())


def by_channel(values: Tensor) -> tuple[Tensor, bool]:
    """Those of each channel `[C]`, and whether there are no others."""
    flat = values.reshape(len(values), -1)
    return flat[:, 0], bool((flat == flat[:, :1]).all())


def _above(neurons: Neurons) -> list[Population]:
    """Neurons that fire above theta only: potentials are linear in the currents."""
    ones = torch.ones(len(neurons.theta), dtype=torch.float64)
    polarity, alike = by_channel(neurons.polarity)
    if alike:
        return [Population(polarity, 0 * ones, neurons.polarity * neurons.theta)]
    infinite = torch.full_like(neurons.theta, torch.inf)
    return [
        Population(
            sign * ones,
            0 * ones,
            torch.where(neurons.polarity == sign, sign * neurons.theta, infinite),
            name,
        )
        for sign, name in ((1, "_above"), (-1, "_below"))
    ]


def _of_one_threshold(operation: Operation, whole: Population) -> list[Population]:
    """Populations with thresholds 1, -1 and 0, whose currents are divided by |theta|.

    A neuron of another population gets no current, or one that keeps it below -1; one that always
    fires has the current 2.
    """
    theta, alike = by_channel(whole.theta)
    if not alike:
        raise refused(
            operation.node, "its neurons differ from place to place: one threshold is asked for"
        )
    if bool((theta == theta[0]).all() & theta.isfinite().all()):
        return [whole]
    made = []
    for sign, name in ((1, "_above"), (-1, "_below"), (0, "_at_zero")):
        mine = theta.isfinite() & (theta.sign() == sign)
        constant = theta.isinf() & (sign > 0)
        if not (mine | constant).any():
            continue
        size = torch.where(mine & (sign != 0), theta.abs(), 1.0)
        silent = torch.where(constant & (theta < 0), 2.0, -2.0 if sign < 0 else 0.0)
        factor = torch.where(mine, whole.factor / size, 0.0)
        offset = torch.where(mine, whole.offset, silent.double())
        made.append(
            Population(factor, offset, torch.full_like(whole.theta, sign), whole.name + name)
        )
    return made
