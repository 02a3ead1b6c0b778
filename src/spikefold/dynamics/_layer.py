"""What follows the connection of a layer, as data, and its meaning in plain torch.

`norm(input) + shortcut` makes the currents; a firing condition decides. The kernels of
`dynamics._kernels` compute the same without writing anything in between to memory.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, distributed

from spikefold.dynamics._check import check_layer
from spikefold.dynamics._neuron import (
    Neuron,
    folded_lif,
    integrate,
    lif,
    membrane_dtype,
    mpbn_lif,
    mpbn_lif_train,
)
from spikefold.dynamics._norm import normalize, statistics
from spikefold.dynamics._surrogate import fire
from spikefold.errors import ShapeError


class Statistics(NamedTuple):
    """Mean and (where it was taken of a batch, biased) variance."""

    mean: Tensor
    variance: Tensor


class Normalization(NamedTuple):
    """(a - mean) · gain / sqrt(variance + eps) + shift, per channel or per element.

    Attributes:
        gain, shift: gamma and beta, `[C]` or `[C, *spatial]`.
        eps: added to the variance.
        fixed: statistics; None takes those of the batch.
        group: processes whose batches count together; None: this one's alone.
    """

    gain: Tensor
    shift: Tensor
    eps: float
    fixed: Statistics | None = None
    group: distributed.ProcessGroup | None = None


class Thresholds(NamedTuple):
    """Folded thresholds, one number per channel `[C]` or element `[C, *spatial]`.

    Attributes:
        theta: a neuron fires above it,
        polarity: or below it where this is -1; None if all are +1.
    """

    theta: Tensor
    polarity: Tensor | None = None


# From u[t] to h[t]; the neuron fires where h > threshold. Runs on the reference.
Normalizing = Callable[[Tensor], Tensor]
Condition = Normalization | Thresholds | Normalizing | None  # None: u > threshold


class Currents(NamedTuple):
    """What reaches the neurons, `norm(input) + shortcut`, not computed yet.

    Attributes:
        input: `[T, N, C, *spatial]`, or `[1, N, C, *spatial]` if it is the same at all steps.
        steps: T.
        norm: a batch normalization over time, batch and space; None: none.
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

    def check(self, condition: Condition = None, v: Tensor | None = None) -> None:
        """Refuse what is no sequence, or does not fit together.

        Arguments:
            condition: when the neurons fire.
            v: membrane potential before the first step.

        Raises:
            ShapeError: with the shapes.
        """
        current, takes_current = _parameters(self.norm)
        potential, takes_potential = _parameters(condition)
        check_layer(
            self.input,
            self.steps,
            self.shortcut,
            v,
            current,
            potential,
            takes_current=takes_current,
            takes_potential=takes_potential,
        )


def _parameters(condition: Condition) -> tuple[tuple[Tensor | None, ...], bool]:
    """The tensors of a condition, and whether it takes statistics of this process' batch."""
    if isinstance(condition, Normalization):
        gain, shift, _, fixed, group = condition
        return (gain, shift, *(fixed or ())), fixed is None and group is None
    return condition if isinstance(condition, Thresholds) else (), False


class Fired(NamedTuple):
    """What a layer of neurons did.

    Attributes:
        spikes: zeros and ones `[T, N, C, *spatial]`, of the input's dtype.
        v: the last membrane potential `[N, C, *spatial]`.
        current: statistics `[C]` of the currents' norm, if it took the batch's.
        potential: statistics `[T, *shape]` of the condition's norm, if it took the batch's.
    """

    spikes: Tensor
    v: Tensor
    current: Statistics | None = None
    potential: Statistics | None = None


def compute(
    currents: Currents,
) -> tuple[Float[Tensor, "T N C *spatial"], Statistics | None]:
    """The currents as a tensor, in the membrane's dtype if anything is done to the input.

    Returns:
        `[T, N, C, *spatial]`, and the batch statistics if the norm took them.
    """
    x, observed = currents.input, None
    if currents.norm is not None:
        gain, shift, eps, fixed, group = currents.norm
        flat = x.to(membrane_dtype(x)).flatten(0, 1)
        if fixed is None:
            fixed = Statistics(*statistics(flat, tuple(gain.shape), group))
            observed = Statistics(*(value.detach() for value in fixed))
        x = normalize(flat, *fixed, gain, shift, eps).unflatten(0, x.shape[:2])
    if currents.shortcut is not None:
        x = x.to(membrane_dtype(x)) + currents.shortcut
    return x.expand(currents.shape), observed


def reference_layer(
    currents: Currents, condition: Condition, neuron: Neuron, v: Tensor | None = None
) -> Fired:
    """What a layer of neurons does, in plain torch: the definition.

    Arguments:
        currents: what reaches the neurons.
        condition: when they fire.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.

    Raises:
        ShapeError: if something does not fit together.
    """
    currents.check(condition, v)
    x, current = compute(currents)
    potential = None
    if condition is None:
        spikes, v = lif(x, neuron, v)
    elif isinstance(condition, Thresholds):
        spikes, v = folded_lif(x, condition.theta, condition.polarity, neuron, v)
    elif not isinstance(condition, Normalization):
        normalizing = condition
        spikes, v = integrate(
            x, neuron, lambda u: fire(normalizing(u), neuron.threshold, neuron.surrogate), v
        )
    elif condition.fixed is None:
        gain, shift, eps, _, group = condition
        spikes, v, *observed = mpbn_lif_train(x, gain, shift, eps, neuron, v, group)
        potential = Statistics(*observed)
    else:
        mean, variance = condition.fixed
        gain, shift, eps, *_ = condition
        spikes, v = mpbn_lif(x, mean, variance, gain, shift, eps, neuron, v)
    return Fired(spikes.to(currents.input.dtype), v, current, potential)
