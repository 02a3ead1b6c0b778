"""What is left of a norm of the currents once its statistics are known."""

import torch
from torch import nn

from spikefold.dynamics import Normalization, Statistics
from spikefold.nn._norm import CurrentNorm


class CurrentAffine(CurrentNorm):
    """Gain and shift of the currents, one a step and channel; `fuse_conv_bn` makes it of a norm.

        y_t = gain_t · x_t + shift_t

    Arguments:
        channels: C.
        steps: T; None: the same for all.

    Attributes:
        weight, bias: gain and shift, `[T, C]` or `[1, C]`; 1 and 0 at the start.
    """

    def __init__(self, channels: int, steps: int | None = None) -> None:
        super().__init__(channels, steps)
        self.weight = nn.Parameter(torch.ones(steps or 1, channels))
        self.bias = nn.Parameter(torch.zeros(steps or 1, channels))

    def normalization(self) -> Normalization:
        """What it does: nothing is subtracted, and the variance is 1."""
        one = torch.ones_like(self.weight[:1])
        return Normalization(self.weight, self.bias, 0.0, Statistics(torch.zeros_like(one), one))
