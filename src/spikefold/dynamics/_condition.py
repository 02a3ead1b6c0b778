"""When a neuron fires, as data: a normalization of its potential, or thresholds, or neither.

Every parameter has a leading time axis; of length 1 it means the same at all steps.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, distributed

from spikefold.dynamics._norm import Observed, normalize, of_step, per_neuron, statistics

Over = Literal["all", "each", "past"]


class Statistics(NamedTuple):
    """Mean and variance by which something is normalized."""

    mean: Tensor
    variance: Tensor


class Normalization(NamedTuple):
    """(a - mean) · gain / sqrt(variance + eps) + shift, per channel or per element.

    Attributes:
        gain, shift: gamma and beta, `[1, C]` or `[1, C, *spatial]`; `[T, ...]`: one set a step.
        eps: added to the variance.
        fixed: statistics, likewise; None takes those of the batch.
        group: processes whose batches count together; None: this one's alone.
        over: the steps of the currents that count together: "all", "each" for itself, or "past",
            each with those before it. Potentials exist one step at a time.
        samples: values each statistic is taken of, if processes have exchanged that already.
    """

    gain: Tensor
    shift: Tensor
    eps: float
    fixed: Statistics | None = None
    group: distributed.ProcessGroup | None = None
    over: Over = "all"
    samples: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameters, without time: `(C,)` or `(C, *spatial)`."""
        return tuple(self.gain.shape[1:])

    def __call__(
        self, u: Float[Tensor, "N C *spatial"], t: int, /
    ) -> tuple[Float[Tensor, "N C *spatial"], Observed | None]:
        """The normalized values of time step t, and the statistics if they are the batch's."""
        observed = None
        if self.fixed is None:
            observed = statistics(u, self.shape, self.group, self.samples)
            mean, variance, _ = observed
        else:
            mean, variance = (of_step(value, t) for value in self.fixed)
        gain, shift = of_step(self.gain, t), of_step(self.shift, t)
        return normalize(u, mean, variance, gain, shift, self.eps), observed

    def steps(self) -> int | None:
        """T, where something differs from step to step."""
        return _steps(norm_parameters(self))

    def part(self, t: int, steps: int) -> "Normalization":
        """The map of some time steps of this one, from t on."""
        fixed = self.fixed and Statistics(*(_cut(value, t, steps) for value in self.fixed))
        gain, shift = _cut(self.gain, t, steps), _cut(self.shift, t, steps)
        return self._replace(gain=gain, shift=shift, fixed=fixed)


def _steps(parameters: tuple[Tensor | None, ...]) -> int | None:
    longest = max((len(value) for value in parameters if value is not None), default=1)
    return longest if longest > 1 else None


def _cut(value: Tensor, t: int, steps: int) -> Tensor:
    return value if len(value) == 1 else value[t : t + steps]


@runtime_checkable
class Normalizing(Protocol):
    """From u[t] and t to h[t], and statistics if they were taken of the batch.

    One that is not a `Normalization` runs on the reference.
    """

    def __call__(self, u: Tensor, t: int, /) -> tuple[Tensor, Observed | None]:
        """What is compared with the threshold at time step t."""


class Condition(NamedTuple):
    """A neuron fires where norm(u) > threshold, or past theta if it was folded.

        norm:    h = norm(u[t]);          s[t] = 1[h > threshold]
        theta:   h = polarity[t] · u[t];  s[t] = 1[h > polarity[t] · theta[t]]
        neither: h = u[t];                s[t] = 1[h > threshold]

    Attributes:
        norm: of the potential.
        theta: folded thresholds, `[1, C]` or `[1, C, *spatial]`, or `[1]`, one for all neurons;
            `[T, ...]`: one set a step.
        polarity: +1, or -1 where the neuron fires below theta; None if all are +1.
    """

    norm: Normalizing | None = None
    theta: Tensor | None = None
    polarity: Tensor | None = None

    def potential(
        self, u: Float[Tensor, "N C *spatial"], t: int
    ) -> tuple[Float[Tensor, "N C *spatial"], Observed | None]:
        """What is compared at time step t, and statistics if they were taken of the batch.

        Arguments:
            u: membrane potential before firing.
            t: from 0.
        """
        if self.norm is not None:
            return self.norm(u, t)
        if self.polarity is not None:
            # exact: a change of sign does not round
            return u * per_neuron(of_step(self.polarity, t), u.ndim), None
        return u, None

    def limit(self, threshold: float, t: int, ndim: int) -> Tensor | float:
        """What it is compared with.

        Arguments:
            threshold: of the layer.
            t: from 0.
            ndim: dimensions of the potential.
        """
        limits = self.limits()
        return threshold if limits is None else per_neuron(of_step(limits, t), ndim)

    def limits(self) -> Tensor | None:
        """Polarity · theta, or None."""
        if self.theta is None or self.polarity is None:
            return self.theta
        return self.polarity * self.theta

    def steps(self) -> int | None:
        """T, where something differs from step to step."""
        return _steps(condition_parameters(self))

    def per_channel(self, channels: int) -> "Condition":
        """The same with thresholds for each channel, where there is one for all neurons."""
        theta, polarity = self.theta, self.polarity
        if theta is not None and theta.ndim == 1:
            theta = theta.unsqueeze(1).expand(-1, channels)
        if polarity is not None and polarity.ndim == 1:
            polarity = polarity.unsqueeze(1).expand(-1, channels)
        return Condition(self.norm, theta, polarity)

    def part(self, t: int, steps: int) -> "Condition":
        """The condition of some time steps of this one, from t on."""
        norm = self.norm
        if isinstance(norm, Normalization):
            norm = norm.part(t, steps)
        elif norm is not None and t:
            whole = norm
            norm = lambda u, later: whole(u, t + later)  # noqa: E731
        theta, polarity = (value if value is None else _cut(value, t, steps) for value in self[1:])
        return Condition(norm, theta, polarity)


def condition_parameters(condition: Condition) -> tuple[Tensor | None, ...]:
    """The tensors of a condition, all `[1, *shape]` or `[T, *shape]`."""
    return (*norm_parameters(condition.norm), *condition[1:])


def is_elementwise(condition: Condition) -> bool:
    """Whether it has parameters for each element of a channel."""
    return any(p is not None and p.ndim > 2 for p in condition_parameters(condition))


def norm_parameters(norm: Normalizing | None) -> tuple[Tensor | None, ...]:
    """The tensors of a norm; none of one that is not a `Normalization`."""
    return (norm.gain, norm.shift, *(norm.fixed or ())) if isinstance(norm, Normalization) else ()


def takes_statistics(norm: Normalizing | None) -> bool:
    """Whether a norm takes the statistics of this process' batch."""
    return isinstance(norm, Normalization) and norm.fixed is None and norm.group is None


PLAIN = Condition()  # u > threshold
