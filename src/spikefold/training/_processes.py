"""The processes that train together, on Lightning Fabric."""

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.multiprocessing import ProcessRaisedException

from spikefold.errors import ConfigError, SpikefoldError
from spikefold.training._config import HardwareConfig

# Where it is made: it brings torch's compiler along, for which only a training need wait.
if TYPE_CHECKING:
    import lightning_fabric

T = TypeVar("T")
PRECISIONS = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "float64": "64-true",
}


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def device_of(hardware: HardwareConfig) -> torch.device:
    """The device of the first process, which also does what follows the training."""
    from lightning_fabric import Fabric

    return Fabric(accelerator=hardware.accelerator, devices=1).device


def make_fabric(hardware: HardwareConfig) -> "lightning_fabric.Fabric":
    """Fabric for these processes and this precision."""
    from lightning_fabric import Fabric

    _require_there(hardware)
    if hardware.nodes > 1 and not is_launched():
        raise ConfigError("several nodes: start `spikefold train` on each with torchrun")
    fabric = Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=_strategy(hardware),
        precision=PRECISIONS[hardware.precision],  # type: ignore[arg-type]
    )
    # Fabric would use bf16 instead, silently.
    if hardware.precision == "fp16" and fabric.device.type == "cpu":
        raise ConfigError("hardware: precision fp16 needs a GPU; on a CPU take bf16 or float32")
    return fabric


def _require_there(hardware: HardwareConfig) -> None:
    """Refuse hardware that this host does not have."""
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    if hardware.accelerator == "cuda" or (hardware.accelerator == "auto" and gpus):
        if hardware.devices > gpus:
            raise ConfigError(
                f"hardware: GPUs asked for: {hardware.devices}, here: {gpus}; a CPU is accelerator "
                "cpu"
            )
    elif hardware.devices > cores and not hardware.oversubscribe:
        raise ConfigError(
            f"hardware: devices {hardware.devices} on {cores} cores: processes would take turns; "
            "hardware.oversubscribe allows it"
        )


def _strategy(hardware: HardwareConfig) -> str:
    if hardware.devices * hardware.nodes == 1:
        return "auto"
    return "ddp" if is_launched() else "ddp_spawn"


def launch(hardware: HardwareConfig, work: Callable[["lightning_fabric.Fabric"], T]) -> T:
    """Do the work in all processes; those not yet running are started.

    Arguments:
        hardware: how many.
        work: what each does; can be pickled, and returns nothing where processes are started.

    Returns:
        what this process's work returns.

    Raises:
        SpikefoldError: what a process raised, whichever it was; so OSError.
    """
    fabric = make_fabric(hardware)
    if _strategy(hardware) != "ddp_spawn":
        return fabric.launch(work)
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        return fabric.launch(partial(_told, work=work, errors=errors))
    except ProcessRaisedException:
        # It holds the text of a traceback, and no more of the error.
        if errors.empty():
            raise
        raise errors.get() from None


def _told(
    fabric: "lightning_fabric.Fabric", work: Callable[["lightning_fabric.Fabric"], T], errors: Any
) -> T:
    """The work of a started process; its errors are reported to the one that started it."""
    try:
        return work(fabric)
    except (SpikefoldError, OSError) as error:
        errors.put(error)
        raise


def agreed(fabric: "lightning_fabric.Fabric", find: Callable[[], T]) -> T:
    """Send the first process's result to all: others may not see its files.

    Arguments:
        fabric: of the processes.
        find: called in the first one.

    Raises:
        SpikefoldError: what the first process raised, in all of them; so OSError.
    """
    found: Any = None
    if fabric.is_global_zero:
        try:
            found = find()
        except (SpikefoldError, OSError) as error:
            found = error
    found = fabric.broadcast(found)
    if isinstance(found, Exception):
        raise found
    return found
