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
    statistics = _statistics(norm)
    if norm.training or statistics is None:
        return None
    return statistics if _has_sets(norm) else Statistics(*(value[None] for value in statistics))


def _statistics(norm: nn.Module) -> Statistics | None:
    mean, variance = (getattr(norm, name, None) for name in ("running_mean", "running_var"))
    return None if mean is None or variance is None else Statistics(mean, variance)


def _has_sets(norm: nn.Module) -> bool:
    """Whether there is a set for each time step, each with its own number of observations."""
    seen = norm.num_batches_tracked
    return isinstance(seen, Tensor) and seen.ndim > 0


@torch.no_grad()
def observe(norm: nn.Module, observed: Observed, t: int = 0) -> None:
    """Update the running statistics (the variance unbiased), if there are any.

    Arguments:
        norm: see `kept`; changed in place.
        observed: of each step, or `[1, C]` of all.
        t: the first of these steps.
    """
    running = _statistics(norm)
    if running is None or not getattr(norm, "track_running_stats", True):
        return
    if norm.num_batches_tracked is None:  # torch takes that; then nothing is cumulative
        norm.num_batches_tracked = torch.tensor(0)
    mean, variance, samples = observed
    seen, added = cast(Tensor, norm.num_batches_tracked), len(mean)
    part: Any = None
    if _has_sets(norm):
        part = slice(t, t + len(mean))
        seen, added = seen[part], 1
    running = Statistics(*(value[part] for value in running))
    momentum = cast("float | None", norm.momentum)
    dynamics.update_running(running, Statistics(mean, variance), momentum, seen, samples)
    seen.add_(added)
