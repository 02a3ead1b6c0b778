"""What the importers of other libraries' modules share. None of these libraries is imported."""

import warnings
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikefold.errors import AdoptError, SpikefoldWarning
from spikefold.graphs import graphs
from spikefold.nn import SpikingNeuron, strange


def place(name: str, module: nn.Module) -> str:
    """A module and where it stands, for messages."""
    kind = type(module).__name__
    return f"'{name}' ({kind})" if name else f"the {kind}"


def require_plain(what: str, module: nn.Module) -> None:
    """Refuse a module that does something besides what its class says.

    Raises:
        AdoptError: if it carries hooks, a parametrization or a forward of its own.
    """
    reason = strange(module)
    if reason:
        raise AdoptError(f"{what}: {reason}")


def require_step(what: str, function: Callable[[Tensor], Tensor], at_zero: float) -> None:
    """Refuse a firing function that is not a step from 0 to 1.

    Arguments:
        what: whose, for the message.
        function: of the potential minus the threshold.
        at_zero: its value at 0.

    Raises:
        AdoptError: if it is none.
    """
    tiny = torch.finfo(torch.float32).tiny
    z = torch.tensor([[-1e30, -1.0, -1e-6, -tiny, 0.0, tiny, 1e-6, 1.0, 1e30]])
    with torch.no_grad():
        found = function(z).tolist()[0]
    if found != [0.0, 0.0, 0.0, 0.0, at_zero, 1.0, 1.0, 1.0, 1.0]:
        raise AdoptError(f"{what}: its surrogate does not fire as a step does: {function}")


def require_one_call(model: nn.Module) -> None:
    """Refuse neurons that are called several times in a forward, as far as it can be followed.

    In other libraries they carry their potential from one call to the next; ours start at rest.

    Raises:
        AdoptError: with the neurons' name.
    """
    seen: set[int] = set()
    for graph in graphs(model)[0]:
        for node in graph.nodes:
            if not isinstance(node.module, SpikingNeuron):
                continue
            if id(node.module) in seen:
                raise AdoptError(
                    f"'{node.path}' is called more than once in a forward, and carries its "
                    "potential from one call to the next: give each place neurons of its own"
                )
            seen.add(id(node.module))


class Notes:
    """What a user must know about single neurons, one message for all that it concerns."""

    def __init__(self, function: str) -> None:
        self.function = function
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, place: str, text: str) -> None:
        """Note this of the neurons at a place."""
        self.places[text].append(place)

    def say(self) -> None:
        """One warning a text."""
        for text, places in self.places.items():
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            message = f"{self.function}: {', '.join(places[:3])}{more}: {text}"
            warnings.warn(message, SpikefoldWarning, stacklevel=3)
