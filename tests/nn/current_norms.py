"""Norms after the connection as users write them: published ones, without their initializations."""

import torch
from torch import nn

import spikefold as sf
from spikefold.dynamics import Normalization


class BNTT(sf.CurrentNorm):
    """Statistics and gain of each step, no shift (Kim and Panda 2021)."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, steps)
        self.keep_statistics(steps)
        self.weight = nn.Parameter(torch.ones(steps, channels))

    def normalization(self) -> Normalization:
        shift = torch.zeros_like(self.weight)
        return Normalization(self.weight, shift, 1e-4, self.fixed, self.group, over="each")


class TEBN(sf.CurrentNorm):
    """Batch norm over all steps, times a number for each step (Duan et al. 2022)."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, steps)
        self.keep_statistics()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.p = nn.Parameter(torch.ones(steps, 1))

    def normalization(self) -> Normalization:
        gain, shift = self.p * self.weight, self.p * self.bias
        return Normalization(gain, shift, 1e-5, self.fixed, self.group)


class TAB(sf.CurrentNorm):
    """Batch norm of each step over the steps so far (Jiang et al. 2024)."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, steps)
        self.keep_statistics(steps)
        self.weight = nn.Parameter(torch.ones(steps, channels))
        self.bias = nn.Parameter(torch.zeros(steps, channels))
        self.p = nn.Parameter(torch.ones(steps, 1))

    def normalization(self) -> Normalization:
        gain, shift = self.p**2 * self.weight, self.p**2 * self.bias
        return Normalization(gain, shift, 1e-5, self.fixed, self.group, over="past")


class TdBN(sf.CurrentNorm):
    """Batch norm over all steps, scaled to the threshold (Zheng et al. 2021)."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels)
        self.keep_statistics()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def normalization(self) -> Normalization:
        gain = 0.5 * self.weight[None]
        return Normalization(gain, self.bias[None], 1e-5, self.fixed, self.group)


NORMS = {"BNTT": BNTT, "TEBN": TEBN, "TAB": TAB, "tdBN": TdBN}
