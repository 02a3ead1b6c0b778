"""Networks made of SpikingJelly's modules, with ours in their place.

Modules are known by their class's name and module; SpikingJelly is not imported.
"""

from typing import Any

import torch
from torch import Tensor, nn

from spikefold.adopt._foreign import Notes, place, require_one_call, require_plain
from spikefold.adopt._spikingjelly_nodes import LEAKS, neurons
from spikefold.errors import AdoptError
from spikefold.nn import OverTime, copied, replaced, twin


def from_spikingjelly(network: nn.Module) -> nn.Module:
    """A new network in which spikefold's neurons replace SpikingJelly's.

    Takes networks in multi-step mode, `[T, N, ...]`, of SpikingJelly 2.0.0's layers (`layer.*`:
    convolutions, linear, batch norm, pooling, flatten, dropout, voting), containers, and nodes IF,
    LIF, ParametricLIF and MPBNLIF with hard (`v_reset=0.`) or soft reset, inside modules of your
    own. Each call starts at rest, as after `reset_net`; a learnt decay is taken as it is now.

    SpikingJelly fires at u >= threshold: theta is the number before it, and a soft reset subtracts
    the threshold itself. Where potentials are rounded otherwise, a warning says by how much it was
    measured to matter. An MPBN node, which carries the normalized potential, becomes a LIF with a
    decay for each channel, for inference: its statistics stay as they are in training too.

    Arguments:
        network: not changed.

    Returns:
        a network of the same class, in evaluation mode, with tensors of its own.

    Raises:
        AdoptError: if a module has no counterpart, or is in single-step mode; names it.

    Source: Fang et al., SpikingJelly 2.0.0.
    """
    with_ours = twin(network)
    notes = Notes("from_spikingjelly")
    importer = _Importer(*_kind_of_numbers(network), notes)
    importer.visit("", with_ours)
    if not importer.made:
        raise AdoptError(f"from_spikingjelly: a {type(network).__name__} has none of its modules")
    result = copied(replaced(with_ours, importer.made)).eval()
    require_one_call(twin(result))  # a twin: tracing may leave attributes behind
    notes.say()
    return result


