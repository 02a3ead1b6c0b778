"""Batch statistics over all processes of a data-parallel training."""

from typing import TypeVar, cast

from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import ConfigError
from spikefold.nn._attached import strange
from spikefold.nn._batch_norm import BATCH_NORMS, SynchronizedBatchNorm
from spikefold.nn._copy import copied, replaced
from spikefold.nn._norm import FORWARDS, Norm
from spikefold.nn._running import Processes

ModelT = TypeVar("ModelT", bound=nn.Module)


def synchronize_statistics(model: ModelT, group: distributed.ProcessGroup | None = None) -> ModelT:
    """A new model whose norms take the statistics of their batch over all processes.

    Batch norms of torch, MPBN, and other membrane and current norms that pass on their `group`.

    torch's own `SyncBatchNorm` does so already and stays.

    Arguments:
        model: not changed.
        group: the processes; default: all.

    Raises:
        ConfigError: if torch.distributed is not initialized, or a normalization is of a type whose
            statistics spikefold does not know; names the layer.
    """
    if group is None:
        if not distributed.is_initialized():
            raise ConfigError("synchronized statistics need torch.distributed to be initialized")
        group = distributed.group.WORLD
    assert group is not None
    processes = Processes(group)
    synchronized = copied(model)
    replacements: dict[int, nn.Module] = {}
    for name, module in synchronized.named_modules():
        if isinstance(module, Norm):
            module.processes = processes
            _require_group(name, module)
        elif isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            _require_plain(name, module)
            replacements[id(module)] = SynchronizedBatchNorm(module, processes)
    return cast(ModelT, replaced(synchronized, replacements))


def _require_group(name: str, norm: Norm) -> None:
    """Refuse norms that would use the statistics of their own batch alone."""
    kind = type(norm)
    if kind.forward not in FORWARDS:
        raise ConfigError(
            f"layer '{name}': {kind.__name__} has a forward of its own: its statistics cannot be "
            "synchronized"
        )
    mode = norm.training
    does = norm.train().normalization()
    norm.train(mode)
    if does.fixed is None and does.group is not norm.group:
        raise ConfigError(
            f"layer '{name}': the normalization of {kind.__name__} leaves out its group: its "
            "statistics cannot be synchronized"
        )


def _require_plain(name: str, norm: _BatchNorm) -> None:
    """Refuse what a synchronized batch norm would not do as well."""
    problem = strange(norm)
    if problem is None and type(norm) not in BATCH_NORMS:
        problem = "only torch's own batch norms can be synchronized, not subclasses of them"
    if problem is not None:
        raise ConfigError(f"layer '{name}' ({type(norm).__name__}): {problem}")
