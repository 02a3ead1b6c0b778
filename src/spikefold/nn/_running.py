"""Running statistics, as torch's batch norms keep them: a set for all time steps, or for each."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn

from spikefold import dynamics
from spikefold.dynamics import Observed, Statistics


@dataclass(frozen=True)
class Processes:
    """Processes whose batches count together. Copies of a module share it: torch's group, a handle
    of something outside, cannot be copied.
    """

    group: distributed.ProcessGroup

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        return self


def kept(norm: nn.Module) -> Statistics | None:
    """The running statistics, with a time axis; None in training, and where there are none.

    Arguments:
        norm: torch's, or a `Norm`.
    """
    return None if norm.training else _timed(norm)


def _timed(norm: nn.Module) -> Statistics | None:
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if mean is None or variance is None:
        return None
    if _has_sets(norm):
        return Statistics(mean, variance)
    return Statistics(mean.unsqueeze(0), variance.unsqueeze(0))


def _has_sets(norm: nn.Module) -> bool:
    """Whether there is a set for each time step, each with its own number of observations."""
    seen = norm.num_batches_tracked
    return isinstance(seen, Tensor) and seen.ndim > 0


def observe(norm: nn.Module, observed: Observed, t: int = 0) -> None:
    """Update the running statistics (the variance unbiased), if there are any.

    Arguments:
        norm: see `kept`; changed in place.
        observed: of each step, or `[1, C]` of all.
        t: the first of these steps.
    """
    running = _timed(norm)
    if running is None or not getattr(norm, "track_running_stats", True):
        return
    if norm.num_batches_tracked is None:  # torch takes that; then nothing is cumulative
        norm.num_batches_tracked = torch.tensor(0)
    mean, variance, samples = observed
    seen, added = cast(Tensor, norm.num_batches_tracked), len(mean)
    if _has_sets(norm):
        part = slice(t, t + added)
        running = Statistics(running.mean[part], running.variance[part])
        seen, added = seen[part], 1
    momentum = cast("float | None", norm.momentum)
    dynamics.update_running(running, Statistics(mean, variance), momentum, seen, samples)
    seen.add_(added)
