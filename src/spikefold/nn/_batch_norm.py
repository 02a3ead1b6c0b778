"""torch's batch norm modules seen as `dynamics.Normalization`."""

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold import dynamics
from spikefold.dynamics import Normalization, Statistics


def normalization(norm: nn.Module) -> Normalization | None:
    """What torch's own batch norm does now; None for any other module, or one without parameters.

    By the batch's statistics in training (or if it keeps none), else by the running ones.

    Arguments:
        norm: any module.
    """
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return None
    assert isinstance(norm, _BatchNorm)
    if not norm.affine:
        return None
    mean, variance = norm.running_mean, norm.running_var
    kept = None if mean is None or variance is None else Statistics(mean, variance)
    return Normalization(norm.weight, norm.bias, norm.eps, None if norm.training else kept)


@torch.no_grad()
def observe(
    norm: _BatchNorm,
    observed: Statistics,
    batch: tuple[int, ...],
    group: distributed.ProcessGroup | None = None,
) -> None:
    """Update the running statistics by those of a batch (the variance unbiased).

    Arguments:
        norm: changed in place, if it keeps statistics.
        observed: mean and biased variance.
        batch: shape `(N, C, *spatial)` they were taken of.
        group: processes whose batches count together.
    """
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    device = norm.running_mean.device
    samples = dynamics.sample_count(batch, (norm.num_features,), group, device)
    running = (norm.running_mean, norm.running_var)
    means, variances = (value[None] for value in observed)
    dynamics.update_running(
        running, (means, variances), norm.momentum, norm.num_batches_tracked, samples
    )
    norm.num_batches_tracked.add_(1)
