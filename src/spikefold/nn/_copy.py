"""Copies of networks: whole ones, and twins that share every tensor."""

import copy
import types
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from spikefold.errors import ConfigError

ModelT = TypeVar("ModelT", bound=nn.Module)


def copied(model: ModelT) -> ModelT:
    """A network with tensors of its own.

    Arguments:
        model: left as it is.

    Raises:
        ConfigError: if something in it cannot be copied; names the module.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        for name, module in model.named_modules():
            for key, value in vars(module).items():
                if isinstance(value, Tensor) and not value.is_leaf:
                    raise ConfigError(
                        f"layer '{name}': {key} is computed from other tensors (pruning or weight "
                        "normalization?) and cannot be copied: torch.nn.utils.prune.remove or "
                        "remove_weight_norm makes it a parameter again"
                    ) from error
        raise ConfigError(f"the network cannot be copied: {error}") from error


def twin(model: ModelT) -> ModelT:
    """The same network once more: its own module tree, with a mode of its own, the same tensors.

    Arguments:
        model: left as it is.
    """
    twins: dict[int, nn.Module] = {}
    for module in model.modules():
        twins[id(module)] = made = type(module).__new__(type(module))
        made.__dict__ = module.__dict__.copy()
    for made in twins.values():
        children = made.__dict__["_modules"]
        made.__dict__["_modules"] = {
            name: None if child is None else twins[id(child)] for name, child in children.items()
        }
        for name, value in made.__dict__.items():
            # a patched forward, bound to the module it was patched onto
            if isinstance(value, types.MethodType) and id(value.__self__) in twins:
                made.__dict__[name] = types.MethodType(value.__func__, twins[id(value.__self__)])
    return cast(ModelT, twins[id(model)])


def replaced(model: nn.Module, replacements: Mapping[int, nn.Module]) -> nn.Module:
    """Put modules in the place of others, by every name that leads to them.

    Arguments:
        model: changed in place.
        replacements: the new module by the id of the old one.

    Returns:
        the model, or what replaces it.
    """
    modules: list[Any] = list(model.modules())
    for module in modules:
        for name, child in module._modules.items():
            if id(child) in replacements:
                module._modules[name] = replacements[id(child)]
    return replacements.get(id(model), model)
