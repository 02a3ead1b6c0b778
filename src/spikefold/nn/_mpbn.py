"""Membrane potential batch normalization as a module."""

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor, nn

from spikefold.dynamics import Normalization
from spikefold.errors import ConfigError
from spikefold.nn._norm import MembraneNorm
from spikefold.ranges import require_in


class MPBN(MembraneNorm):
    """Batch normalization of the membrane potential, right before the firing function.

        h = gamma (u - mean) / sqrt(variance + eps) + beta

    In training, mean and variance are those of the batch at each time step: over N and space for
    the channel-wise form `MPBN(C)`, over N for the element-wise form `MPBN((C, H, W))`. The shape
    decides. There is one set of running statistics, updated at each time step; evaluation uses
    them, which is beside what training saw where the steps differ (`spikefold.per_step` mends a
    trained network). With `steps=T` there are T of all, one for each time step. Everything is
    float32, also inside autocast.

    Arguments:
        shape: number of channels, or the shape of one sample's potential.
        steps: T, for statistics, gain and shift of each time step; None: one set for all. A
            sequence of another length is a `ShapeError`.
        eps: added to the variance.
        momentum: weight of a new observation in the running statistics; None takes the mean over
            all observations (cumulative).
        affine: whether gain (gamma, `weight`) and shift (beta, `bias`) are learned; if not they
            stay 1 and 0.
        rate: share of the potentials that fire at the start, where they are normally distributed:
            rate = P(N(beta, gamma) > threshold), so beta = threshold - z with gamma = 1 and z the
            normal distribution's quantile of 1 - rate. None: beta = 0.
        threshold: of the neurons, which `rate` depends on.

    Raises:
        ConfigError: if the shape, eps, momentum or rate is out of range.

    Source: Guo et al., "Membrane Potential Batch Normalization for Spiking Neural Networks",
    ICCV 2023, section 4.

    Example:
        >>> import torch, spikefold as sf
        >>> norm = sf.MPBN(64)
        >>> norm(torch.randn(8, 64, 16, 16)).shape
        torch.Size([8, 64, 16, 16])
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        *,
        steps: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        rate: float | None = None,
        threshold: float = 0.5,
    ) -> None:
        sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        super().__init__(sizes, steps)
        require_in("MPBN", "eps", eps, "[0, inf)")
        if rate is not None:
            require_in("MPBN", "rate", rate, "(0, 1)")
            require_in("MPBN", "threshold", threshold, "(-inf, inf)")
            if not affine:
                raise ConfigError("MPBN: rate is where its shift begins: it needs affine=True")
        self.eps = eps
        self.affine = affine
        self.rate, self.threshold = rate, threshold
        if affine:
            whole = self.shape if steps is None else (steps, *self.shape)
            self.weight = nn.Parameter(torch.ones(whole))
            start = 0.0 if rate is None else threshold - NormalDist().inv_cdf(1 - rate)
            self.bias = nn.Parameter(torch.full(whole, start))
        self.keep_statistics(steps, momentum)

    def per_step(self, steps: int) -> "MPBN":
        """A new MPBN with a set for each time step, each starting from this one's.

        Arguments:
            steps: T.

        Raises:
            ConfigError: if it has sets a step already.
        """
        if self.steps is not None:
            raise ConfigError(f"this MPBN already has sets for {self.steps} steps")
        made = MPBN(
            self.shape,
            steps=steps,
            eps=self.eps,
            momentum=self.momentum,
            affine=self.affine,
            rate=self.rate,
            threshold=self.threshold,
        )
        made.load_state_dict(
            {name: value.expand(steps, *value.shape) for name, value in self.state_dict().items()}
        )
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(self.get_parameter(name).requires_grad)
        made.processes = self.processes
        return made.to(self.running_mean.device, self.running_mean.dtype).train(self.training)

    def suit(self, threshold: float) -> None:
        """Refuse neurons of another threshold than that for which `rate` was meant.

        Raises:
            ConfigError: with both thresholds.
        """
        if self.rate is not None and threshold != self.threshold:
            raise ConfigError(
                f"MPBN: rate={self.rate} begins at a shift for threshold {self.threshold}, but the "
                f"neurons fire above {threshold}: give MPBN threshold={threshold}"
            )

    def _timed(self, value: Tensor) -> Tensor:
        """A view with a leading time axis."""
        return value[None] if self.steps is None else value

    @property
    def gain(self) -> Tensor:
        """gamma: the learned gain, or ones."""
        return self.weight if self.affine else torch.ones_like(self.running_mean)

    @property
    def shift(self) -> Tensor:
        """beta: the learned shift, or zeros."""
        return self.bias if self.affine else torch.zeros_like(self.running_mean)

    def normalization(self) -> Normalization:
        """What it does now: by the batch's statistics in training, else by the running ones."""
        gain, shift = self._timed(self.gain), self._timed(self.shift)
        return Normalization(gain, shift, self.eps, self.fixed, self.group)

    def extra_repr(self) -> str:
        """The arguments, for print."""
        steps = "" if self.steps is None else f"steps={self.steps}, "
        return (
            f"{self.shape}, {steps}eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        )
