"""One time step of a network, through its containers, blocks and layers."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from spikefold.errors import ConfigError
from spikefold.nn._layer import OverTime, step_over_time
from spikefold.nn._neuron import SpikingNeuron
from spikefold.nn._norm import CurrentNorm
from spikefold.nn._state import State, begun, refuse_hooks, require_step

States = dict[str, State]  # by name of the layer


class Stream:
    """One time step of a module, part by part: splits the states for the parts and merges them.

    Arguments:
        states: what the step before left; None: all begin at rest.

    Raises:
        ConfigError: if they are not states.
    """

    def __init__(self, states: States | None) -> None:
        if not (states is None or isinstance(states, dict)):
            raise ConfigError(
                "the state of a network is what step returned, a dict of layers, got "
                f"{type(states).__name__}"
            )
        self._before = states
        self._after: States = {}

    def step(
        self, name: str, part: nn.Module, x: Float[Tensor, "N ..."], *shortcut: Tensor
    ) -> Float[Tensor, "N ..."]:
        """One time step of a part.

        Arguments:
            name: of the part in the module.
            part: one with a `step`; a row of parts; or one without neurons, for `[T, N, ...]`.
            x: of this step.
            shortcut: passed to the part's `step`, where given.

        Raises:
            ConfigError: if the part cannot step, or the states are those of another network.
        """
        if not any(isinstance(module, SpikingNeuron) for module in part.modules()):
            return _without_neurons(part, x, self._clock())
        before = self._of(name)
        if type(part) is nn.Sequential:
            y, after = _row(part, x, before)
        else:
            require_step(part)
            y, after = part.step(x, before, *shortcut)  # type: ignore[operator]
        if isinstance(after, State):
            self._after[name] = after
        else:
            self._after |= {f"{name}.{key}": state for key, state in after.items()}
        return y

    def _clock(self) -> State:
        """At which step the neurons stand, if all do at the same."""
        if self._before is None:
            return begun(None)
        times = {begun(state).t for state in self._before.values()}
        return State(None, times.pop() if len(times) == 1 else None)

    def _of(self, name: str) -> Any:
        """A layer's state, or those within a part."""
        if self._before is None or name in self._before:
            return self._before and self._before[name]
        within = name + "."
        found = {
            key.removeprefix(within): state
            for key, state in self._before.items()
            if key.startswith(within)
        }
        if not found:
            raise ConfigError(f"the state is that of another network: it has no {name!r}")
        return found

    def states(self) -> States:
        """What all parts together left.

        Raises:
            ConfigError: if there were others before.
        """
        if self._before is not None and self._before.keys() != self._after.keys():
            other = sorted(self._before.keys() ^ self._after.keys())
            raise ConfigError(f"the state is that of another network: it differs in {other[0]!r}")
        return self._after


def _without_neurons(part: nn.Module, x: Tensor, clock: State) -> Tensor:
    """One step of a part for `[T, N, ...]`."""
    if type(part) is OverTime:
        return step_over_time(part, x, clock)
    for module in part.modules():
        if isinstance(module, CurrentNorm) and module.steps is not None:
            raise ConfigError(
                f"{type(part).__name__} cannot step: a {type(module).__name__} in it does not "
                "learn which step it is; sf.OverTime(...) tells it"
            )
    result: Tensor = part(x.unsqueeze(0))[0]
    return result


def _row(row: nn.Sequential, x: Tensor, states: States | None) -> tuple[Tensor, States]:
    refuse_hooks(row)
    stream = Stream(states)
    for name, part in row._modules.items():
        x = stream.step(name, part, x)
    return x, stream.states()
