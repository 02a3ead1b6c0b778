"""Spiking networks: the paper's ResNets and VGG, and a small one; lists of `SpikingLayer`."""

from spikefold.errors import ConfigError
from spikefold.models._arguments import Arguments, Learnt, Norm, Options, Task
from spikefold.models._network import (
    MODELS,
    Network,
    Standardize,
    as_frames,
    initialize,
    membrane_norm,
)
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
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}: one of {', '.join(MODELS)}")
    return MODELS[name](**vars(arguments))


__all__ = [
    "MODELS",
    "Arguments",
    "BasicBlock",
    "Learnt",
    "Network",
    "Norm",
    "Options",
    "Standardize",
    "Task",
    "as_frames",
    "build",
    "compact",
    "initialize",
    "membrane_norm",
    "resnet18",
    "resnet19",
    "resnet20",
    "resnet34",
    "small",
    "vgg16",
]
