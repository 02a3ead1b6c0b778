"""What a call in a network is: by type of module, by function, by name of a tensor's method."""

import operator
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import activation, batchnorm, conv, dropout, padding, pooling

from spikefold.models import Standardize, as_frames
from spikefold.nn import CurrentNorm, SpikingNeuron, merge_time, split_time

Kind = Literal[
    "input",
    "output",
    "constant",
    "frames",
    "connection",
    "norm",
    "neurons",
    "activation",
    "add",
    "multiply",
    "concatenate",
    "pool",
    "mean",
    "dropout",
    "pad",
    "reshape",
    "identity",
    "standardize",
    "other",
]

# Subclasses count; code that changes a module asks for its exact type.
MODULES: dict[type[nn.Module] | tuple[type[nn.Module], ...], Kind] = {
    SpikingNeuron: "neurons",
    (conv._ConvNd, nn.Linear): "connection",
    (batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, CurrentNorm): "norm",
    (
        *(pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._LPPoolNd),
        *(pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd),
    ): "pool",
    dropout._DropoutNd: "dropout",
    (padding._ConstantPadNd, padding._ReflectionPadNd, padding._ReplicationPadNd): "pad",
    (nn.Flatten, nn.Unflatten): "reshape",
    nn.Identity: "identity",
    Standardize: "standardize",
    tuple(getattr(activation, name) for name in activation.__all__): "activation",
}

FUNCTIONS: dict[Callable[..., Any] | str, Kind] = {
    as_frames: "frames",
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), "add"),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), "multiply"),
    **dict.fromkeys((torch.cat, torch.concat, torch.stack), "concatenate"),
    **dict.fromkeys((torch.mean, "mean"), "mean"),
    **dict.fromkeys(
        (F.conv1d, F.conv2d, F.conv3d, F.linear, torch.conv1d, torch.conv2d, torch.conv3d),
        "connection",
    ),
    **dict.fromkeys((F.batch_norm, F.group_norm, F.layer_norm, F.instance_norm), "norm"),
    **dict.fromkeys(
        (
            *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
            *(F.max_pool1d, F.max_pool2d, F.max_pool3d),
            *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
            *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
        ),
        "pool",
    ),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), "dropout"),
    F.pad: "pad",
    **dict.fromkeys(
        (
            *(merge_time, split_time),
            *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten),
            *(torch.permute, torch.transpose, torch.movedim),
            *("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"),
            *("permute", "transpose", "movedim", "contiguous", "expand"),
        ),
        "reshape",
    ),
    **dict.fromkeys(
        (
            *(torch.relu, torch.relu_, F.relu, F.relu_, F.relu6, "relu", "relu_"),
            *(F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.hardtanh, F.hardswish),
            *(torch.sigmoid, torch.tanh, F.sigmoid, F.tanh, F.softmax, "sigmoid", "tanh"),
            *(F.softplus, F.hardsigmoid, F.prelu, F.celu, F.logsigmoid, "softmax"),
        ),
        "activation",
    ),
}


def kind_of_module(module: nn.Module) -> Kind | None:
    """What a module is, if it is known; None is looked into.

    Arguments:
        module: called in a network.
    """
    for types, kind in MODULES.items():
        if isinstance(module, types):
            return kind
    return (
        "other"
        if type(module).__module__.startswith("torch.nn.modules")
        and not isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        else None
    )
