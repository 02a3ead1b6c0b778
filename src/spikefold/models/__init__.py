"""Spiking networks: the paper's ResNets and VGG, and a small one; lists of `SpikingLayer`."""

from spikefold.models._arguments import AfterConnection, Arguments, Learnt, Norm, Options, Task
from spikefold.models._network import (
    MODELS,
    Builder,
    Network,
    Standardize,
    as_frames,
    assemble,
    initialize,
    register,
)
from spikefold.models._norms import membrane_norm
from spikefold.models._parts import NIRModel, NIRNetwork, Parts, Scale, of_parts, parts_of
from spikefold.models._per_step import per_step
from spikefold.models._resnet import BasicBlock, resnet18, resnet19, resnet20, resnet34
from spikefold.models._small import compact, small
from spikefold.models._vgg import vgg16


def build(name: str, arguments: Arguments) -> Network:
    """The network of this name, freshly initialized.

    Arguments:
        name: one of `MODELS`.
        arguments: what to build.

    Raises:
        ConfigError: if there is no such model.
    """
    return MODELS.find(name)(**vars(arguments))


__all__ = [
    "MODELS",
    "AfterConnection",
    "Arguments",
    "BasicBlock",
    "Builder",
    "Learnt",
    "NIRModel",
    "NIRNetwork",
    "Network",
    "Norm",
    "Options",
    "Parts",
    "Scale",
    "Standardize",
    "Task",
    "as_frames",
    "assemble",
    "build",
    "compact",
    "initialize",
    "membrane_norm",
    "of_parts",
    "parts_of",
    "per_step",
    "register",
    "resnet18",
    "resnet19",
    "resnet20",
    "resnet34",
    "small",
    "vgg16",
]
