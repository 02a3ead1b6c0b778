"""torch's batch norm modules seen as `dynamics.Normalization`, and one of several processes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold import dynamics
from spikefold.dynamics import Normalization, Statistics


@dataclass(frozen=True)
class Processes:
    """Processes whose batches count together. Copies of a module share it: torch's group, a handle
    of something outside, cannot be copied.
    """

    group: distributed.ProcessGroup

    def __deepcopy__(self, memo: dict[int, Any]) -> "Processes":
        return self


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of all processes together, on any device.

    torch's own `SyncBatchNorm` needs a GPU; this one uses the statistics of MPBN. Evaluation and
    state are those of `nn.BatchNorm2d`.

    Arguments:
        norm: whose settings, parameters and statistics are taken over (the tensors themselves).
        processes: whose batches count together.
    """

    def __init__(self, norm: _BatchNorm, processes: Processes) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.processes = processes
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any [N, C, ...]

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `[N, C, *spatial]`."""
        if not self.training:
            return super().forward(input)
        x = input.to(dynamics.membrane_dtype(input))
        group = self.processes.group
        mean, variance = dynamics.statistics(x, (self.num_features,), group)
        observe(
            self, Statistics(mean.detach()[None], variance.detach()[None]), tuple(x.shape), group
        )
        one, zero = torch.ones_like(mean), torch.zeros_like(mean)
        gain, shift = (self.weight, self.bias) if self.affine else (one, zero)
        return dynamics.normalize(x, mean, variance, gain, shift, self.eps).to(input.dtype)


# What is known to compute nothing but a batch normalization. Exact types: a subclass may do more.
BATCH_NORMS: set[type[nn.Module]] = {
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    SynchronizedBatchNorm,
}


def normalization(norm: nn.Module) -> Normalization | None:
    """What torch's own batch norm does now; None for any other module, or one without parameters.

    By the batch's statistics in training (or if it keeps none), else by the running ones.

    Arguments:
        norm: any module.
    """
    if type(norm) not in BATCH_NORMS:
        return None
    assert isinstance(norm, _BatchNorm)
    if not norm.affine:
        return None
    group = norm.processes.group if isinstance(norm, SynchronizedBatchNorm) else None
    mean, variance = norm.running_mean, norm.running_var
    kept = None
    if not (norm.training or mean is None or variance is None):
        kept = Statistics(mean.unsqueeze(0), variance.unsqueeze(0))
    gain, shift = norm.weight.unsqueeze(0), norm.bias.unsqueeze(0)
    return Normalization(gain, shift, norm.eps, kept, group)


def observe(
    norm: _BatchNorm,
    observed: Statistics,
    batch: tuple[int, ...],
    group: distributed.ProcessGroup | None = None,
) -> None:
    """Update the running statistics by those of a batch (the variance unbiased).

    Arguments:
        norm: changed in place, if it keeps statistics.
        observed: mean and biased variance, `[1, C]`.
        batch: shape `(N, C, *spatial)` they were taken of.
        group: processes whose batches count together.
    """
    if norm.running_mean is None or norm.running_var is None or not norm.track_running_stats:
        return
    if norm.num_batches_tracked is None:  # torch takes that; then nothing is cumulative
        norm.num_batches_tracked = torch.tensor(0)
    device = norm.running_mean.device
    samples = dynamics.sample_count(batch, (norm.num_features,), group, device)
    running = Statistics(norm.running_mean, norm.running_var)
    dynamics.update_running(running, observed, norm.momentum, norm.num_batches_tracked, samples)
