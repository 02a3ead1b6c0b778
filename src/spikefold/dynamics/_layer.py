"""What follows the connection of a layer, as data, and its meaning in plain torch.

`norm(input) + shortcut` makes the currents; a firing condition decides. The kernels of
`dynamics._kernels` compute the same without writing anything in between to memory.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spikefold.dynamics._check import check_layer
from spikefold.dynamics._condition import (
    PLAIN,
    Condition,
    Normalization,
    Statistics,
    condition_parameters,
    norm_parameters,
    takes_statistics,
)
from spikefold.dynamics._neuron import Fired, Neuron, integrate, membrane_dtype
from spikefold.dynamics._norm import normalize, of_step, statistics
from spikefold.errors import ShapeError


class Currents(NamedTuple):
    """What reaches the neurons, `norm(input) + shortcut`, not computed yet.

    Attributes:
        input: `[T, N, C, *spatial]`, or `[1, N, C, *spatial]` if it is the same at all steps.
        steps: T.
        norm: a batch normalization over time, batch and space, its parameters `[1, C]`, or an
            affine map a step, `[T, C]`; None: none.
        shortcut: `[T, N, C, *spatial]`, or None.
    """

    input: Tensor
    steps: int
    norm: Normalization | None = None
    shortcut: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor) -> "Currents":
        """Currents that are there already.

        Raises:
            ShapeError: if x has no time dimension.
        """
        if x.ndim == 0:
            raise ShapeError("a neuron needs [T, N, C, ...] or [T, N, F], got a single number")
        return cls(x, x.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """`(T, N, C, *spatial)`."""
        return (self.steps, *self.input.shape[1:])

    def check(
        self,
        condition: Condition = PLAIN,
        v: Tensor | None = None,
        decay: Tensor | None = None,
    ) -> None:
        """Refuse what is no sequence, or does not fit together.

        Arguments:
            condition: when the neurons fire.
            v: membrane potential before the first step.
            decay: `[]` or `[C]`, or None.

        Raises:
            ShapeError: with the shapes.
        """
        check_layer(
            self.input,
            self.steps,
            self.shortcut,
            v,
            norm_parameters(self.norm),
            condition_parameters(condition),
            decay=decay,
            takes_current=takes_statistics(self.norm),
            takes_potential=takes_statistics(condition.norm),
        )


def compute(
    currents: Currents,
) -> tuple[Float[Tensor, "T N C *spatial"], Statistics | None]:
    """The currents as a tensor, in the membrane's dtype if anything is done to the input.

    Returns:
        `[T, N, C, *spatial]`, and the batch statistics `[1, C]` if the norm took them.
    """
    x, observed = currents.input, None
    if currents.norm is not None:
        x, observed = _normalized(x.to(membrane_dtype(x)), currents.norm, currents.steps)
    if currents.shortcut is not None:
        x = x.to(membrane_dtype(x)) + currents.shortcut
    return x.expand(currents.shape), observed


def _normalized(
    x: Float[Tensor, "steps N C *spatial"], norm: Normalization, steps: int
) -> tuple[Float[Tensor, "..."], Statistics | None]:
    """The normalized input, time merged into the batch; a step at a time if the map knows time."""
    gain, shift, eps, fixed, group = norm
    if norm.differs:
        by_step = enumerate(x.expand(steps, *x.shape[1:]))
        return torch.stack([norm(x_t, t)[0] for t, x_t in by_step]), None
    flat, observed = x.flatten(0, 1), None
    used = fixed and Statistics(*(of_step(value, 0) for value in fixed))
    if used is None:
        used = Statistics(*statistics(flat, norm.shape, group))
        observed = Statistics(*(value.detach()[None] for value in used))
    y = normalize(flat, *used, of_step(gain, 0), of_step(shift, 0), eps)
    return y.unflatten(0, x.shape[:2]), observed


def reference_layer(
    currents: Currents,
    condition: Condition,
    neuron: Neuron,
    v: Tensor | None = None,
    decay: Tensor | None = None,
) -> Fired:
    """What a layer of neurons does, in plain torch: the definition.

    Arguments:
        currents: what reaches the neurons.
        condition: when they fire.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.
        decay: in the place of the constant one, `[]` or `[C]`.

    Raises:
        ShapeError: if something does not fit together.
    """
    currents.check(condition, v, decay)
    x, current = compute(currents)
    fired = integrate(x, condition, neuron, v, decay)
    return fired._replace(spikes=fired.spikes.to(currents.input.dtype), current=current)
