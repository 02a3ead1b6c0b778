"""Spiking networks: the paper's ResNets and a small one, all lists of `SpikingLayer` units."""

from spikefold.errors import ConfigError
from spikefold.models._network import Arguments, Network, Norm, Options
from spikefold.models._resnet import BasicBlock, resnet19, resnet20
from spikefold.models._small import small

MODELS = {model.__name__: model for model in (small, resnet19, resnet20)}


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
    "Network",
    "Norm",
    "Options",
    "build",
    "resnet19",
    "resnet20",
    "small",
]
