"""The training loop, on Lightning Fabric."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from spikefold.data import Dataset, Samples, random_crop
from spikefold.errors import ConfigError, SpikefoldError
from spikefold.folding import evaluation
from spikefold.models import Network
from spikefold.saving import load, replacing, save
from spikefold.training._checkpoint import TrainingState, restore_checkpoint, save_checkpoint
from spikefold.training._config import Experiment, OptimizerConfig, differences
from spikefold.training._progress import Progress, Silent

CONFIG, METRICS = "config.json", "metrics.jsonl"
LAST, BEST = "last.safetensors", "best.safetensors"


def cosine(learning_rate: float, epoch: int, epochs: int) -> float:
    """Learning rate of an epoch (from 0): lr (1 + cos(π epoch / epochs)) / 2."""
    return learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.SGD:
    """SGD with momentum; weight decay on the weights of convolutions and linear layers only."""
    decayed = [
        module.weight
        for module in network.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
    ]
    identities = {id(weight) for weight in decayed}
    others = [p for p in network.parameters() if id(p) not in identities]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


@torch.no_grad()
def evaluate(network: nn.Module, samples: Samples, batch_size: int = 128) -> dict[str, Any]:
    """Accuracy and mean cross entropy over samples, in evaluation mode.

    Arguments:
        network: from images or frames to logits.
        samples: what to evaluate on.
        batch_size: how many at a time.
    """
    device = next(network.parameters()).device
    correct, loss = 0, 0.0
    with evaluation(network):
        for x, labels in samples.batches(batch_size):
            x, labels = x.to(device), labels.to(device)
            logits = network(x)
            correct += int((logits.argmax(1) == labels).sum())
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
    return {
        "accuracy": correct / len(samples),
        "loss": loss / len(samples),
        "correct": correct,
        "samples": len(samples),
    }


def train(
    experiment: Experiment,
    dataset: Dataset,
    directory: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Network:
    """Train a network; keep the checkpoint of the best validation accuracy.

    Writes `config.json`, `metrics.jsonl` (one line an epoch), `last.safetensors` (from which
    training resumes to the same bits on a CPU) and `best.safetensors`.

    Arguments:
        experiment: the configuration.
        dataset: training and validation samples.
        directory: where the run's files go.
        resume: go on from `last.safetensors`, if there is one.
        progress: told about epochs.

    Returns:
        the best network, in evaluation mode, on the CPU.

    Raises:
        ConfigError: if a resumed run was made with another configuration.
        SpikefoldError: if the loss is not finite.
    """
    config = experiment.optimizer
    fabric = Fabric(accelerator=experiment.accelerator, devices=1)
    network = experiment.build(dataset)
    optimizer = make_optimizer(network, config)
    wrapped, fabric_optimizer = fabric.setup(network, optimizer)
    last = directory / LAST
    if resume and last.exists():
        _require_same(experiment, directory / CONFIG)
        state = restore_checkpoint(last, network, optimizer)
    else:
        state = TrainingState()
        experiment.save(directory / CONFIG)
        save_checkpoint(last, network, optimizer, state)
    with (progress or Silent()).task("train", config.epochs) as advance:
        for _ in range(state.epoch):
            advance()
        for epoch in range(state.epoch, config.epochs):
            started = time.perf_counter()
            rate = cosine(config.learning_rate, epoch, config.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            training = _train_epoch(fabric, wrapped, fabric_optimizer, dataset, experiment, epoch)
            validation = evaluate(network, dataset.validation)
            record = {
                "epoch": epoch + 1,
                "learning_rate": rate,
                "train_loss": training["loss"],
                "train_accuracy": training["accuracy"],
                "validation_loss": validation["loss"],
                "validation_accuracy": validation["accuracy"],
                "seconds": round(time.perf_counter() - started, 3),
            }
            if _is_best(record, state):
                state.best_epoch = epoch + 1
                save(network, directory / BEST, extra={"metrics": record})
            state.epoch = epoch + 1
            state.history.append(record)
            save_checkpoint(last, network, optimizer, state)
            _write_metrics(directory / METRICS, state.history)
            advance(
                f"loss {record['train_loss']:.3f}  validation {record['validation_accuracy']:.2%}"
            )
    return load(directory / BEST)


def _train_epoch(
    fabric: Fabric,
    network: Any,
    optimizer: Any,
    dataset: Dataset,
    experiment: Experiment,
    epoch: int,
) -> dict[str, float]:
    """One pass in an order that depends on seed and epoch only; mean loss and accuracy."""
    generator = torch.Generator().manual_seed(experiment.seed * 1_000_003 + epoch)
    network.train()
    loss_sum, correct = 0.0, 0
    for x, labels in dataset.train.batches(experiment.optimizer.batch_size, generator):
        x, labels = x.to(fabric.device), labels.to(fabric.device)
        x = random_crop(x, experiment.data.crop_padding, generator)
        logits = network(x)
        loss = F.cross_entropy(logits, labels)
        if not math.isfinite(loss.item()):
            raise SpikefoldError(
                f"epoch {epoch + 1}: the loss is {loss.item()}: lower optimizer.learning-rate "
                f"({experiment.optimizer.learning_rate}); the last checkpoint is from before"
            )
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
    count = len(dataset.train)
    return {"loss": loss_sum / count, "accuracy": correct / count}


def _is_best(record: dict[str, Any], state: TrainingState) -> bool:
    """Whether this epoch's validation accuracy (then loss) is the best so far."""
    if not state.best_epoch:
        return True
    best = state.history[state.best_epoch - 1]
    return (record["validation_accuracy"], -record["validation_loss"]) > (
        best["validation_accuracy"],
        -best["validation_loss"],
    )


def _require_same(experiment: Experiment, path: Path) -> None:
    stored = Experiment.load(path)
    changed = differences(stored.to_dict(), experiment.to_dict())
    if changed:
        raise ConfigError(f"cannot resume with another configuration than {path}: {changed[0]}")


def _write_metrics(path: Path, history: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
