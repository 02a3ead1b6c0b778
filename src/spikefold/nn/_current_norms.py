"""Published normalizations of the currents that know time, for comparison with MPBN."""

import torch
from torch import nn

from spikefold.dynamics import Normalization
from spikefold.errors import ConfigError
from spikefold.nn._norm import CurrentNorm
from spikefold.ranges import require_in


class TdBN(CurrentNorm):
    """Threshold-dependent batch norm: one map, scaled to the threshold of the neurons.

        y = gamma · alpha · threshold · (x - mean) / sqrt(variance + eps) + beta

    Mean and variance over all of `[T, N, *spatial]`.

    Arguments:
        channels: C.
        threshold: above which the neurons fire.
        alpha: 1, or 1 / sqrt(2) where two branches add.

    Raises:
        ConfigError: if alpha or the threshold is not positive, or neurons in the same
            `SpikingLayer` have another threshold.

    Source: Zheng et al., "Going Deeper With Directly-Trained Larger Spiking Neural Networks", AAAI
    2021; gamma = 1, beta = 0 at the start.
    """

    EPS = 1e-5

    def __init__(self, channels: int, *, threshold: float = 0.5, alpha: float = 1.0) -> None:
        super().__init__(channels)
        for name, value in (("threshold", threshold), ("alpha", alpha)):
            require_in("TdBN", name, value, "(0, inf)")
        self.threshold, self.alpha = threshold, alpha
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.keep_statistics()

    def normalization(self) -> Normalization:
        """What it does now."""
        gain = self.weight * (self.alpha * self.threshold)
        return Normalization(gain[None], self.bias[None], self.EPS, self.fixed, self.group)

    def suit(self, threshold: float) -> None:
        """Refuse neurons of another threshold than that to which it scales.

        Raises:
            ConfigError: with both thresholds.
        """
        if threshold != self.threshold:
            raise ConfigError(
                f"TdBN scales to the threshold {self.threshold}, but the neurons fire above "
                f"{threshold}: give TdBN threshold={threshold} (any other scale is its alpha)"
            )

    def extra_repr(self) -> str:
        """The arguments, for print."""
        return f"{super().extra_repr()}, threshold={self.threshold}, alpha={self.alpha:.4g}"


class BNTT(CurrentNorm):
    """Batch norm through time: statistics and gain of each step, no shift.

        y_t = gamma_t · (x_t - mean_t) / sqrt(variance_t + eps)

    Arguments:
        channels: C.
        steps: T.

    Source: Kim and Panda, "Revisiting Batch Normalization for Training Low-Latency Deep Spiking
    Neural Networks From Scratch", Frontiers in Neuroscience 2021; gamma = 1 at the start,
    eps = 1e-4 as in its code.
    """

    EPS = 1e-4

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, steps)
        self.weight = nn.Parameter(torch.ones(steps, channels))
        self.keep_statistics(steps)

    def normalization(self) -> Normalization:
        """What it does now."""
        shift = torch.zeros_like(self.weight)
        return Normalization(self.weight, shift, self.EPS, self.fixed, self.group, over="each")


class TEBN(CurrentNorm):
    """Temporal effective batch norm: one batch norm for all steps, times a number for each.

        y_t = p_t · (gamma · (x_t - mean) / sqrt(variance + eps) + beta)

    Mean and variance over all of `[T, N, *spatial]`.

    Arguments:
        channels: C.
        steps: T.

    Source: Duan et al., "Temporal Effective Batch Normalization in Spiking Neural Networks",
    NeurIPS 2022; p = 1, gamma = 1, beta = 0 at the start.
    """

    EPS = 1e-5

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, steps)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.p = nn.Parameter(torch.ones(steps, 1))
        self.keep_statistics()

    def normalization(self) -> Normalization:
        """What it does now."""
        gain, shift = self.p * self.weight, self.p * self.bias
        return Normalization(gain, shift, self.EPS, self.fixed, self.group)


class TAB(CurrentNorm):
    """Temporal accumulated batch norm: each step by the statistics of the steps so far.

        y_t = p_t² · (gamma_t · (x_t - mean_1..t) / sqrt(variance_1..t + eps) + beta_t)

    Arguments:
        channels: C.
        steps: T.

    Source: Jiang et al., "TAB: Temporal Accumulated Batch Normalization in Spiking Neural
    Networks", ICLR 2024; p = 1, gamma = 1, beta = 0 at the start.
    """

    EPS = 1e-5

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__(channels, steps)
        self.weight = nn.Parameter(torch.ones(steps, channels))
        self.bias = nn.Parameter(torch.zeros(steps, channels))
        self.p = nn.Parameter(torch.ones(steps, 1))
        self.keep_statistics(steps)

    def normalization(self) -> Normalization:
        """What it does now."""
        scale = self.p.square()
        return Normalization(
            scale * self.weight, scale * self.bias, self.EPS, self.fixed, self.group, over="past"
        )
