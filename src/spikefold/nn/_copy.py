"""Copies of networks: whole ones, and twins that share every tensor."""

import copy
import functools
import operator
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pickle import PicklingError
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikefold.errors import ConfigError

ModelT = TypeVar("ModelT", bound=nn.Module)


def copied(model: ModelT) -> ModelT:
    """A network with tensors of its own.

    Arguments:
        model: not changed.

    Raises:
        ConfigError: if something in it cannot be copied; names the module.
    """
    _require_tensors(model)
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, ValueError, PicklingError) as error:
        for name, module in model.named_modules():
            for key, value in vars(module).items():
                if isinstance(value, Tensor) and not value.is_leaf:
                    raise ConfigError(
                        f"layer '{name}': {key} is computed from other tensors and cannot be "
                        "copied: if by pruning or weight normalization, "
                        "torch.nn.utils.prune.remove or remove_weight_norm makes it a parameter "
                        "again; else delete it"
                    ) from error
        raise ConfigError(f"the network cannot be copied: {error}") from error


def _require_tensors(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if any(map(is_lazy, (*module._parameters.values(), *module._buffers.values()))):
            raise ConfigError(
                f"layer '{name}' ({type(module).__name__}) has no parameters yet: run the network "
                "once"
            )


def twin(
    model: ModelT, replace: Callable[[str, nn.Module], None] = lambda name, made: None
) -> ModelT:
    """A second module tree for the same tensors, with a training mode of its own.

    References between modules point to the twins: children, attributes, lists, tuples and dicts of
    modules, methods and closures that were patched on. What torch.compile made of a module is left
    out: the twin runs eagerly.

    Arguments:
        model: not changed.
        replace: called with each new module and its name, to change what is its own.

    Raises:
        ConfigError: if a module has no parameters yet.
    """
    _require_tensors(model)
    twins: dict[int, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            twins[id(module)] = copy.deepcopy(module)  # it cannot share tensors
            continue
        # not through the class's __new__, which may require arguments
        made = object.__new__(type(module))
        made.__dict__ = {**module.__dict__, "_compiled_call_impl": None}
        twins[id(module)] = made
        replace(name, made)
    for module in model.modules():  # a twin runs what torch.compile wrapped, not the wrapper
        if "_orig_mod" in module._modules:
            twins[id(module)] = twins[id(module._modules["_orig_mod"])]
    own = {id(made): made for made in twins.values()}.values()
    _lead_all([made for made in own if not isinstance(made, torch.jit.ScriptModule)], twins)
    return cast(ModelT, twins[id(model)])


def replaced(model: nn.Module, replacements: Mapping[int, nn.Module]) -> nn.Module:
    """Replace modules, wherever they are referred to.

    Arguments:
        model: changed in place.
        replacements: the new module by the id of the old one.

    Returns:
        the model, or what replaces it.
    """
    _lead_all(list(model.modules()), replacements)
    return replacements.get(id(model), model)


def _lead_all(modules: Iterable[nn.Module], others: Mapping[int, nn.Module]) -> None:
    """Redirect, in place, all references that modules hold."""
    lead = _Lead(others)
    for module in modules:
        attributes = module.__dict__
        for key, value in attributes.items():
            if key not in _OWN:
                attributes[key] = lead.to_others(value)
        attributes["_modules"] = {
            name: others.get(id(child), child) for name, child in attributes["_modules"].items()
        }


# A module's own tables. Those of tensors and hooks are shared with the twin: `to`, or a new hook,
# acts on both.
_OWN = set(vars(nn.Module()))


class _Lead:
    """Rebuilds values that refer to replaced modules; returns all others unchanged."""

    def __init__(self, others: Mapping[int, nn.Module]) -> None:
        self.others = others
        self.done: dict[int, Any] = {}
        # keeps the keys' objects alive, because Python reuses the ids of objects that are gone
        self.kept: list[Any] = []

    def to_others(self, value: Any) -> Any:
        if id(value) in self.others:
            return self.others[id(value)]
        if not isinstance(value, _LEADING) or isinstance(value, nn.Module):
            return value
        if id(value) not in self.done:
            self.done[id(value)] = value  # a cycle ends here
            self.kept.append(value)
            self.done[id(value)] = self._led(value)
        return self.done[id(value)]

    def _led(self, value: Any) -> Any:
        if isinstance(value, types.MethodType):
            owner = self.to_others(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        if isinstance(value, types.FunctionType):
            return self._closure(value)
        if isinstance(value, functools.partial):
            parts = (value.func, *value.args), value.keywords
            (func, *args), keywords = map(self.to_others, parts)
            return functools.partial(func, *args, **keywords)
        keys = list(value) if isinstance(value, dict) else None
        items = list(value.values()) if isinstance(value, dict) else list(value)
        led = [self.to_others(item) for item in items]
        if all(map(operator.is_, led, items)):
            return value
        if keys is not None:
            made = copy.copy(value)
            made.update(zip(keys, led, strict=True))
            return made
        return type(value)(*led) if hasattr(value, "_fields") else type(value)(led)

    def _closure(self, function: types.FunctionType) -> types.FunctionType:
        cells = function.__closure__ or ()
        led = []
        for cell in cells:
            try:
                content = cell.cell_contents
            except ValueError:  # still empty
                led.append(cell)
                continue
            other = self.to_others(content)
            led.append(cell if other is content else types.CellType(other))
        if all(map(operator.is_, led, cells)):
            return function
        made = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            tuple(led),
        )
        made.__kwdefaults__ = function.__kwdefaults__
        made.__dict__.update(function.__dict__)
        return made


_LEADING = (
    *(list, tuple, dict, set, frozenset, deque),
    *(types.MethodType, types.FunctionType, functools.partial),
)
