"""Values that a network may have; others are refused both on writing and on reading."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.dynamics import membrane_dtype
from spikefold.models import Network, Standardize
from spikefold.nn import FoldedLIF, Norm

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# what these keep beside parameters has a known meaning; a user's buffers may hold anything
KNOWN = (_BatchNorm, Norm, FoldedLIF, Standardize)
POSITIVE = {"running_var": 0.0, "deviation": torch.finfo(torch.float32).tiny}


def problem(network: nn.Module, state: dict[str, Tensor]) -> str | None:
    """What is wrong with the values of a network, in words; None if nothing is.

    Arguments:
        network: says what belongs there.
        state: values by name.
    """
    for name, tensor, owner, key in _expected(network):
        value = state.get(name)
        if value is None:
            continue
        allowed = DTYPES if tensor.is_floating_point() else (tensor.dtype,)
        if value.dtype not in allowed:
            return f"{name} is of {value.dtype}, where {tensor.dtype} belongs"
        if tensor.is_floating_point() and (wrong := _wrong(owner, key, value)):
            return f"{name} {wrong}"
    return _mixed(network, state) if isinstance(network, Network) else None


def _expected(network: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module, str]]:
    """Parameters, and buffers of known meaning: name, tensor, whose, and its name there."""
    for name, module in network.named_modules():
        known = module._buffers if isinstance(module, KNOWN) else {}
        for key, tensor in (*module._parameters.items(), *known.items()):
            if tensor is not None and key not in module._non_persistent_buffers_set:
                yield f"{name}.{key}".lstrip("."), tensor, module, key


def _wrong(owner: nn.Module, key: str, value: Tensor) -> str | None:
    """What is wrong with one value, in words."""
    if isinstance(owner, FoldedLIF) and key == "polarity":
        return None if bool((value.abs() == 1).all()) else "is neither 1 nor -1 somewhere"
    if isinstance(owner, FoldedLIF) and key == "theta":  # infinite: never, or always, fires
        return "is NaN somewhere" if bool(value.isnan().any()) else None
    if not bool(value.isfinite().all()):
        return "is NaN or infinite somewhere"
    if isinstance(owner, KNOWN) and key in POSITIVE and bool((value < POSITIVE[key]).any()):
        return "is not positive somewhere"
    return None


def _mixed(network: nn.Module, state: dict[str, Tensor]) -> str | None:
    """A dtype with which a model could not run: all connections share one."""
    whole = state.get("classifier.weight")
    if whole is None:
        return None
    membrane = membrane_dtype(whole)
    for name, _, owner, key in _expected(network):
        value = state.get(name)
        if value is None or not value.is_floating_point():
            continue
        allowed = (whole.dtype, membrane)
        if isinstance(owner, FoldedLIF) and key in ("theta", "polarity"):
            allowed = (membrane, membrane)
        elif isinstance(owner, nn.Conv2d | nn.Linear):
            allowed = (whole.dtype, whole.dtype)
        if value.dtype not in allowed:
            return f"{name} is of {value.dtype}, which does not go with weights of {whole.dtype}"
    return None
