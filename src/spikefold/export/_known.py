"""What can be exported: modules of exactly these types, that nothing is attached to."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import ExportError
from spikefold.folding import Features
from spikefold.graphs import Node
from spikefold.models import Standardize
from spikefold.nn import BATCH_NORMS, LIF, CurrentNorm, SpikingNeuron, strange

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
ADAPTIVE_AVERAGES = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
ADAPTIVE_MAXIMA = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
# each of one, two and three dimensions of space
_WINDOWS = (CONVOLUTIONS, AVERAGES, MAXIMA, ADAPTIVE_AVERAGES, ADAPTIVE_MAXIMA)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
# exact types: a subclass may compute something else
_KNOWN: set[type[nn.Module]] = {
    *(*CONVOLUTIONS, nn.Linear, Standardize, *BATCH_NORMS),
    *(*AVERAGES, *MAXIMA, *ADAPTIVE_AVERAGES, *ADAPTIVE_MAXIMA),
}


def refused(node: Node, why: str) -> ExportError:
    """The error for a call that cannot be exported.

    Arguments:
        node: of `sf.graph`; `Operation.node`.
        why: what of it, and what would be right.
    """
    return ExportError(f"export: {node.what or node.kind}: {why}")


def require_plain(network: nn.Module) -> None:
    """Refuse what a call of the network does besides its modules' code, and dtypes but float32.

    Raises:
        ExportError: names the module.
    """
    for name, module in network.named_modules():
        what = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
        problem = strange(module)
        if problem is not None:
            raise ExportError(f"export: {what}: {problem}")
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise ExportError(
                    f"export: {what}: {key} is {tensor.dtype}, and exports are of float32: "
                    "convert the network with float(), then fold it"
                )


def require_known(node: Node) -> None:
    """Refuse a module of another type than those an export can say, or with settings it cannot.

    Arguments:
        node: that calls a module.

    Raises:
        ExportError: names the module.
    """
    module = node.module
    if isinstance(module, SpikingNeuron):
        problem = _of_neurons(module)
    elif isinstance(module, CurrentNorm):
        problem = _of_current_norm(module)
    elif type(module) not in _KNOWN:
        problem = "of a type that cannot be exported"
    else:
        problem = _of_settings(module)
    if problem is not None:
        raise refused(node, problem)


def require_batched(node: Node, shape: tuple[int, ...]) -> None:
    """Refuse a window that goes over channels: torch reads what lacks a dimension as one sample.

    Arguments:
        node: that calls a module.
        shape: of one sample of what it takes.

    Raises:
        ExportError: names the module.
    """
    for dims, kinds in enumerate(zip(*_WINDOWS, strict=True), start=1):
        if type(node.module) in kinds and len(shape) != 1 + dims:
            raise refused(
                node,
                f"takes {list(shape)}, without the dimension of channels: put nn.Unflatten(1, "
                f"(1, {shape[0]})) before it, and nn.Flatten(1, 2) behind it",
            )


def require_nothing(node: Node) -> None:
    """Refuse an identity or a dropout that does something in evaluation all the same.

    Arguments:
        node: that calls one.

    Raises:
        ExportError: names it.
    """
    if node.module is not None:
        if type(node.module) not in (nn.Identity, Features, *_DROPOUTS):
            raise refused(node, "of a type that cannot be exported")
        return
    function: Any = node.call.target
    arguments = inspect.signature(function).bind(*node.call.args, **node.call.kwargs)
    arguments.apply_defaults()
    if arguments.arguments["training"]:
        raise refused(node, "drops at random in evaluation as well: pass training=self.training")


def _of_neurons(neurons: SpikingNeuron) -> str | None:
    own = type(neurons).integrate not in (SpikingNeuron.integrate, LIF.integrate)
    if own or neurons.is_called() or type(neurons).step is not SpikingNeuron.step:
        return "neurons with a forward, step or integrate of their own cannot be exported"
    if neurons.condition().norm is not None:
        return "its membrane norm is not folded: export sf.fold(network)"
    return None


def _of_current_norm(norm: CurrentNorm) -> str | None:
    if type(norm).forward is not CurrentNorm.forward:
        return "a norm with a forward of its own cannot be exported"
    if norm.normalization().fixed is None:
        return "takes statistics of the batch in evaluation: it cannot be exported"
    return None


def _of_settings(module: nn.Module | None) -> str | None:
    if isinstance(module, CONVOLUTIONS) and module.padding_mode != "zeros":
        return f"padding_mode={module.padding_mode!r} cannot be exported: only zeros"
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return "takes statistics of the batch in evaluation: it cannot be exported"
    if getattr(module, "return_indices", False):
        return "return_indices cannot be exported"
    return None
