"""Images shown at every time step."""

import torch
from jaxtyping import Float
from torch import Tensor


def is_constant_in_time(x: Float[Tensor, "T ..."]) -> bool:
    """Whether all time steps are the same memory, as `image.expand(T, ...)` makes them."""
    return x.shape[0] > 1 and x.stride(0) == 0


def distinct_steps(x: Float[Tensor, "T ..."]) -> Float[Tensor, "..."]:
    """One step `[1, ...]` if all are the same; all if they are not, or each wants its gradient."""
    # the gradient of a leaf is the user's to read, step by step; of others only the sum is needed
    each = x.is_leaf and x.requires_grad and torch.is_grad_enabled()
    return x[:1] if is_constant_in_time(x) and not each else x
