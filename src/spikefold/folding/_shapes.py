"""What was done to a network, done again to a new one: to be loaded into."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from spikefold.errors import ConfigError
from spikefold.folding._fold import fold_shapes
from spikefold.folding._fuse import affine_shapes, fuse_conv_bn_shapes
from spikefold.nn import replaced, transforms_of

# The structural half of each transform, by its name.
SHAPES: dict[str, Callable[[Any], nn.Module]] = {
    "fold": fold_shapes,
    "fuse_conv_bn": fuse_conv_bn_shapes,
    "affine_currents": affine_shapes,
}


def transforms_in(network: nn.Module) -> tuple[tuple[str, str], ...]:
    """What was done to a network and its parts: path of the part, name of the transform."""
    return tuple(
        (name.replace("_orig_mod.", ""), transform)
        for name, module in network.named_modules()
        for transform in transforms_of(module)
    )


def made_again(network: nn.Module, transforms: Sequence[tuple[str, str]]) -> nn.Module:
    """A network that has the structure which transforms made of one like this, without the values.

    Arguments:
        network: new; may lie on the meta device.
        transforms: as `transforms_in` tells them.

    Raises:
        ConfigError: if a transform is not known.
        SpikefoldError, AttributeError: if they do not fit the network.
    """
    # parts before the whole
    for name, transform in sorted(transforms, key=lambda step: -len(step[0])):
        if transform not in SHAPES:
            raise ConfigError(f"unknown transform '{transform}': one of {', '.join(SHAPES)}")
        part = network.get_submodule(name)
        network = replaced(network, {id(part): SHAPES[transform](part)})
    return network
