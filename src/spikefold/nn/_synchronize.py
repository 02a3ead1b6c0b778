"""Batch statistics over all processes of a data-parallel training."""

from typing import TypeVar, cast

from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import ConfigError
from spikefold.nn._attached import strange
from spikefold.nn._batch_norm import BATCH_NORMS, Processes, SynchronizedBatchNorm
from spikefold.nn._copy import copied, replaced
from spikefold.nn._mpbn import MPBN, MembraneNorm

ModelT = TypeVar("ModelT", bound=nn.Module)


def synchronize_statistics(model: ModelT, group: distributed.ProcessGroup | None = None) -> ModelT:
    """A new model whose MPBNs and batch norms take their statistics over all processes.

    torch's own `SyncBatchNorm` does so already and stays.

    Arguments:
        model: left as it is.
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
        if isinstance(module, MPBN):
            if type(module).forward is not MembraneNorm.forward:
                raise ConfigError(
                    f"layer '{name}': {type(module).__name__} has a forward of its own: its "
                    "statistics cannot be synchronized"
                )
            module.processes = processes
        elif isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            _require_plain(name, module)
            replacements[id(module)] = SynchronizedBatchNorm(module, processes)
    return cast(ModelT, replaced(synchronized, replacements))


def _require_plain(name: str, norm: _BatchNorm) -> None:
    """Refuse what a synchronized batch norm would not do as well."""
    problem = strange(norm)
    if problem is None and type(norm) not in BATCH_NORMS:
        problem = "only torch's own batch norms can be synchronized, not subclasses of them"
    if problem is not None:
        raise ConfigError(f"layer '{name}' ({type(norm).__name__}): {problem}")
