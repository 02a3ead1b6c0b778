"""snnTorch's Leaky neurons as ours, in rows of layers.

With u the potential before firing, v after the reset, s' the spikes of the step before:

    "zero":                       u = beta (1 - s') u' + x                 ours, hard reset
    "zero", no reset_delay:       u = beta v + x,  v = u (1 - s)           ours, hard reset
    "subtract", no reset_delay:   u = beta v + x,  v = u - threshold s     ours, soft reset (*)
    "subtract":                   u = beta u' + x - threshold s'           another neuron: refused

(*) as long as no v is above the threshold: there snnTorch subtracts the threshold before the next
decision, and gives it back where that decision is to fire. How often that matters is measured.

It fires at u > threshold, as ours do. Modules are known by their class's name and module; snnTorch
is not imported.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikefold.adopt._foreign import Notes, place, require_plain, require_step
from spikefold.adopt._rounding import random_currents
from spikefold.dynamics import Atan, Neuron, Sigmoid, Surrogate, Tanh
from spikefold.errors import AdoptError
from spikefold.nn import LIF, OverTime, copied


def from_snntorch(network: nn.Module) -> nn.Module:
    """A new network in which spikefold's neurons replace snnTorch's `Leaky`.

    Takes a `Leaky`, or an `nn.Sequential` of ordinary layers and of `Leaky`, with
    `reset_mechanism="zero"`; or "subtract" with `reset_delay=False`, which is the same only while
    no potential is above the threshold after a reset (a warning says so). A network with a forward
    of its own loops over time steps in Python, which cannot be followed: put its layers in a row,
    `nn.Sequential(net.fc1, net.lif1, ...)`.

    The result takes the whole sequence `[T, N, ...]`, starts at rest, and returns spikes, also
    where `output=True` returned the potential with them. In training its batch norms see all time
    steps together.

    Arguments:
        network: not changed.

    Returns:
        a `LIF`, or an `nn.Sequential` with the same names, in evaluation mode, with tensors of its
        own. A learnt beta or threshold is taken as it is now.

    Raises:
        AdoptError: if a module has no exact counterpart; names it.

    Source: Eshraghian et al., snnTorch 1.0.0.
    """
    neurons = [
        (name, module)
        for name, module in network.named_modules(remove_duplicate=False)
        if _is_theirs(module)
    ]
    if not neurons:
        raise AdoptError(f"from_snntorch: a {type(network).__name__} has none of its neurons")
    for name, module in neurons:
        if sum(other is module for _, other in neurons) > 1:
            raise AdoptError(
                f"'{name}' stands in several places, and carries its potential from one to the "
                "other: give each place neurons of its own"
            )
    notes = Notes("from_snntorch")
    result = copied(_for_sequences("", network, _last(network), notes)).eval()
    notes.say()
    return result


def _for_sequences(name: str, module: nn.Module, last: nn.Module, notes: Notes) -> nn.Module:
    """What does at all time steps what a module does at one.

    Arguments:
        name: path of the module.
        module: of a row.
        last: the last module of the row.
        notes: of what is not the same.
    """
    what = place(name, module)
    require_plain(what, module)
    if _is_theirs(module):
        return _leaky(what, module, module is last, notes)
    if not any(map(_is_theirs, module.modules())):
        return OverTime(module)
    if type(module) is not nn.Sequential:
        raise AdoptError(
            f"{what} has a forward of its own, and a loop over time steps cannot be followed: put "
            "its layers in a row, nn.Sequential(net.fc1, net.lif1, ...), and import that"
        )
    row = nn.Sequential()
    for child, part in module.named_children():
        path = f"{name}.{child}".lstrip(".")
        row.add_module(child, _for_sequences(path, part, last, notes))
    return row


def _last(module: nn.Module) -> nn.Module:
    while type(module) is nn.Sequential and len(module):
        module = module[-1]
    return module


def _is_theirs(module: nn.Module) -> bool:
    return any(kind.__module__.startswith("snntorch.") for kind in type(module).__mro__)


def _leaky(what: str, leaky: Any, last: bool, notes: Notes) -> LIF:
    """Our neurons with its constants."""
    kind = type(leaky)
    if kind.__name__ != "Leaky" or not kind.__module__.startswith("snntorch."):
        raise AdoptError(f"{what}: only snnTorch's Leaky has a counterpart here")
    try:
        neuron = Neuron(
            decay=_number(what, "beta", leaky.beta.clamp(0, 1)),
            threshold=_number(what, "threshold", leaky.threshold),
            reset="hard" if leaky.reset_mechanism == "zero" else "soft",
            surrogate=_surrogate(what, leaky.spike_grad, notes),
            # a delayed reset is by the detached spike, the other by the one with a gradient
            detach_reset=bool(leaky.reset_delay),
        )
        _require_exact(what, leaky, neuron, last)
    except AttributeError as error:
        raise AdoptError(f"{what}: is none of snnTorch 1.0.0: {error}") from error
    require_step(what, leaky.spike_grad, at_zero=0.0)
    if neuron.reset == "soft":
        differ, of = _differing(neuron)
        notes.add(
            what,
            "the same only while no potential is above the threshold after a reset, where snnTorch "
            f"subtracts it once more: {differ:,} of {of:,} decisions on random currents differ",
        )
    return LIF.of(neuron)


@torch.no_grad()
def _differing(neuron: Neuron) -> tuple[int, int]:
    """Decisions in which the soft reset of snnTorch and ours differ, of how many."""
    threshold = neuron.threshold
    currents = random_currents(torch.zeros(1), torch.tensor([threshold or 1.0]))
    v, spikes = torch.zeros_like(currents[0]), []
    for x in currents:
        again = (v > threshold).to(x.dtype)
        u = neuron.decay * v + x - again * threshold
        spikes.append((u > threshold).to(x.dtype))
        v = u - (spikes[-1] - again) * threshold
    differ = torch.stack(spikes) != LIF.of(neuron)(currents)
    return int(differ.sum()), differ.numel()


def _require_exact(what: str, leaky: Any, neuron: Neuron, last: bool) -> None:
    """Refuse what our neurons do not do."""
    if leaky.reset_mechanism not in ("zero", "subtract"):
        raise AdoptError(f"{what}: reset_mechanism={leaky.reset_mechanism!r} has no counterpart")
    if leaky.reset_mechanism == "subtract" and leaky.reset_delay:
        raise AdoptError(
            f"{what}: with reset_mechanism='subtract' and reset_delay=True the threshold is "
            "subtracted after the leak, which is another neuron: reset_delay=False (or 'zero') "
            "can be imported; train with it"
        )
    if neuron.threshold < 0 and not leaky.reset_delay:
        raise AdoptError(
            f"{what}: with threshold={neuron.threshold:g} and reset_delay=False it resets before "
            "it fires"
        )
    if leaky.graded_spikes_factor != 1:
        raise AdoptError(f"{what}: graded_spikes_factor has no counterpart")
    for option in ("inhibition", "state_quant"):
        if getattr(leaky, option):
            raise AdoptError(f"{what}: {option} has no counterpart")
    if leaky.output and not last:
        raise AdoptError(f"{what}: output=True, and the layer after it takes no potential")


def _number(what: str, name: str, value: Tensor) -> float:
    if value.numel() != 1:
        raise AdoptError(
            f"{what}: {name} of shape {list(value.shape)}: only one for the layer can be imported"
        )
    return float(value.detach())


# By the function that made them, with its argument.
SURROGATES: dict[str, Callable[[float], Surrogate]] = {"atan": Atan, "sigmoid": Sigmoid}


def _surrogate(what: str, theirs: Any, notes: Notes) -> Surrogate:
    name = getattr(theirs, "__qualname__", type(theirs).__name__).removesuffix(".<locals>.inner")
    if getattr(theirs, "__module__", "") != "snntorch.surrogate" or name not in SURROGATES:
        notes.add(what, f"surrogate {name} has no counterpart: gradients are those of Tanh")
        return Tanh()
    (cell,) = theirs.__closure__
    return SURROGATES[name](float(cell.cell_contents))
