"""What was done to a network since it was built, and what is wrapped around one."""

from typing import TypeVar

from torch import nn

ModelT = TypeVar("ModelT", bound=nn.Module)

_KEY = "_spikefold_transforms"


def transforms_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the transforms that made this module: "fold", "fuse_conv_bn", "affine_currents".

    Arguments:
        module: any; what was done to a part of it stands with the part.
    """
    names: tuple[str, ...] = module.__dict__.get(_KEY, ())
    return names


def transformed(module: ModelT, name: str) -> ModelT:
    """The module, which now knows what was done to it.

    Arguments:
        module: what a transform made.
        name: of the transform.
    """
    module.__dict__[_KEY] = (*transforms_of(module), name)
    return module


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside torch.compile, (Distributed)DataParallel and Lightning Fabric.

    Arguments:
        module: wrapped or not.
    """
    while True:
        inner = module._modules.get("_orig_mod", module._modules.get("_original_module"))
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner
