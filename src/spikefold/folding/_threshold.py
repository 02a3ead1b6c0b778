"""Exact thresholds: bisection over the ordered floating-point numbers."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}


def to_ordinal(u: Float[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """Number the floats in their order: consecutive floats have consecutive integers, 0.0 has 0.

    Arguments:
        u: float32 or float64, not NaN. -0.0 counts as 0.0.
    """
    bits = u.view(_INTEGER[u.dtype]).to(torch.int64)
    magnitude = bits & torch.iinfo(_INTEGER[u.dtype]).max
    return torch.where(bits < 0, -magnitude, magnitude)


def from_ordinal(ordinal: Int64[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """The float of this number; the inverse of `to_ordinal`."""
    magnitude = ordinal.abs().to(_INTEGER[dtype]).view(dtype)
    return torch.where(ordinal < 0, -magnitude, magnitude)


def last_silent(
    fires: Callable[[Float[Tensor, "*shape"]], Bool[Tensor, "*shape"]],
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "*shape"]:
    """The largest finite u at which a neuron is silent, for neurons that fire above some u.

    Arguments:
        fires: the firing condition of every neuron, monotone: once true it stays true.
        shape: of the neurons.
        dtype: float32 or float64: the numbers that are searched.
        device: where.

    Returns:
        theta, so that fires(u) <=> u > theta for every finite u; -inf where a neuron always
        fires, +inf where it never does. Takes 32 calls of `fires` in float32.
    """
    top = to_ordinal(torch.tensor(torch.finfo(dtype).max, dtype=dtype)).item()
    # Invariant: silent at `low`, fires at `high`; both ends begin one past the finite numbers.
    low = torch.full(shape, -top - 1, dtype=torch.int64, device=device)
    high = -low
    for _ in range(torch.iinfo(_INTEGER[dtype]).bits):
        # half of each, because their sum may overflow for float64
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        fired = fires(from_ordinal(middle.clamp(-top, top), dtype))
        inside = (low < middle) & (middle < high)
        high = torch.where(inside & fired, middle, high)
        low = torch.where(inside & ~fired, middle, low)
    infinity = torch.tensor(torch.inf, dtype=dtype, device=device)
    theta = torch.where(low > -top - 1, from_ordinal(low.clamp(-top, top), dtype), -infinity)
    return torch.where(low == top, infinity, theta)
