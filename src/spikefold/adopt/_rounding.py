"""How often another order of operations decides otherwise, measured."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spikefold.dynamics import Neuron, reset

STEPS, VALUES = 4, 20_000

# from the input and what was carried on, `[N, C]`, to the potential before firing
Charge = Callable[[Tensor, Tensor], Tensor]


class Rounding(NamedTuple):
    """What was compared on random currents.

    Attributes:
        potentials: how many were compared, of neurons that had decided alike so far.
        unequal: of these, in the last bits.
        decisions: of these, otherwise decided.
    """

    potentials: int
    unequal: int
    decisions: int

    def __str__(self) -> str:
        return (
            f"{self.unequal / self.potentials:.1%} of {self.potentials:,} random potentials differ "
            f"in the last bits, and {self.decisions} of their decisions"
        )


class Side(NamedTuple):
    """One of two ways to compute the same neurons.

    Attributes:
        charge: gives the potential u.
        fires: decides, from u.
        constants: of the reset.
    """

    charge: Charge
    fires: Callable[[Tensor], Tensor]
    constants: Neuron


def random_currents(centre: Tensor, spread: Tensor) -> Tensor:
    """`[STEPS, N, C]`, of their dtype.

    Arguments:
        centre, spread: of each channel, or of all.
    """
    channels = max(centre.numel(), spread.numel())
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(STEPS, max(1, VALUES // channels), channels, generator=random)
    return drawn.to(spread.dtype) * spread + centre


@torch.no_grad()
def compare(theirs: Side, ours: Side, gain: float, currents: Tensor) -> Rounding:
    """Both on the same currents, from rest.

    Arguments:
        theirs: the other library's.
        ours: whose potentials are theirs / gain.
        gain: see ours.
        currents: `[T, N, C]`.
    """
    v = w = torch.zeros_like(currents[0])
    alike = torch.ones_like(v, dtype=torch.bool)
    potentials = unequal = decisions = 0
    for x in currents:
        h, u = theirs.charge(x, v), ours.charge(x, w)
        s, z = theirs.fires(h), ours.fires(u)
        potentials += int(alike.sum())
        unequal += int((alike & ((u.double() * gain).to(h.dtype) != h)).sum())
        decisions += int((alike & (s != z)).sum())
        alike &= s == z
        v = reset(h, s.to(h.dtype), theirs.constants)
        w = reset(u, z.to(u.dtype), ours.constants)
    return Rounding(potentials, unequal, decisions)
