"""Membrane potential batch normalization as a module."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from spikefold import dynamics
from spikefold.dynamics import Normalization, Statistics
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn._batch_norm import Processes


class MPBN(nn.Module):
    """Batch normalization of the membrane potential, right before the firing function.

        h = gamma (u - mean) / sqrt(variance + eps) + beta

    In training, mean and variance are those of the batch at each time step: over N and space for
    the channel-wise form `MPBN(C)`, over N for the element-wise form `MPBN((C, H, W))`. The shape
    decides. There is one set of running statistics, updated at each time step; evaluation uses
    them. Everything is float32, also inside autocast.

    Arguments:
        shape: number of channels, or the shape of one sample's potential.
        eps: added to the variance.
        momentum: weight of a new observation in the running statistics; None takes the mean over
            all observations (cumulative).
        affine: whether gain (gamma, `weight`) and shift (beta, `bias`) are learned; if not they
            stay 1 and 0.

    Raises:
        ConfigError: if the shape, eps or momentum is out of range.

    Source: Guo et al., "Membrane Potential Batch Normalization for Spiking Neural Networks",
    ICCV 2023, section 4.

    Example:
        >>> import torch, spikefold as sf
        >>> norm = sf.MPBN(64)
        >>> norm(torch.randn(8, 64, 16, 16)).shape
        torch.Size([8, 64, 16, 16])
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    processes: Processes | None = None  # see `synchronize_statistics`

    def __init__(
        self,
        shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not self.shape or any(size < 1 for size in self.shape):
            raise ConfigError(f"MPBN: shape must be positive, got {shape}")
        if not (math.isfinite(eps) and eps >= 0):
            raise ConfigError(f"MPBN: eps must be finite and not negative, got {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ConfigError(f"MPBN: momentum must lie in [0, 1] or be None, got {momentum}")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        if affine:
            self.weight = nn.Parameter(torch.ones(self.shape))
            self.bias = nn.Parameter(torch.zeros(self.shape))
        self.register_buffer("running_mean", torch.zeros(self.shape))
        self.register_buffer("running_var", torch.ones(self.shape))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    @property
    def group(self) -> distributed.ProcessGroup | None:
        """Processes whose batches count together; None: this one's alone."""
        return None if self.processes is None else self.processes.group

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
        fixed = None if self.training else Statistics(self.running_mean, self.running_var)
        return Normalization(self.gain, self.shift, self.eps, fixed, self.group)

    def check(self, shape: tuple[int, ...] | torch.Size) -> None:
        """Refuse potentials `[N, *shape]` or `[N, C, *spatial]` that do not fit.

        Raises:
            ShapeError: with the expected and the given shape.
        """
        if tuple(shape[1 : 1 + len(self.shape)]) != self.shape:
            raise ShapeError(
                f"MPBN{self.shape} expects potentials [N, {', '.join(map(str, self.shape))}"
                f"{', ...' if len(self.shape) == 1 else ''}], got {list(shape)}"
            )

    def forward(self, u: Float[Tensor, "N C *spatial"]) -> Float[Tensor, "N C *spatial"]:
        """Normalize the potentials of one time step.

        Arguments:
            u: potentials `[N, C, *spatial]`.

        Raises:
            ShapeError: if u does not fit the shape, or training has one value per statistic.
        """
        self.check(u.shape)
        u = u.to(dynamics.membrane_dtype(u))
        gain, shift, eps, fixed, group = self.normalization()
        if fixed is None:
            fixed = Statistics(*dynamics.statistics(u, self.shape, group))
            means, variances = (value.detach()[None] for value in fixed)
            self.observe(means, variances, tuple(u.shape))
        return dynamics.normalize(u, *fixed, gain, shift, eps)

    def observe(
        self,
        means: Float[Tensor, "T *shape"],
        variances: Float[Tensor, "T *shape"],
        potential: tuple[int, ...],
    ) -> None:
        """Update the running statistics by those of T steps (the variance unbiased, as in torch).

        Arguments:
            means: mean at each step.
            variances: biased variance at each step.
            potential: shape `(N, C, *spatial)` of one step, for the number of samples.
        """
        samples = dynamics.sample_count(potential, self.shape, self.group, means.device)
        running = (self.running_mean, self.running_var)
        dynamics.update_running(
            running, (means, variances), self.momentum, self.num_batches_tracked, samples
        )
        self.num_batches_tracked.add_(len(means))

    def extra_repr(self) -> str:
        """The arguments, for print."""
        return f"{self.shape}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
