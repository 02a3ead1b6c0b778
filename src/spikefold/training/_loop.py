"""The training loop, on Lightning Fabric."""

import json
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning_fabric import Fabric
from torch import distributed

from spikefold.data import Dataset, Samples
from spikefold.errors import ConfigError, DataError
from spikefold.models import Network
from spikefold.nn import synchronize_statistics
from spikefold.registry import IMPORTED, import_extension
from spikefold.saving import load, replacing, save
from spikefold.training._checkpoint import TrainingState, restore_checkpoint, save_checkpoint
from spikefold.training._config import Experiment, HardwareConfig
from spikefold.training._epoch import Learner, train_epoch
from spikefold.training._evaluate import evaluate
from spikefold.training._init import start_from
from spikefold.training._optimizer import learning_rate, make_average, make_optimizer
from spikefold.training._progress import Progress, Silent
from spikefold.training._resume import require_continued

CONFIG, METRICS = "config.json", "metrics.jsonl"
LAST, BEST = "last.safetensors", "best.safetensors"
PRECISIONS = {
    "float32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "float64": "64-true",
}


def train(
    experiment: Experiment,
    dataset: Dataset,
    directory: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    recipe: str | None = None,
) -> Network:
    """Train a network; keep the checkpoint of the best validation accuracy.

    Without validation samples the last epoch's is kept.

    Writes `config.json`, `metrics.jsonl` (one line an epoch), `last.safetensors` (from which
    training resumes to the same bits on a CPU) and `best.safetensors`. With several devices it
    starts a process for each; under torchrun it is one of the processes.

    Arguments:
        experiment: the configuration.
        dataset: training and validation samples.
        directory: where the run's files go.
        resume: go on from `last.safetensors`, if there is one.
        progress: told about epochs.
        recipe: name of the configuration, for the record.

    Returns:
        the best network, in evaluation mode, on the CPU.

    Raises:
        ConfigError: if a resumed run was made with another configuration; more epochs are fine
            under a constant learning rate.
        SpikefoldError: if the loss is not finite.
    """
    fabric = make_fabric(experiment.hardware)
    # bound here, for Fabric takes dataclasses among a function's arguments apart
    fabric.launch(
        partial(
            _train,
            experiment=experiment,
            dataset=dataset,
            directory=directory,
            resume=resume,
            progress=progress or Silent(),
            recipe=recipe,
            extensions=tuple(IMPORTED),
        )
    )
    return load(directory / BEST)


def make_fabric(hardware: HardwareConfig) -> Fabric:
    """Fabric for these processes and this precision."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    if hardware.nodes > 1 and not launched:
        raise ConfigError("several nodes: start `spikefold train` on each with torchrun")
    several = hardware.devices * hardware.nodes > 1
    fabric = Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=("ddp" if launched else "ddp_spawn") if several else "auto",
        precision=PRECISIONS[hardware.precision],  # type: ignore[arg-type]
    )
    if hardware.precision == "fp16" and fabric.device.type == "cpu":  # Fabric would take bf16
        raise ConfigError("hardware: precision fp16 needs a GPU; on a CPU take bf16 or float32")
    return fabric


def _train(
    fabric: Fabric,
    experiment: Experiment,
    dataset: Dataset,
    directory: Path,
    resume: bool,
    progress: Progress,
    recipe: str | None,
    extensions: tuple[str, ...],
) -> None:
    """What each process does; the first one evaluates and writes."""
    for module in extensions:  # what this process registers, if it is a new one
        import_extension(module)
    config = experiment.optimizer
    if config.batch_size < fabric.world_size or len(dataset.train) < fabric.world_size:
        raise DataError(f"fewer samples a batch than the {fabric.world_size} processes")
    network = experiment.build(dataset)
    if fabric.world_size > 1 and experiment.hardware.synchronize:
        network = synchronize_statistics(network)
    optimizer = make_optimizer(network, config)
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    average = make_average(network, config)
    shown = progress if fabric.is_global_zero else Silent()
    last = directory / LAST
    if resume and last.exists():
        require_continued(Experiment.load(directory / CONFIG), experiment, directory / CONFIG)
        state = restore_checkpoint(last, network, optimizer, average)
    else:
        state = _start(experiment, network, shown)
    if fabric.is_global_zero:
        experiment.save(directory / CONFIG, recipe)
        if not state.epoch:
            save_checkpoint(last, network, optimizer, state, average)
    learner = Learner(fabric, network, wrapped, optimizer, wrapped_optimizer, average)
    with ExitStack() as stack:
        advance = stack.enter_context(shown.task("train", config.epochs))
        for _ in range(state.epoch):
            advance()
        for epoch in range(state.epoch, config.epochs):
            started = time.perf_counter()
            rate = learning_rate(config, epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            training = train_epoch(learner, dataset, experiment, epoch)
            state.epoch = epoch + 1
            if fabric.is_global_zero:
                chosen = network if average is None else cast(Network, average.module)
                record = {
                    "epoch": epoch + 1,
                    "learning_rate": rate,
                    "train_loss": training["loss"],
                    "train_accuracy": training["accuracy"],
                    **_validated(chosen, dataset.validation),
                    "seconds": round(time.perf_counter() - started, 3),
                }
                _keep(record, state, chosen, directory)
                save_checkpoint(last, network, optimizer, state, average)
                _write_metrics(directory, state.history, experiment.hardware.tensorboard)
                advance(_note(record))
            fabric.barrier()
    if fabric.world_size > 1:  # else a process that ends first can abort the other's threads
        fabric.barrier()
        distributed.destroy_process_group()


def _start(experiment: Experiment, network: Network, progress: Progress) -> TrainingState:
    """Where training stands before its first epoch, with the weights it starts from."""
    if experiment.init is not None:
        with progress.task("init", 1) as advance:
            advance(start_from(Path(experiment.init), network))
    return TrainingState()


def _validated(network: Network, samples: Samples) -> dict[str, float]:
    """Loss and accuracy on the validation samples, if there are any."""
    if not len(samples):
        return {}
    result = evaluate(network, samples)
    return {"validation_loss": result["loss"], "validation_accuracy": result["accuracy"]}


def _note(record: dict[str, Any]) -> str:
    """What progress says of an epoch."""
    note = f"loss {record['train_loss']:.3f}"
    if "validation_accuracy" in record:
        note += f"  validation {record['validation_accuracy']:.2%}"
    return note


def _keep(record: dict[str, Any], state: TrainingState, network: Network, directory: Path) -> None:
    """Note the epoch; keep its network if its validation accuracy (then loss) is the best yet."""
    best = state.history[state.best_epoch - 1] if state.best_epoch else None
    state.history.append(record)
    if best is None or _rank(record) > _rank(best):
        state.best_epoch = record["epoch"]
        save(network, directory / BEST, extra={"metrics": record})


def _rank(record: dict[str, Any]) -> tuple[float, float]:
    """The better epoch's is the greater; without validation samples the later one's."""
    if "validation_accuracy" not in record:
        return float(record["epoch"]), 0.0
    return record["validation_accuracy"], -record["validation_loss"]


def _write_metrics(directory: Path, history: list[dict[str, Any]], tensorboard: bool) -> None:
    with replacing(directory / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
    if tensorboard:
        _log_tensorboard(directory / "tensorboard", history[-1])


def _log_tensorboard(directory: Path, record: dict[str, Any]) -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "hardware.tensorboard needs TensorBoard: pip install 'spikefold[tensorboard]'"
        ) from error
    with SummaryWriter(str(directory)) as writer:
        for key, value in record.items():
            writer.add_scalar(key, value, record["epoch"])
