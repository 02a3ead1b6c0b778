"""Watching neurons: observers see every call of a network's neurons.

They belong to the `with` that set them (and its thread), not to a module or to the process, and
nothing about what runs depends on them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from spikefold.dynamics import Currents, Fired
from spikefold.nn._state import State

if TYPE_CHECKING:
    from spikefold.nn._neuron import SpikingNeuron


class Call(NamedTuple):
    """One call of a layer's neurons.

    Attributes:
        neuron: the module.
        currents: its input.
        state: of the stream before the call; None was at rest.
        fired: its result.
    """

    neuron: "SpikingNeuron"
    currents: Currents
    state: State | None
    fired: Fired


class Recorder:
    """Where neurons record spikes under torch.compile, which cannot trace a ContextVar."""

    def __init__(self) -> None:
        self.spikes: dict[str, list[Tensor]] = {}


_observers: ContextVar[tuple[Callable[[Call], None], ...]] = ContextVar("observers", default=())


@contextmanager
def observing(model: nn.Module, see: Callable[[str, Call], None]) -> Iterator[None]:
    """Call `see(name, call)` whenever neurons of a network fire inside, in this thread.

    Every call counts, also `step` and several calls of one layer. Neurons inside a function that
    torch.compile compiled are not seen.

    Arguments:
        model: whose neurons are watched; neurons with two names are shown under the first.
        see: must not change what it is shown.
    """
    names = {id(module): name for name, module in model.named_modules()}

    def notice(call: Call) -> None:
        if id(call.neuron) in names:
            see(names[id(call.neuron)], call)

    token = _observers.set((*_observers.get(), notice))
    try:
        yield
    finally:
        _observers.reset(token)


def notify(neuron: "SpikingNeuron", currents: Currents, state: State | None, fired: Fired) -> None:
    """Show a call to all observers; see `Call`."""
    for see in _observers.get():
        see(Call(neuron, currents, state, fired))
