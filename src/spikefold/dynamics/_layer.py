"""The part of a layer after its connection, as data, and its definition in plain torch.

`norm(input) + shortcut` makes the currents; a firing condition decides. The kernels of
`dynamics._kernels` compute the same without writing anything in between to memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, distributed

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
from spikefold.dynamics._norm import (
    Observed,
    counts_together,
    normalize,
    sample_count,
    statistics,
)
from spikefold.errors import ShapeError


class Currents(NamedTuple):
    """What reaches the neurons, `norm(input) + shortcut`, not computed yet.

    Attributes:
        input: `[T, N, C, *spatial]`, or `[1, N, C, *spatial]` if it is the same at all steps.
        steps: T.
        norm: a normalization per channel, its parameters `[1, C]` or `[T, C]`; None: none.
        shortcut: `[T, N, C, *spatial]`, or None.
    """

    input: Tensor
    steps: int
    norm: Normalization | None = None
    shortcut: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor) -> "Currents":
        """Currents that are computed already.

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
        """Refuse an input that is not a sequence, or shapes that do not fit together.

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


def compute(currents: Currents) -> tuple[Float[Tensor, "T N C *spatial"], Observed | None]:
    """The currents as a tensor, in the membrane's dtype if anything is done to the input.

    Returns:
        `[T, N, C, *spatial]`, and the batch statistics if the norm took them.
    """
    x, observed = currents.input, None
    if currents.norm is not None:
        x = x.to(membrane_dtype(x))
        norm, observed = with_statistics(currents)
        x = _normalized(x, norm)
    if currents.shortcut is not None:
        x = x.to(membrane_dtype(x)) + currents.shortcut
    return x.expand(currents.shape), observed


def _normalized(x: Float[Tensor, "steps N C *spatial"], norm: Normalization) -> Tensor:
    """The normalized input, `[1, N, C, *spatial]` if all steps are the same."""
    parameters = [value for value in norm_parameters(norm) if value is not None]
    steps = max(len(value) for value in parameters)
    gain, shift, mean, variance = (value.expand(steps, *norm.shape) for value in parameters)
    if steps > 1:
        x = x.expand(steps, *x.shape[1:])
    # steps next to the channels: [N, steps, C, *spatial] and [steps, C]
    return normalize(x.transpose(0, 1), mean, variance, gain, shift, norm.eps).transpose(0, 1)


def statistics_of_steps(
    x: Float[Tensor, "steps N C *spatial"],
    group: distributed.ProcessGroup | None = None,
    samples: int | None = None,
) -> Observed:
    """Mean and biased variance of each step's currents by themselves, `[steps, C]`.

    Arguments:
        x: the currents.
        group, samples: as for `statistics`.

    Raises:
        ShapeError: if there is only one value to take a statistic of.
    """
    # as of potentials [N, steps, C, *spatial]: all steps at once
    return statistics(x.transpose(0, 1), (len(x), x.shape[2]), group, samples)


def with_statistics(
    currents: Currents, observe: Callable[..., Observed] = statistics_of_steps
) -> tuple[Normalization, Observed | None]:
    """The norm after the connection by the statistics it takes of the batch, and these.

    Gradients go through them. Of an input that is the same at all steps they are those of one.

    Arguments:
        currents: with a norm.
        observe: what `statistics_of_steps` does.

    Raises:
        ShapeError: if there is only one value to take a statistic of.
    """
    norm, x = currents.norm, currents.input
    assert norm is not None
    if norm.fixed is not None:
        return norm, None
    x = x.to(membrane_dtype(x))
    together = norm.over == "all"
    each = observe(x.flatten(0, 1)[None] if together else x, norm.group, norm.samples)
    used, unbiased = Statistics(each.mean, each.variance), each.variance
    if norm.over == "past" and len(x) > 1:
        used, unbiased = _accumulated(each)
    sets = 1 if together else currents.steps
    mean, variance = (value.detach().expand(sets, *norm.shape) for value in (used.mean, unbiased))
    return norm._replace(fixed=used), Observed(mean, variance, each.samples)


def _accumulated(each: Observed) -> tuple[Statistics, Tensor]:
    """Statistics of each step and those before it, of as many values each (Chan's formula).

    Returns:
        mean and variance, and what becomes the unbiased variance by the factor of a single step.
    """
    n = each.samples
    mean, variance = each.mean[0], each.variance[0]
    means, variances, unbiased = [mean], [variance], [variance]
    for t in range(1, len(each.mean)):
        new, deviation = 1 / (t + 1), each.mean[t] - mean
        mean = mean + new * deviation
        variance = (1 - new) * (variance + new * deviation * deviation) + new * each.variance[t]
        means.append(mean)
        variances.append(variance)
        unbiased.append(variance * ((t + 1) * (n - 1) / ((t + 1) * n - 1)))
    return Statistics(torch.stack(means), torch.stack(variances)), torch.stack(unbiased)


def by_gain(norm: Normalization) -> Normalization:
    """The same map, bit for bit, by statistics that need no gradient.

    What would be theirs goes on through gain and shift: kernels give a gradient of these only.
    """
    assert norm.fixed is not None
    mean, variance = norm.fixed
    # root.detach() / root is 1, but its gradient is that of the variance
    root = torch.sqrt(variance.double() + norm.eps)
    gain = norm.gain * (root.detach() / root).to(norm.gain.dtype)
    shift = norm.shift + (mean.detach() - mean) * (norm.gain / root.to(norm.gain.dtype))
    return norm._replace(gain=gain, shift=shift, fixed=Statistics(mean.detach(), variance.detach()))


def counted(currents: Currents, condition: Condition) -> tuple[Currents, Condition]:
    """The same, with the processes' numbers of values exchanged, once for all steps.

    Arguments:
        currents, condition: whose norms take statistics over several processes, or not.
    """
    # one exchange for norm and condition: each collective waits for the slowest process
    step = currents.shape[1:]
    merged = (len(currents.input) * step[0], *step[1:])
    norms = (currents.norm, condition.norm)
    batches = (merged if currents.norm and currents.norm.over == "all" else step, step)
    asking = [
        (norm, sample_count(batch, norm.shape))
        for norm, batch in zip(norms, batches, strict=True)
        if isinstance(norm, Normalization) and _asks(norm)
    ]
    if not asking:
        return currents, condition
    group = asking[0][0].group
    assert group is not None
    asking = [(norm, count) for norm, count in asking if norm.group is group]
    totals = counts_together([count for _, count in asking], group, currents.input.device)
    for (norm, _), total in zip(asking, totals, strict=True):
        if norm is currents.norm:
            currents = currents._replace(norm=norm._replace(samples=total))
        else:
            condition = condition._replace(norm=norm._replace(samples=total))
    return currents, condition


def _asks(norm: Normalization) -> bool:
    return norm.fixed is None and norm.group is not None and norm.samples is None


def simulate_reference(
    currents: Currents,
    condition: Condition,
    constants: Neuron,
    v: Tensor | None = None,
    decay: Tensor | None = None,
) -> Fired:
    """Run the neurons of a layer in plain torch: the definition.

    Arguments:
        currents: what reaches the neurons.
        condition: when they fire.
        constants: of the neurons.
        v: membrane potential before the first step; None is zero.
        decay: learnt, replaces the constant one: `[]` or `[C]`.

    Raises:
        ShapeError: if something does not fit together.
    """
    currents.check(condition, v, decay)
    currents, condition = counted(currents, condition)
    x, current = compute(currents)
    fired = integrate(x, condition, constants, v, decay)
    return fired._replace(spikes=fired.spikes.to(currents.input.dtype), current_statistics=current)
