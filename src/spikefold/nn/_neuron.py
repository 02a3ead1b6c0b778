"""Spiking neurons as modules: thin shells over `spikefold.dynamics`."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypedDict, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold import dynamics, renamed
from spikefold.described import takes
from spikefold.dynamics import (
    Condition,
    Currents,
    Fired,
    Neuron,
    Reset,
    Surrogate,
)
from spikefold.errors import ConfigError
from spikefold.nn._attached import attached
from spikefold.nn._norm import MembraneNorm, is_called
from spikefold.nn._observe import Recorder, notify
from spikefold.nn._state import State, begun
from spikefold.registry import unknown


class SpikingNeuron(nn.Module):
    """Base of all neurons: a sequence in, spikes out; no state is kept between calls.

    A neuron of your own gives its `condition`, or overrides `integrate`. Everything goes through
    `fire`, which is final, so that `spikefold.verify` and other observers miss no call.

    Arguments:
        constants: decay, threshold, reset and surrogate.
    """

    neuron = renamed.Attribute("SpikingNeuron.neuron", "constants")
    recording: tuple[Recorder, str] | None = None  # see `with_spikes`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.fire is not SpikingNeuron.fire:
            raise TypeError(f"{cls.__name__}: fire is final: override condition or integrate")

    @renamed.arguments(neuron="constants")
    def __init__(self, constants: Neuron) -> None:
        super().__init__()
        self.constants = constants

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
        self, x: Float[Tensor, "N C *spatial"], state: State | None = None
    ) -> tuple[Float[Tensor, "N C *spatial"], State]:
        """One time step of a stream, with explicit state.

        Arguments:
            x: input current `[N, C, *spatial]` of this step.
            state: what the step before returned; None starts at rest.

        Returns:
            spikes, and the state to hand to the next step.

        Raises:
            ShapeError: past the last step, where there are parameters for each.
            ConfigError: if the state is not one that `step` returned.
        """
        state = begun(state)
        fired = self.fire(Currents.of(x.unsqueeze(0)), state)
        return fired.spikes[0], state.advanced(fired.v)

    @final
    def fire(self, currents: Currents, state: State | None = None) -> Fired:
        """Run the neurons over a sequence of currents, starting from `state`, and notify observers.

        Arguments:
            currents: computed or not; the kernels compute them on the way.
            state: of the stream; None: the sequence is whole, and starts at rest.

        Raises:
            ShapeError: if something does not fit together.
        """
        fired = self.integrate(currents, state)
        # a compiler traces no ContextVar, in which observers are kept
        if not torch.compiler.is_dynamo_compiling():
            notify(self, currents, state, fired)
        elif self.recording is not None:
            recorder, name = self.recording
            recorder.spikes.setdefault(name, []).append(fired.spikes)
        return fired

    def integrate(self, currents: Currents, state: State | None) -> Fired:
        """What `fire` does.

        Arguments:
            currents: computed or not.
            state: of the stream; None starts at rest.
        """
        condition, v = self.condition(), None
        self.check(currents, condition)
        if state is not None:
            v, condition = state.v, state.part(condition, currents.steps, "these neurons")
        return dynamics.simulate(currents, condition, self.constants, v, self.decay())

    def check(self, currents: Currents, condition: Condition) -> None:
        """Refuse currents for which the condition does not hold, though the kernels might run them.

        Arguments:
            currents: computed or not.
            condition: of these neurons.
        """

    def decay(self) -> Tensor | None:
        """The learnt decay, `[]` or `[C]`; None: the constant one."""
        return None

    def is_called(self) -> bool:
        """Whether it must be called as a module: it carries hooks, or a forward of its own."""
        return type(self).forward is not SpikingNeuron.forward or attached(self) is not None

    def condition(self) -> Condition:
        """When these neurons fire."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The constants, for print."""
        return ", ".join(f"{key}={value}" for key, value in vars(self.constants).items())


class NoDecay(TypedDict, total=False):
    """The fields of `Neuron` but the decay, for type checkers."""

    threshold: float
    reset: Reset
    surrogate: Surrogate
    detach_reset: bool


class Constants(NoDecay, total=False):
    """The fields of `Neuron`."""

    decay: float


_FIELDS = tuple(field.name for field in fields(Neuron))


@takes(Neuron)
class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neurons, with or without MPBN.

        u[t] = decay · v[t-1] + x[t];   s[t] = 1[norm(u[t]) > threshold];   v[t] = u[t] (1 - s[t])

    Arguments:
        norm: of the potential, `MPBN` or another `MembraneNorm`; or None.

    Raises:
        ConfigError: if a constant is out of range, or norm is no MembraneNorm.

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

    def __init__(self, norm: MembraneNorm | None = None, **constants: Unpack[Constants]) -> None:
        for name in constants.keys() - _FIELDS:
            raise TypeError(f"{type(self).__name__}: {unknown('constant', name, _FIELDS)}")
        super().__init__(Neuron(**constants))
        if not (norm is None or isinstance(norm, MembraneNorm)):
            raise ConfigError(
                f"{type(self).__name__}: norm must be an MPBN (a MembraneNorm) or None, got "
                f"{type(norm).__name__}: other normalizations belong before the neuron, into "
                "SpikingLayer's norm"
            )
        if norm is not None:
            norm.suit(self.constants.threshold)
        self.norm = norm

    @classmethod
    @renamed.arguments(neuron="constants")
    def of(cls, constants: Neuron, norm: MembraneNorm | None = None) -> "LIF":
        """Neurons with these constants."""
        return cls(norm, **vars(constants))

    def condition(self) -> Condition:
        """The potential, normalized if there is a norm, is above the threshold."""
        norm = self.norm
        if norm is None:
            return Condition()
        # a norm with hooks or a forward of its own is called, a step at a time
        if is_called(norm):
            return Condition(lambda u, t: (norm(u) if norm.steps is None else norm(u, t), None))
        return Condition(norm.normalization())

    def integrate(self, currents: Currents, state: State | None) -> Fired:
        """Run the neurons over a sequence; in training the norm observes its statistics."""
        norm = self.norm
        if norm is None:
            return super().integrate(currents, state)
        norm.check(currents.input.shape[1:])
        fired = super().integrate(currents, state)
        if fired.potential_statistics is not None:
            norm.observe(fired.potential_statistics, (state and state.t) or 0)
        return fired


