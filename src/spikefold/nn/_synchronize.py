"""Batch statistics over all processes of a data-parallel training."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold import dynamics
from spikefold.dynamics import Statistics
from spikefold.errors import ConfigError
from spikefold.nn._batch_norm import observe
from spikefold.nn._mpbn import MPBN

ModelT = TypeVar("ModelT", bound=nn.Module)


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of all processes together, on any device.

    torch's own `SyncBatchNorm` needs a GPU; this one uses the statistics of MPBN. Evaluation and
    state are those of `nn.BatchNorm2d`.

    Arguments:
        norm: whose settings, parameters and statistics are taken over.
        group: the processes.
    """

    def __init__(self, norm: _BatchNorm, group: distributed.ProcessGroup) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        self.group = group
        for tensor in (norm.running_mean, norm.weight):  # either may be absent
            if tensor is not None:
                self.to(tensor)
        self.load_state_dict(norm.state_dict())
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any [N, C, ...]

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `[N, C, *spatial]`."""
        if not self.training:
            return super().forward(input)
        x = input.to(dynamics.membrane_dtype(input))
        mean, variance = dynamics.statistics(x, (self.num_features,), self.group)
        observed = Statistics(mean.detach(), variance.detach())
        observe(self, observed, tuple(x.shape), self.group)
        one, zero = torch.ones_like(mean), torch.zeros_like(mean)
        gain, shift = (self.weight, self.bias) if self.affine else (one, zero)
        return dynamics.normalize(x, mean, variance, gain, shift, self.eps).to(input.dtype)


def synchronize_statistics(model: ModelT, group: distributed.ProcessGroup | None = None) -> ModelT:
    """A new model whose MPBNs and batch norms take their statistics over all processes.

    Arguments:
        model: left as it is.
        group: the processes; default: all.

    Raises:
        ConfigError: if torch.distributed is not initialized.
    """
    if group is None:
        if not distributed.is_initialized():
            raise ConfigError("synchronized statistics need torch.distributed to be initialized")
        group = distributed.group.WORLD
    assert group is not None
    synchronized = copy.deepcopy(model)
    for name, module in list(synchronized.named_modules()):
        if isinstance(module, MPBN):
            module.group = group
        elif isinstance(module, _BatchNorm):
            synchronized.set_submodule(name, SynchronizedBatchNorm(module, group))
    return synchronized
