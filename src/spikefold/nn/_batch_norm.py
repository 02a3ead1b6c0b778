"""torch's batch norm modules seen as `dynamics.Normalization`, and one of several processes."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold import dynamics
from spikefold.dynamics import Normalization, Observed
from spikefold.nn._running import Processes, kept, observe


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
        mean, variance, samples = dynamics.statistics(x, (self.num_features,), group)
        observe(self, Observed(mean.detach()[None], variance.detach()[None], samples))
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
    gain, shift = norm.weight.unsqueeze(0), norm.bias.unsqueeze(0)
    return Normalization(gain, shift, norm.eps, kept(norm), group)