# SpikingJelly's layers that are torch's, with time before the batch in multi-step mode.
LAYERS: dict[str, type[nn.Module]] = {
    **{
        name: getattr(nn, name)
        for name in (
            *("Conv1d", "Conv2d", "Conv3d"),
            *("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
            *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm"),
            *("MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d"),
            *("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"),
            *("Linear", "Flatten", "Upsample"),
        )
    },
    # it starts from another gain, and that is all
    **{f"ThresholdDependentBatchNorm{d}d": getattr(nn, f"BatchNorm{d}d") for d in (1, 2, 3)},
}
DROPOUTS: dict[str, type[nn.Dropout] | type[nn.Dropout2d]] = {
    "Dropout": nn.Dropout,
    "Dropout2d": nn.Dropout2d,
}
CONTAINERS = ("SeqToANNContainer", "MultiStepContainer", "StepModeContainer")
WITH_STATE = {*LEAKS, *DROPOUTS}


class SameDropout(nn.Module):
    """Dropout that drops the same at all time steps.

    Arguments:
        mask: what draws it, for `[N, ...]`.
    """

    def __init__(self, mask: nn.Dropout | nn.Dropout2d) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        """`[T, N, ...]` to the same shape."""
        return x * self.mask(torch.ones_like(x[0])) if self.training else x


class _Importer:
    """Walks over a network from its root, and makes the modules that replace its own.

    Attributes:
        made: the new module by the id of the old one.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, notes: Notes) -> None:
        self.dtype = dtype
        self.device = device
        self.notes = notes
        self.made: dict[int, nn.Module] = {}
        self.seen: set[int] = set()

    def visit(self, name: str, module: nn.Module, looped: bool = False) -> None:
        """Look at a module and what is in it.

        Arguments:
            name: path.
            module: of the network.
            looped: whether a container calls it once a time step.
        """
        if id(module) in self.seen:
            return
        self.seen.add(id(module))
        what = place(name, module)
        known = _name_of_theirs(what, module)
        if known is None or known in CONTAINERS:
            for child_name, child in module.named_children():
                inside = looped or _loops(known, module)
                self.visit(f"{name}.{child_name}".lstrip("."), child, inside)
        if known is not None:
            require_plain(what, module)
            self.made[id(module)] = self._counterpart(what, known, module, looped)

    def _counterpart(self, what: str, known: str, module: Any, looped: bool) -> nn.Module:
        single = getattr(module, "step_mode", "m") == "s"
        if known in LAYERS:
            plain = _as_torch(module, LAYERS[known])
            return plain if single else _over_time(plain)
        if known == "VotingLayer":
            voting = nn.AvgPool1d(module.voting_size)
            return voting if single else _over_time(voting)
        if known not in CONTAINERS and known not in WITH_STATE:
            raise AdoptError(f"{what}: SpikingJelly's {known} has no counterpart here")
        if single and not looped:
            raise AdoptError(
                f"{what} is in single-step mode, and a loop over time steps cannot be followed: "
                "spikingjelly.activation_based.functional.set_step_mode(network, 'm') first, and "
                "give the network [T, N, ...]"
            )
        if known in CONTAINERS:
            return self._container(what, known, module)
        if known in DROPOUTS:
            return SameDropout(DROPOUTS[known](module.p))
        return neurons(what, module, self.dtype, self.notes).to(self.device)

    def _container(self, what: str, known: str, container: nn.Module) -> nn.Module:
        """Its modules in a row: without feedback, layer by layer equals step by step."""
        parts = dict(container.named_children())
        ours = {name: self.made.get(id(part), part) for name, part in parts.items()}
        if not _loops(known, container):
            return _over_time(*ours.values())
        for name, part in parts.items():
            kinds = [_name_of_theirs(what, module) for module in part.modules()]
            if WITH_STATE.isdisjoint(kinds):
                ours[name] = _over_time(ours[name])
            elif kinds[0] not in WITH_STATE:
                raise AdoptError(f"{what}: '{name}' holds nodes, which must stand in it directly")
        return nn.Sequential(*ours.values())


def _loops(known: str | None, container: Any) -> bool:
    """Whether it is a container that calls its modules once a time step."""
    return known == "MultiStepContainer" or (known == "StepModeContainer" and container.stateful)


def _over_time(*modules: nn.Module) -> OverTime:
    made = OverTime(*modules)
    made.__dict__["step_mode"] = "m"  # forwards of SpikingJelly's models ask their layers for it
    return made


def _as_torch(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """The same module, of torch's class."""
    made = object.__new__(kind)  # not its __init__, which makes new parameters
    made.__dict__ = {key: value for key, value in vars(module).items() if key != "_step_mode"}
    return made


def _name_of_theirs(what: str, module: nn.Module) -> str | None:
    """The name of a class of SpikingJelly's modules; None for what is looked into.

    Raises:
        AdoptError: for a subclass of one.
    """
    theirs = [
        kind
        for kind in type(module).__mro__
        if kind.__module__.startswith("spikingjelly.")
        and not kind.__module__.startswith("spikingjelly.activation_based.model.")
    ]
    if theirs and theirs[0] is not type(module):
        raise AdoptError(
            f"{what} is a subclass of SpikingJelly's {theirs[0].__name__}: what it does besides is "
            "not known"
        )
    return theirs[0].__name__ if theirs else None


def _kind_of_numbers(network: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Dtype and device of a network's tensors."""
    tensors = [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
    tensors = tensors or [torch.empty(0)]
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        raise AdoptError(
            f"from_spikingjelly: the network is {', '.join(sorted(map(str, dtypes)))}, not float32 "
            "or float64: network.float() first"
        )
    return tensors[0].dtype, tensors[0].device
