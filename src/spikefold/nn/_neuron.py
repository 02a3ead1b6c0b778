"""Spiking neurons as modules: thin shells over `spikefold.dynamics`."""

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.dynamics import (
    Condition,
    Currents,
    Fired,
    Neuron,
    Reset,
    Surrogate,
    Tanh,
    Thresholds,
)
from spikefold.errors import ConfigError
from spikefold.nn._attached import attached
from spikefold.nn._mpbn import MPBN
from spikefold.nn._observe import Call, Recorder, notify


class SpikingNeuron(nn.Module):
    """What all neurons share: a sequence in, spikes out; no state is kept between calls.

    A neuron of your own gives its `condition`, or overrides `integrate`. Everything goes through
    `fire`, which is final: there `spikefold.verify` and others see what fired.

    Arguments:
        neuron: the constants of the layer.
    """

    recording: tuple[Recorder, str] | None = None  # see `with_spikes`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.fire is not SpikingNeuron.fire:
            raise TypeError(f"{cls.__name__}: fire is final: override condition or integrate")

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Float[Tensor, "T N C *spatial"]) -> Float[Tensor, "T N C *spatial"]:
        """Spikes of a whole sequence that starts at rest.

        Arguments:
            x: input currents `[T, N, C, *spatial]` or `[T, N, F]`.

        Returns:
            zeros and ones, of x's shape and dtype.

        Raises:
            ShapeError: if a dimension is missing or of the wrong size.
        """
        return self.fire(Currents.of(x)).spikes

    def step(
        self, x: Float[Tensor, "N C *spatial"], state: Float[Tensor, "N C *spatial"] | None = None
    ) -> tuple[Float[Tensor, "N C *spatial"], Float[Tensor, "N C *spatial"]]:
        """One time step of a stream, with explicit state.

        Arguments:
            x: input current `[N, C, *spatial]` of this step.
            state: what the step before returned; None starts at rest.

        Returns:
            spikes, and the state (membrane potential) to hand to the next step.
        """
        fired = self.fire(Currents.of(x.unsqueeze(0)), state)
        return fired.spikes[0], fired.v

    @final
    def fire(self, currents: Currents, state: Tensor | None = None) -> Fired:
        """What a sequence of currents does that starts from `state`, shown to who observes.

        Arguments:
            currents: computed or not; the kernels compute them on the way.
            state: membrane potential before the first step; None starts at rest.
        """
        fired = self.integrate(currents, state)
        if not torch.compiler.is_dynamo_compiling():
            notify(Call(self, currents, state, fired))
        elif self.recording is not None:
            recorder, name = self.recording
            recorder.spikes.setdefault(name, []).append(fired.spikes)
        return fired

    def integrate(self, currents: Currents, state: Tensor | None) -> Fired:
        """What `fire` does.

        Arguments:
            currents: computed or not.
            state: membrane potential before the first step; None is zero.
        """
        return dynamics.layer(currents, self.condition(), self.neuron, state)

    def is_called(self) -> bool:
        """Whether it must be called as a module: it carries hooks, or a forward of its own."""
        return type(self).forward is not SpikingNeuron.forward or attached(self) is not None

    def condition(self) -> Condition:
        """When these neurons fire."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The constants, for print."""
        return ", ".join(f"{key}={value}" for key, value in vars(self.neuron).items())


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neurons, with or without MPBN.

        u[t] = decay · v[t-1] + x[t];   s[t] = 1[norm(u[t]) > threshold];   v[t] = u[t] (1 - s[t])

    Arguments:
        norm: `MPBN` applied before the firing function, or None.
        decay: what is left of the potential after a step, in [0, 1]; 1 is the IF neuron.
        threshold: firing threshold.
        reset: "hard" (to zero) or "soft" (minus threshold).
        surrogate: stands for the derivative of the step function; default: the official window.
        detach_reset: if true, no gradient flows through the reset.

    Raises:
        ConfigError: if a constant is out of range, or norm is not an MPBN.

    Source: Guo et al., ICCV 2023, eqs. 1-8.

    Example:
        >>> import torch, spikefold as sf
        >>> neuron = sf.LIF(norm=sf.MPBN(3))
        >>> neuron(torch.randn(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 3, 8, 8])
        >>> _ = neuron.eval()
        >>> spikes, state = neuron.step(torch.randn(2, 3, 8, 8))
        >>> spikes, state = neuron.step(torch.randn(2, 3, 8, 8), state)
    """

    def __init__(
        self,
        norm: MPBN | None = None,
        *,
        decay: float = 0.25,
        threshold: float = 0.5,
        reset: Reset = "hard",
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
    ) -> None:
        super().__init__(Neuron(decay, threshold, reset, surrogate or Tanh(), detach_reset))
        if not (norm is None or isinstance(norm, MPBN)):
            raise ConfigError(
                f"LIF: norm must be an MPBN or None, got {type(norm).__name__}: other "
                "normalizations belong before the neuron, into SpikingLayer's norm"
            )
        self.norm = norm

    @classmethod
    def of(cls, neuron: Neuron, norm: MPBN | None = None) -> "LIF":
        """The layer with these constants."""
        return cls(norm, **vars(neuron))

    def condition(self) -> Condition:
        """The potential, normalized if there is an MPBN, is above the threshold."""
        if self.norm is None:
            return None
        # an MPBN that does more than its class says is called, a step at a time
        if type(self.norm).forward is not MPBN.forward or attached(self.norm):
            return self.norm
        return self.norm.normalization()

    def integrate(self, currents: Currents, state: Tensor | None) -> Fired:
        """What a sequence of currents does; in training MPBN observes its statistics."""
        if self.norm is None:
            return super().integrate(currents, state)
        self.norm.check(currents.shape[1:])
        fired = super().integrate(currents, state)
        if fired.potential is not None:
            self.norm.observe(*fired.potential, currents.shape[1:])
        return fired


class FoldedLIF(SpikingNeuron):
    """Leaky integrate-and-fire neurons whose MPBN was folded into their thresholds.

        s[t] = 1[polarity · u[t] > polarity · theta]

    There is no normalization left. `spikefold.fold` makes it; few people write one by hand. The
    thresholds hold for potentials of their dtype only, so `double()` and `half()` leave them as
    they are, and potentials of another dtype are refused (those of half precision are float32).

    Arguments:
        theta: thresholds per channel `[C]` or per element `[C, *spatial]`; ±inf where a neuron
            never or always fires.
        polarity: +1 or -1 (gain negative: the neuron fires below theta); None makes all +1.
        neuron: the constants; its `threshold` is what a soft reset subtracts.
    """

    theta: Tensor
    polarity: Tensor

    def __init__(self, theta: Tensor, polarity: Tensor | None, neuron: Neuron) -> None:
        super().__init__(neuron)
        self.register_buffer("theta", theta)
        self.register_buffer("polarity", torch.ones_like(theta) if polarity is None else polarity)

    def condition(self) -> Condition:
        """The potential is past theta."""
        return Thresholds(self.theta, self.polarity)

    def integrate(self, currents: Currents, state: Tensor | None) -> Fired:
        """What a sequence of currents does.

        Raises:
            ConfigError: if the thresholds do not hold for the potentials' dtype.
        """
        dtype = dynamics.membrane_dtype(currents.input)
        if dtype != self.theta.dtype:
            raise ConfigError(
                f"thresholds that were folded for {self.theta.dtype} do not hold for potentials in "
                f"{dtype}: convert the network first, then fold it"
            )
        return super().integrate(currents, state)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "FoldedLIF":
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, *args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        *_, errors = args
        for name in ("theta", "polarity"):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.dtype != self.theta.dtype:
                errors.append(
                    f"{prefix}{name} was folded for {stored.dtype}, this network is "
                    f"{self.theta.dtype}: thresholds hold for the dtype they were found in"
                )
                return
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """Shape and constants, for print."""
        return f"{tuple(self.theta.shape)}, {super().extra_repr()}"
