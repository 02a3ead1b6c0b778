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
    running = None if norm.training else _running(norm)
    if running is None or _has_sets(norm.num_batches_tracked):
        return running
    return Statistics(running.mean[None], running.variance[None])


def _running(norm: nn.Module) -> Statistics | None:
    mean, variance = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    return None if mean is None or variance is None else Statistics(mean, variance)


def _has_sets(seen: Any) -> bool:
    """Whether there is a set for each time step, each with its own number of observations."""
    return seen is not None and seen.ndim > 0


def observe(norm: nn.Module, observed: Observed, t: int = 0) -> None:
    """Update the running statistics (the variance unbiased), if there are any.

    Arguments:
        norm: see `kept`; changed in place.
        observed: of each step, or `[1, C]` of all.
        t: the first of these steps.
    """
    running = _running(norm)
    if running is None or not norm.track_running_stats:
        return
    if norm.num_batches_tracked is None:  # torch takes that; then nothing is cumulative
        norm.num_batches_tracked = torch.tensor(0)
    mean, variance, samples = observed
    seen = cast(Tensor, norm.num_batches_tracked)
    if _has_sets(seen):
        part = slice(t, t + len(mean))
        running = Statistics(running.mean[part], running.variance[part])
        seen = seen[part]
    momentum = cast("float | None", norm.momentum)
    dynamics.update_running(running, Statistics(mean, variance), momentum, seen, samples)