@takes(Neuron, "decay")
class IF(LIF):
    """Integrate-and-fire neurons: LIF with a decay of 1, nothing leaks.

    Arguments:
        norm: of the potential, `MPBN` or another `MembraneNorm`; or None.
    """

    def __init__(self, norm: MembraneNorm | None = None, **constants: Unpack[NoDecay]) -> None:
        super().__init__(norm, decay=1.0, **constants)


@takes(Neuron)
class PLIF(LIF):
    """LIF neurons whose decay is learnt, one a layer or one a channel.

        decay = 1 - sigmoid(w);   w = -log(tau - 1) at the start, tau = 1 / (1 - decay)

    rounded once from float64. The input current is not scaled by 1 / tau, unlike in the paper.
    The constant `decay`, in (0, 1), is the one at the start.

    Arguments:
        norm: of the potential, `MPBN` or another `MembraneNorm`; or None.
        channels: C for one decay a channel; None: one for the layer.

    Raises:
        ConfigError: if a constant is out of range.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant", ICCV 2021, eq. 10.

    Example:
        >>> import torch, spikefold as sf
        >>> neuron = sf.PLIF(sf.MPBN(3), channels=3)
        >>> neuron(torch.randn(4, 2, 3, 8, 8)).sum().backward()
        >>> neuron.w.grad.shape
        torch.Size([3])
    """

    def __init__(
        self,
        norm: MembraneNorm | None = None,
        *,
        channels: int | None = None,
        **constants: Unpack[Constants],
    ) -> None:
        super().__init__(norm, **constants)
        if not 0 < self.constants.decay < 1:
            raise ConfigError(
                f"PLIF: decay must lie in (0, 1) at the start, got {self.constants.decay}"
            )
        tau = 1 / (1 - self.constants.decay)
        shape = () if channels is None else (channels,)
        self.w = nn.Parameter(torch.full(shape, -math.log(tau - 1)))

    def decay(self) -> Tensor:
        """The share of the potential that remains after a step, `[]` or `[C]`."""
        # rounded once, so that it does not depend on a device's float32 sigmoid
        return (1 - torch.sigmoid(self.w.double())).to(self.w.dtype)

    def extra_repr(self) -> str:
        """The constants, for print; the decay is the one at the start."""
        return super().extra_repr().replace("decay=", "decay at the start=", 1)


class FoldedLIF(SpikingNeuron):
    """Leaky integrate-and-fire neurons whose MPBN was folded into their thresholds.

        s[t] = 1[polarity · u[t] > polarity · theta]

    There is no normalization left. `spikefold.fold` makes it; few people need to write one. The
    thresholds hold for potentials of their dtype only, so `double()` and `half()` leave them as
    they are, and potentials of another dtype are refused (those of half precision are float32).

    Arguments:
        condition: theta `[1, *shape]`, or `[T, *shape]` for thresholds of each time step (shape
            `()`: one for all neurons), ±inf where a neuron never or always fires; polarity +1 or
            -1 (gain negative: the neuron fires below theta), None makes all +1.
        constants: their `threshold` is what a soft reset subtracts.
        decay: what was learnt, `[]` or `[C]`; None: the constant one.
    """

    theta: Tensor
    polarity: Tensor
    kept: Tensor | None

    @renamed.arguments(neuron="constants")
    def __init__(
        self, condition: Condition, constants: Neuron, decay: Tensor | None = None
    ) -> None:
        super().__init__(constants)
        theta, polarity = condition.theta, condition.polarity
        if theta is None:
            raise ConfigError("FoldedLIF: the condition has no thresholds")
        polarity = torch.ones_like(theta) if polarity is None else polarity
        self.steps = None if len(theta) == 1 else len(theta)
        self.register_buffer("theta", theta if self.steps else theta[0])
        self.register_buffer("polarity", polarity if self.steps else polarity[0])
        self.register_buffer("kept", decay)

    def condition(self) -> Condition:
        """The potential is past theta."""
        if self.steps is None:
            return Condition(None, self.theta[None], self.polarity[None])
        return Condition(None, self.theta, self.polarity)

    def decay(self) -> Tensor | None:
        """What was learnt, or None."""
        return self.kept

    def check(self, currents: Currents, condition: Condition) -> None:
        """Refuse potentials of a dtype for which the thresholds do not hold.

        Raises:
            ConfigError: with both dtypes.
        """
        assert condition.theta is not None
        folded, dtype = condition.theta.dtype, currents.input.dtype
        if dtype != folded and (dtype := dynamics.membrane_dtype(currents.input)) != folded:
            raise ConfigError(
                f"thresholds that were folded for {folded} do not hold for potentials in {dtype}: "
                "convert the network first, then fold it"
            )

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
