"""What a call of a module does besides its class's forward: code that bypasses calls must ask."""

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize


def attached(module: nn.Module) -> str | None:
    """What is attached to a module and would be lost without calling it; None if nothing is.

    Hooks (pruning and torch's older weight normalization are such), a forward patched onto the
    object, hooks of all modules.

    Arguments:
        module: any module.
    """
    if (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    ):
        return "hooks (of yours, of pruning or of weight normalization)"
    if "forward" in module.__dict__:
        return "a forward of its own"
    if torch_module._has_any_global_hook():
        return "global module hooks"
    return None


def strange(module: nn.Module) -> str | None:
    """Why a transform must not take this module for what its class says, and what to do; or None.

    Arguments:
        module: of an exact type the transform knows, or of a subclass of one.
    """
    if parametrize.is_parametrized(module):
        return (
            "it is parametrized: torch.nn.utils.parametrize.remove_parametrizations makes it plain"
        )
    what = attached(module)
    return what and (
        f"it carries {what}: remove them first (torch.nn.utils.prune.remove, remove_weight_norm, "
        "handle.remove())"
    )
