"""Normalizations of the membrane potential as modules; MPBN is one."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from spikefold import dynamics
from spikefold.dynamics import Normalization, Statistics
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn._batch_norm import Processes


class MembraneNorm(nn.Module):
    """What `LIF(norm=...)` takes: it says what is done to the potential before it is compared.

    One of your own sets `shape` and returns a `Normalization`, an affine map whose parameters have
    a leading time axis (`[1, C]`, or `[T, C]` for one a step): kernels run it, the fold folds it.
    In training it may `observe` the statistics that were taken of the batch. One that overrides
    `forward` is called at each step instead, in plain torch.

    Attributes:
        shape: `(C,)`, or `(C, *spatial)` for one map an element.
        steps: T where every step has its own; None: one for all.

    Example:
        >>> import torch, spikefold as sf
        >>> class Centre(sf.MembraneNorm):
        ...     def __init__(self, channels):
        ...         super().__init__((channels,))
        ...         self.centre = torch.nn.Parameter(torch.zeros(channels))
        ...     def normalization(self):
        ...         one, zero = torch.ones(1, *self.shape), torch.zeros(1, *self.shape)
        ...         fixed = sf.dynamics.Statistics(zero, one)
        ...         return sf.dynamics.Normalization(one, self.centre[None], 0.0, fixed)
        >>> sf.fold(sf.LIF(Centre(3)))(torch.randn(4, 2, 3)).shape
        torch.Size([4, 2, 3])
    """

    def __init__(self, shape: tuple[int, ...], steps: int | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.steps = steps

    def normalization(self) -> Normalization:
        """What it does now."""
        raise NotImplementedError

    def observe(self, observed: Statistics, potential: tuple[int, ...], t: int = 0) -> None:
        """Take note of the batch's statistics.

        Arguments:
            observed: mean and biased variance of each step, `[T, *shape]`.
            potential: shape `(N, C, *spatial)` of one step, for the number of samples.
            t: the first of these steps.
        """

    def check(self, shape: tuple[int, ...] | torch.Size) -> None:
        """Refuse potentials `[N, *shape]` or `[N, C, *spatial]` that do not fit.

        Raises:
            ShapeError: with the expected and the given shape.
        """
        if shape[1 : 1 + len(self.shape)] != self.shape:
            raise ShapeError(
                f"{type(self).__name__}{self.shape} expects potentials "
                f"[N, {', '.join(map(str, self.shape))}"
                f"{', ...' if len(self.shape) == 1 else ''}], got {list(shape)}"
            )

    def forward(
        self, u: Float[Tensor, "N C *spatial"], t: int = 0
    ) -> Float[Tensor, "N C *spatial"]:
        """Normalize the potentials of one time step.

        Arguments:
            u: potentials `[N, C, *spatial]`.
            t: which step, where every step has its own map.

        Raises:
            ShapeError: if u does not fit the shape, or training has one value per statistic.
        """
        self.check(u.shape)
        h, observed = self.normalization()(u.to(dynamics.membrane_dtype(u)), t)
        if observed is not None:
            steps = Statistics(*(value.detach()[None] for value in observed))
            self.observe(steps, tuple(u.shape), t)
        return h


class MPBN(MembraneNorm):
    """Batch normalization of the membrane potential, right before the firing function.

        h = gamma (u - mean) / sqrt(variance + eps) + beta

    In training, mean and variance are those of the batch at each time step: over N and space for
    the channel-wise form `MPBN(C)`, over N for the element-wise form `MPBN((C, H, W))`. The shape
    decides. There is one set of running statistics, updated at each time step; evaluation uses
    them. With `steps=T` there are T of all, one for each time step. Everything is float32, also
    inside autocast.

    Arguments:
        shape: number of channels, or the shape of one sample's potential.
        steps: T, for statistics, gain and shift of each time step; None: one set for all. A
            sequence of another length is a `ShapeError`.
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
        steps: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__((shape,) if isinstance(shape, int) else tuple(shape), steps)
        if not self.shape or any(size < 1 for size in self.shape):
            raise ConfigError(f"MPBN: shape must be positive, got {shape}")
        if steps is not None and steps < 1:
            raise ConfigError(f"MPBN: steps must be at least 1 or None, got {steps}")
        if not (math.isfinite(eps) and eps >= 0):
            raise ConfigError(f"MPBN: eps must be finite and not negative, got {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ConfigError(f"MPBN: momentum must lie in [0, 1] or be None, got {momentum}")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        sets = () if steps is None else (steps,)
        whole = (*sets, *self.shape)
        if affine:
            self.weight = nn.Parameter(torch.ones(whole))
            self.bias = nn.Parameter(torch.zeros(whole))
        self.register_buffer("running_mean", torch.zeros(whole))
        self.register_buffer("running_var", torch.ones(whole))
        self.register_buffer("num_batches_tracked", torch.zeros(sets, dtype=torch.long))

    def per_step(self, steps: int) -> "MPBN":
        """A new one with a set for each time step, all of which begin as this one's.

        Arguments:
            steps: T.

        Raises:
            ConfigError: if it has sets a step already.
        """
        if self.steps is not None:
            raise ConfigError(f"this MPBN has its sets for {self.steps} steps already")
        made = MPBN(
            self.shape, steps=steps, eps=self.eps, momentum=self.momentum, affine=self.affine
        )
        made.load_state_dict(
            {name: value.expand(steps, *value.shape) for name, value in self.state_dict().items()}
        )
        return made.to(self.running_mean.device, self.running_mean.dtype).train(self.training)

    def _timed(self, value: Tensor) -> Tensor:
        """A view with a leading time axis."""
        return value[None] if self.steps is None else value

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
        fixed = None
        if not self.training:
            fixed = Statistics(self._timed(self.running_mean), self._timed(self.running_var))
        gain, shift = self._timed(self.gain), self._timed(self.shift)
        return Normalization(gain, shift, self.eps, fixed, self.group)

    def observe(self, observed: Statistics, potential: tuple[int, ...], t: int = 0) -> None:
        """Update the running statistics (the variance unbiased, as in torch)."""
        samples = dynamics.sample_count(potential, self.shape, self.group, observed.mean.device)
        running, seen = Statistics(self.running_mean, self.running_var), self.num_batches_tracked
        if self.steps is not None:
            now = slice(t, t + len(observed.mean))
            running, seen = Statistics(running.mean[now], running.variance[now]), seen[now]
        dynamics.update_running(running, observed, self.momentum, seen, samples)

    def extra_repr(self) -> str:
        """The arguments, for print."""
        steps = "" if self.steps is None else f"steps={self.steps}, "
        return (
            f"{self.shape}, {steps}eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        )
