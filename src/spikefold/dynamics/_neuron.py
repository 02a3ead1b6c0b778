"""The leaky integrate-and-fire neuron: charge, fire, reset, over a sequence.

One convention everywhere (time first, `[T, N, C, *spatial]` or `[T, N, F]`):

    u[t] = decay · v[t-1] + x[t]          v[-1] = 0
    h[t] = condition.potential(u[t], t)
    s[t] = 1 if h[t] > condition.limit(t), else 0
    v[t] = u[t] · (1 - s[t])              hard reset
    v[t] = u[t] - threshold · s[t]        soft reset
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from spikefold import renamed
from spikefold.dynamics._check import check_layer
from spikefold.dynamics._condition import Condition, condition_parameters
from spikefold.dynamics._norm import Observed, per_neuron
from spikefold.dynamics._surrogate import Surrogate, Tanh, fire, require_surrogate
from spikefold.errors import ConfigError

Reset = Literal["hard", "soft"]


@dataclass(frozen=True)
class Neuron:
    """The constants of a layer's neurons.

    Arguments:
        decay: share of the membrane potential that remains after a step, in [0, 1]; 1 is the
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
    surrogate: Surrogate = Tanh()
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


class Fired(NamedTuple):
    """The result of a layer's neurons.

    Attributes:
        spikes: zeros and ones `[T, N, C, *spatial]`, of the input's dtype.
        v: membrane potential after the last step `[N, C, *spatial]`.
        current_statistics: of the batch, where the currents' norm took them: `[1, C]` or `[T, C]`.
        potential_statistics: of the batch, where the condition's norm took them: `[T, *shape]`.
    """

    spikes: Tensor
    v: Tensor
    current_statistics: Observed | None = None
    potential_statistics: Observed | None = None


if not TYPE_CHECKING:  # a NamedTuple takes none in its body
    Fired.current = renamed.Attribute("Fired.current", "current_statistics")
    Fired.potential = renamed.Attribute("Fired.potential", "potential_statistics")


def membrane_dtype(x: Tensor) -> torch.dtype:
    """The dtype the membrane is held in: float32 for half precision, else the input's own."""
    return torch.promote_types(x.dtype, torch.float32)


def charge(
    v: Float[Tensor, "N C *spatial"],
    x: Float[Tensor, "N C *spatial"],
    decay: float | Float[Tensor, "*shape"],
) -> Float[Tensor, "N C *spatial"]:
    """U = decay · v + x  (two roundings on every device).

    Arguments:
        v: membrane potential left by the step before.
        x: input current.
        decay: a number, or a tensor, one for all `[]` or one a channel `[C]`.
    """
    if isinstance(decay, Tensor):
        decay = per_neuron(decay, v.ndim)
    return v * decay + x


def reset(
    u: Float[Tensor, "N C *spatial"], s: Float[Tensor, "N C *spatial"], constants: Neuron
) -> Float[Tensor, "N C *spatial"]:
    """The potential after the reset: u (1 - s) hard, u - threshold · s soft."""
    if constants.detach_reset:
        s = s.detach()
    return u * (1 - s) if constants.reset == "hard" else u - constants.threshold * s


@renamed.arguments(neuron="constants")
def integrate(
    x: Float[Tensor, "T N C *spatial"],
    condition: Condition,
    constants: Neuron,
    v: Float[Tensor, "N C *spatial"] | None = None,
    decay: Float[Tensor, "*shape"] | None = None,
) -> Fired:
    """The one loop over time: charge, fire, reset.

    Arguments:
        x: input currents. Half precision is integrated in float32.
        condition: when the neurons fire.
        constants: of the neurons.
        v: membrane potential before the first step; None is zero.
        decay: learnt, replaces the constant one: `[]` or `[C]`; gets a gradient.

    Returns:
        spikes (x's dtype and memory format), the membrane potential after the last step, and
        statistics if the condition takes those of the batch.

    Raises:
        ShapeError: if something does not fit together.

    Source: Guo et al., ICCV 2023, eqs. 1-8.
    """
    check_layer(x, len(x), None, v, (), condition_parameters(condition), decay=decay)
    dtype = membrane_dtype(x)
    if v is None:
        # like x, not of its shape: the loop keeps x's memory format
        v = torch.zeros_like(x[0], dtype=dtype)
    kept = constants.decay if decay is None else decay
    spikes: list[Tensor] = []
    observed: list[Observed] = []
    for t, x_t in enumerate(x):
        u = charge(v, x_t.to(dtype), kept)
        h, statistics = condition.potential(u, t)
        s = fire(h, condition.limit(constants.threshold, t, u.ndim), constants.surrogate)
        v = reset(u, s, constants)
        spikes.append(s.to(x.dtype))
        if statistics is not None:
            observed.append(statistics)
    # cat, not stack: it keeps the memory format of the steps
    return Fired(
        torch.cat(spikes).unflatten(0, x.shape[:2]),
        v,
        potential_statistics=_of_all_steps(observed) if observed else None,
    )


def _of_all_steps(observed: list[Observed]) -> Observed:
    means = torch.stack([step.mean.detach() for step in observed])
    variances = torch.stack([step.variance.detach() for step in observed])
    return Observed(means, variances, observed[0].samples)
