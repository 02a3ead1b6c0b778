"""The leaky integrate-and-fire neuron: charge, fire, reset, over a sequence or one step.

One convention everywhere (time first, `[T, N, C, *spatial]` or `[T, N, F]`):

    u[t] = decay · v[t-1] + x[t]          v[-1] = 0
    s[t] = 1 if u[t] passes the firing condition, else 0
    v[t] = u[t] · (1 - s[t])              hard reset
    v[t] = u[t] - threshold · s[t]        soft reset

What differs between a plain, a normalized and a folded neuron is the firing condition only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from spikefold.dynamics._norm import normalize, per_neuron, statistics
from spikefold.dynamics._surrogate import (
    Surrogate,
    Tanh,
    fire,
    require_surrogate,
    surrogate_from_dict,
    surrogate_to_dict,
)
from spikefold.errors import ConfigError, ShapeError

Reset = Literal["hard", "soft"]
FireStep = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Neuron:
    """The constants of a layer of neurons.

    Arguments:
        decay: what is left of the membrane potential after a step, in [0, 1]; 1 is the
            integrate-and-fire neuron (IF).
        threshold: firing threshold; the soft reset subtracts it.
        reset: "hard" (to zero) or "soft" (by subtraction).
        surrogate: stands for the derivative of the step function.
        detach_reset: if true, no gradient flows through the reset.

    Raises:
        ConfigError: if a constant is out of range.

    Source: Guo et al., ICCV 2023, eqs. 1-3; defaults as in the official code.
    """

    decay: float = 0.25
    threshold: float = 0.5
    reset: Reset = "hard"
    surrogate: Surrogate = field(default_factory=Tanh)
    detach_reset: bool = False

    def __post_init__(self) -> None:
        for name in ("decay", "threshold"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool):
                kind = type(value).__name__
                raise ConfigError(f"neuron: {name} must be a plain number, got a {kind}")
            object.__setattr__(self, name, float(value))
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"neuron: decay must lie in [0, 1], got {self.decay}")
        if not math.isfinite(self.threshold):
            raise ConfigError(f"neuron: threshold must be finite, got {self.threshold}")
        if self.reset not in get_args(Reset):
            raise ConfigError(f"neuron: reset must be 'hard' or 'soft', got {self.reset!r}")
        if not isinstance(self.detach_reset, bool):
            raise ConfigError(f"neuron: detach_reset must be a bool, got {self.detach_reset!r}")
        require_surrogate(self.surrogate)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` turns back into the same constants."""
        return {**vars(self), "surrogate": surrogate_to_dict(self.surrogate)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Neuron":
        """The constants that `to_dict` wrote.

        Raises:
            ConfigError: if a name is unknown or a value out of range.
        """
        try:
            return cls(**{**data, "surrogate": surrogate_from_dict(data["surrogate"])})
        except (TypeError, KeyError) as error:
            raise ConfigError(f"neuron: {error}") from error


def membrane_dtype(x: Tensor) -> torch.dtype:
    """The dtype the membrane is held in: float32 for half precision, else the input's own."""
    return torch.promote_types(x.dtype, torch.float32)


def charge(
    v: Float[Tensor, "N C *spatial"], x: Float[Tensor, "N C *spatial"], decay: float
) -> Float[Tensor, "N C *spatial"]:
    """U = decay · v + x  (two roundings on every device)."""
    return v * decay + x


def discharge(
    u: Float[Tensor, "N C *spatial"], s: Float[Tensor, "N C *spatial"], neuron: Neuron
) -> Float[Tensor, "N C *spatial"]:
    """The potential after the reset: u (1 - s) hard, u - threshold · s soft."""
    if neuron.detach_reset:
        s = s.detach()
    return u * (1 - s) if neuron.reset == "hard" else u - neuron.threshold * s


def integrate_step(
    x: Float[Tensor, "N C *spatial"],
    v: Float[Tensor, "N C *spatial"],
    neuron: Neuron,
    fire_step: FireStep,
) -> tuple[Float[Tensor, "N C *spatial"], Float[Tensor, "N C *spatial"]]:
    """One time step: charge, fire, reset.

    Arguments:
        x: input current of this step.
        v: membrane potential left by the step before.
        neuron: the constants.
        fire_step: from the potential before firing to spikes of the same shape.

    Returns:
        spikes, and the membrane potential left for the next step.
    """
    u = charge(v, x, neuron.decay)
    s = fire_step(u)
    return s, discharge(u, s, neuron)


def integrate(
    x: Float[Tensor, "T N C *spatial"],
    neuron: Neuron,
    fire_step: FireStep,
    v: Float[Tensor, "N C *spatial"] | None = None,
) -> tuple[Float[Tensor, "T N C *spatial"], Float[Tensor, "N C *spatial"]]:
    """A whole sequence: `integrate_step` from the first step to the last.

    Arguments:
        x: input currents. Half precision is integrated in float32.
        neuron: the constants.
        fire_step: called once per step, in order.
        v: membrane potential before the first step; None is zero.

    Returns:
        spikes (x's dtype and memory format), and the last membrane potential.

    Raises:
        ShapeError: if x has fewer than three dimensions, or no time step.
    """
    if x.ndim < 3:
        raise ShapeError(
            f"a neuron needs [T, N, C, ...] or [T, N, F], got {list(x.shape)}: "
            "is the time or the batch dimension missing?"
        )
    if x.shape[0] == 0:
        raise ShapeError(f"no time step in an input of shape {list(x.shape)}: T must be at least 1")
    dtype = membrane_dtype(x)
    if v is None:
        v = torch.zeros_like(x[0], dtype=dtype)
    elif v.shape != x.shape[1:]:
        raise ShapeError(f"state of shape {list(v.shape)} for an input step {list(x.shape[1:])}")
    spikes = []
    for x_t in x:
        s, v = integrate_step(x_t.to(dtype), v, neuron, fire_step)
        spikes.append(s.to(x.dtype))
    # cat, not stack: it keeps the memory format of the steps
    return torch.cat(spikes).unflatten(0, x.shape[:2]), v


def lif(
    x: Float[Tensor, "T N C *spatial"],
    neuron: Neuron,
    v: Float[Tensor, "N C *spatial"] | None = None,
) -> tuple[Float[Tensor, "T N C *spatial"], Float[Tensor, "N C *spatial"]]:
    """Leaky integrate-and-fire: s = 1[u > threshold].

    Arguments:
        x: input currents.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.

    Returns:
        spikes, and the last membrane potential.
    """
    return integrate(x, neuron, lambda u: fire(u, neuron.threshold, neuron.surrogate), v)


def mpbn_lif_train(
    x: Float[Tensor, "T N C *spatial"],
    gamma: Float[Tensor, "*shape"],
    beta: Float[Tensor, "*shape"],
    eps: float,
    neuron: Neuron,
    v: Float[Tensor, "N C *spatial"] | None = None,
    group: distributed.ProcessGroup | None = None,
) -> tuple[
    Float[Tensor, "T N C *spatial"],
    Float[Tensor, "N C *spatial"],
    Float[Tensor, "T *shape"],
    Float[Tensor, "T *shape"],
]:
    """LIF with MPBN in training: s = 1[MPBN(u) > threshold], statistics of each time step's batch.

    Arguments:
        x: input currents.
        gamma, beta: gain and shift per channel `[C]` or per element `[C, *spatial]`.
        eps: added to the variance.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.
        group: processes whose batches are normalized together; None: this one's alone.

    Returns:
        spikes, last membrane potential, and per time step the mean and the biased variance.

    Source: Guo et al., ICCV 2023, eqs. 5-8.
    """
    shape = tuple(gamma.shape)
    observed: list[tuple[Tensor, Tensor]] = []

    def fire_step(u: Tensor) -> Tensor:
        mean, variance = statistics(u, shape, group)
        observed.append((mean.detach(), variance.detach()))
        h = normalize(u, mean, variance, gamma, beta, eps)
        return fire(h, neuron.threshold, neuron.surrogate)

    spikes, v = integrate(x, neuron, fire_step, v)
    means, variances = zip(*observed, strict=True)
    return spikes, v, torch.stack(means), torch.stack(variances)


def mpbn_lif(
    x: Float[Tensor, "T N C *spatial"],
    mean: Float[Tensor, "*shape"],
    variance: Float[Tensor, "*shape"],
    gamma: Float[Tensor, "*shape"],
    beta: Float[Tensor, "*shape"],
    eps: float,
    neuron: Neuron,
    v: Float[Tensor, "N C *spatial"] | None = None,
) -> tuple[Float[Tensor, "T N C *spatial"], Float[Tensor, "N C *spatial"]]:
    """LIF with MPBN in evaluation: s = 1[MPBN(u) > threshold], running statistics.

    Arguments:
        x: input currents.
        mean, variance: running statistics, per channel `[C]` or per element `[C, *spatial]`.
        gamma, beta: gain and shift, of the same shape.
        eps: added to the variance.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.

    Returns:
        spikes, and the last membrane potential.
    """

    def fire_step(u: Tensor) -> Tensor:
        h = normalize(u, mean, variance, gamma, beta, eps)
        return fire(h, neuron.threshold, neuron.surrogate)

    return integrate(x, neuron, fire_step, v)


def folded_lif(
    x: Float[Tensor, "T N C *spatial"],
    theta: Float[Tensor, "*shape"],
    polarity: Float[Tensor, "*shape"] | None,
    neuron: Neuron,
    v: Float[Tensor, "N C *spatial"] | None = None,
) -> tuple[Float[Tensor, "T N C *spatial"], Float[Tensor, "N C *spatial"]]:
    """LIF with folded thresholds: s = 1[polarity · u > polarity · theta].

    The soft reset still subtracts the constant `neuron.threshold`, never theta.

    Arguments:
        x: input currents.
        theta: folded thresholds, per channel `[C]` or per element `[C, *spatial]`.
        polarity: +1 or -1 of the same shape; None if all are +1.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.

    Returns:
        spikes, and the last membrane potential.
    """
    ndim = x.ndim - 1
    if polarity is None:
        threshold = per_neuron(theta, ndim)
        return integrate(x, neuron, lambda u: fire(u, threshold, neuron.surrogate), v)
    sign = per_neuron(polarity, ndim)
    threshold = per_neuron(polarity * theta, ndim)
    return integrate(x, neuron, lambda u: fire(u * sign, threshold, neuron.surrogate), v)
