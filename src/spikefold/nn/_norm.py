"""Normalizations that know time, as modules: of the potential, and of the currents."""

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from spikefold import dynamics
from spikefold.dynamics import Currents, Normalization, Observed, Statistics
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn._attached import attached
from spikefold.nn._running import Processes, kept, observe
from spikefold.nn._still import distinct_steps
from spikefold.ranges import require_in


class Norm(nn.Module):
    """What `MembraneNorm` and `CurrentNorm` share: a module that gives a `Normalization`.

    Attributes:
        shape: of the parameters of one step.
        steps: T where every step has its own; None: one set for all.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    track_running_stats = True  # as torch's batch norms have it
    processes: Processes | None = None  # see `synchronize_statistics`

    def __init__(self, shape: tuple[int, ...], steps: int | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if not shape:
            raise ConfigError(f"{name}: shape must be positive, got {shape}")
        for size in shape:
            require_in(name, "a size of its shape", size, "[1, inf)", whole=True)
        if steps is not None:
            require_in(name, "steps", steps, "[1, inf)", whole=True)
        self.shape = shape
        self.steps = steps

    def keep_statistics(self, steps: int | None = None, momentum: float | None = 0.1) -> None:
        """Keep running mean and variance: `fixed` in evaluation, updated by `observe`.

        Arguments:
            steps: T for a set a step; None: one for all.
            momentum: weight of a new observation; None takes the mean over all (cumulative).
        """
        if momentum is not None:
            require_in(type(self).__name__, "momentum", momentum, "[0, 1]")
        self.momentum = momentum
        sets = () if steps is None else (steps,)
        self.register_buffer("running_mean", torch.zeros((*sets, *self.shape)))
        self.register_buffer("running_var", torch.ones((*sets, *self.shape)))
        self.register_buffer("num_batches_tracked", torch.zeros(sets, dtype=torch.long))

    @property
    def fixed(self) -> Statistics | None:
        """The running statistics; None in training, for those of the batch."""
        return kept(self)

    @property
    def group(self) -> distributed.ProcessGroup | None:
        """Processes whose batches count together; None: this one's alone."""
        return None if self.processes is None else self.processes.group

    def suit(self, threshold: float) -> None:
        """Called when it comes before neurons; may refuse their threshold.

        Arguments:
            threshold: above which they fire.
        """

    def normalization(self) -> Normalization:
        """What it does now."""
        raise NotImplementedError

    def observe(self, observed: Observed, t: int = 0) -> None:
        """Take note of the statistics that were taken of the batch.

        Arguments:
            observed: of each step, `[T, *shape]`, or of all, `[1, *shape]`.
            t: the first of these steps.
        """
        observe(self, observed, t)


class MembraneNorm(Norm):
    """What `LIF(norm=...)` takes: normalizes the potential before it meets the threshold.

    One of your own sets `shape` and returns a `Normalization`, an affine map whose parameters have
    a leading time axis (`[1, C]`, or `[T, C]` for one a step): kernels run it, the fold folds it.
    In training it may leave the statistics to the batch, and `observe` them. One that overrides
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
            mean, variance = (value.detach()[None] for value in observed[:2])
            self.observe(Observed(mean, variance, observed.samples), t)
        return h


class CurrentNorm(Norm):
    """What `SpikingLayer(norm=...)` takes that knows time: an affine map of each step's currents.

    One of your own returns a `Normalization` with parameters `[1, C]`, or `[T, C]` for one map a
    step: kernels run it. In training it may leave the statistics to the batch, `over` "all" steps
    together, "each" for itself, or the "past" of each, and keep running ones. One that overrides
    `forward` is called with `[T, N, C, *spatial]` instead, in plain torch. An image shown T times
    has the statistics of one.

    Arguments:
        channels: C.
        steps: T where every step has its own map; None: one for all.

    Example:
        >>> import torch, spikefold as sf
        >>> class Weighted(sf.CurrentNorm):  # batch norm over all steps, and a gain for each
        ...     def __init__(self, channels, steps):
        ...         super().__init__(channels, steps)
        ...         self.keep_statistics()
        ...         self.weight = torch.nn.Parameter(torch.ones(steps, channels))
        ...     def normalization(self):
        ...         gain, shift = self.weight, torch.zeros_like(self.weight)
        ...         return sf.dynamics.Normalization(gain, shift, 1e-5, self.fixed, self.group)
        >>> layer = sf.SpikingLayer(torch.nn.Conv2d(3, 8, 3), Weighted(8, 4), sf.LIF())
        >>> layer(torch.randn(4, 2, 3, 9, 9)).shape
        torch.Size([4, 2, 8, 7, 7])
    """

    def __init__(self, channels: int, steps: int | None = None) -> None:
        super().__init__((channels,), steps)

    def check(self, shape: tuple[int, ...] | torch.Size) -> None:
        """Refuse currents that do not fit.

        Arguments:
            shape: `(T, N, C, *spatial)`.

        Raises:
            ShapeError: with what is expected and given.
        """
        if shape[2:3] != self.shape:
            raise ShapeError(
                f"{type(self).__name__}({self.shape[0]}) expects currents "
                f"[T, N, {self.shape[0]}, ...], got {list(shape)}"
            )
        if self.steps not in (None, shape[0]):
            raise ShapeError(
                f"{type(self).__name__} has maps for {self.steps} time steps, but the sequence "
                f"has {shape[0]}{dynamics.batch_first(self.steps, shape[1])}"
            )

    def forward(self, x: Float[Tensor, "T N C *spatial"]) -> Float[Tensor, "T N C *spatial"]:
        """Normalize the currents of a whole sequence.

        Raises:
            ShapeError: if x does not fit, or training has one value per statistic.
        """
        self.check(x.shape)
        y, observed = dynamics.compute(Currents(distinct_steps(x), len(x), self.normalization()))
        if observed is not None:
            self.observe(observed)
        return as_given(y, x)

    def extra_repr(self) -> str:
        """The arguments, for print."""
        return f"{self.shape[0]}" if self.steps is None else f"{self.shape[0]}, steps={self.steps}"


def as_given(y: Tensor, x: Tensor) -> Tensor:
    """In the dtype of what was normalized, but for whole numbers, such as counts of spikes."""
    return y.to(x.dtype) if x.is_floating_point() else y


# The forwards of norms that do exactly what their `normalization` says.
FORWARDS = (MembraneNorm.forward, CurrentNorm.forward)


def is_called(norm: Norm) -> bool:
    """Whether a norm does more than its `normalization` says: a forward of its own, or hooks."""
    return type(norm).forward not in FORWARDS or attached(norm) is not None
