"""Checkpoints: a network file that also holds what training needs to go on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikefold.errors import FileFormatError
from spikefold.models import Network
from spikefold.saving import Stored, read, save


@dataclass
class TrainingState:
    """Where training stands after an epoch.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch (from 1) of the best validation accuracy so far; 0 before the first.
        history: one record an epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    network: Network,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    average: nn.Module | None = None,
) -> None:
    """Write network, optimizer, state and averaged weights into one file, or nothing at all."""
    tensors, plain = _optimizer_state(network, optimizer)
    if average is not None:
        tensors |= {f"average/{key}": value for key, value in average.state_dict().items()}
    extra = {"training": vars(state), "optimizer": plain}
    save(network, path, extra=extra, tensors=tensors)


def read_checkpoint(path: Path, network: Network) -> Stored[Network]:
    """A checkpoint from which training of the network can go on.

    Arguments:
        path: the file.
        network: of the model that is trained.

    Raises:
        FileFormatError: if the file is damaged, of another model, or no checkpoint.
    """
    stored = read(path)
    if "training" not in stored.extra:
        raise FileFormatError(f"{path}: a network, but not a checkpoint: training cannot continue")
    if (stored.network.name, stored.network.arguments) != (network.name, network.arguments):
        raise FileFormatError(
            f"{path}: a checkpoint of another model: {stored.network.name} with "
            f"{stored.network.arguments}"
        )
    return stored


def restore_checkpoint(
    stored: Stored[Network],
    network: Network,
    optimizer: torch.optim.Optimizer,
    average: nn.Module | None = None,
) -> TrainingState:
    """Put a checkpoint's weights into the network and its state into the optimizer.

    Arguments:
        stored: the checkpoint.
        network: of the same model, on its device.
        optimizer: of the network's parameters.
        average: gets the averaged weights.

    Returns:
        where training stood.
    """
    network.load_state_dict(stored.network.state_dict())
    for name, parameter in network.named_parameters():
        entries: dict[str, Any] = dict(stored.extra["optimizer"].get(name, {}))
        prefix = f"{name}:"
        for key, value in stored.tensors.items():
            if key.startswith(prefix):
                entry = key.removeprefix(prefix)
                # torch wants AdamW's number of steps where it made it: on the CPU
                entries[entry] = value if entry == "step" else value.to(parameter.device)
        if entries:
            optimizer.state[parameter] = entries
    if average is not None:
        prefix = "average/"
        items = stored.tensors.items()
        average.load_state_dict(
            {k.removeprefix(prefix): v for k, v in items if k.startswith(prefix)}
        )
    return TrainingState(**stored.extra["training"])


def _optimizer_state(
    network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Tensors under "parameter:entry", and the plain numbers by parameter."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}:{key}"] = value
            elif value is not None:
                plain.setdefault(name, {})[key] = value
    return tensors, plain
