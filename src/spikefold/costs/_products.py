"""How many products a connection computes: where a value of its input meets a weight."""

from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn
from torch.nn import functional as F


def products(
    connection: nn.Module, inputs: Float64[Tensor, "C *spatial"], weights: Bool[Tensor, "..."]
) -> int:
    """Products of a value and a weight, with strides, dilation and groups; padding has none.

        sum over all outputs of connection(inputs) with weights of 1 and 0

    Linear in the inputs, so those of a whole batch are counted at once.

    Arguments:
        connection: a linear layer, a convolution or a transposed one.
        inputs: how many samples hold a value there, `[C, *spatial]` or `[F]`; whole numbers.
        weights: which of its weights count, of their shape.

    Returns:
        a whole number, exact below 2^53.
    """
    of: Any = connection
    used = weights.to(inputs.dtype)
    if isinstance(connection, nn.Linear):
        return int(inputs @ used.sum(0))
    # outputs are only summed, so those of a group are one: its weights are summed before
    x = inputs[None]
    if of.transposed:
        kernel, padding = used.sum(1, keepdim=True), of.padding
    else:
        kernel, padding = used.unflatten(0, (of.groups, -1)).sum(1), (0,) * len(of.stride)
        mode = "constant" if of.padding_mode == "zeros" else of.padding_mode
        x = F.pad(x, of._reversed_padding_repeated_twice, mode)
    geometry = (of.stride, padding, of.dilation, of.transposed, of.output_padding, of.groups)
    return int(torch.convolution(x, kernel, None, *geometry).sum())
