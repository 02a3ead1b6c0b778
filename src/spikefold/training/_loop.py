"""The training loop, on Lightning Fabric."""

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from spikefold.data import Dataset, Samples
from spikefold.errors import ConfigError, DataError
from spikefold.models import Network
from spikefold.nn import synchronize_statistics
from spikefold.records import BEST, CONFIG, LAST, METRICS, finite
from spikefold.registry import IMPORTED, import_extension
from spikefold.replacing import replacing
from spikefold.saving import Stored, load, locked, save
from spikefold.training._checkpoint import (
    TrainingState,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from spikefold.training._config import Experiment
from spikefold.training._epoch import Learner, require_statistics, train_epoch
from spikefold.training._evaluate import evaluate
from spikefold.training._init import start_from
from spikefold.training._optimizer import learning_rate, make_average, make_optimizer
from spikefold.training._processes import agreed, is_launched, launch
from spikefold.training._progress import Progress, Silent
from spikefold.training._resume import require_continued

if TYPE_CHECKING:
    import lightning_fabric


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
    # Bound here, because Fabric takes dataclasses among a function's arguments apart.
    work = partial(
        _train,
        experiment=experiment,
        dataset=dataset,
        directory=directory,
        resume=resume,
        progress=progress or Silent(),
        recipe=recipe,
        extensions=tuple(IMPORTED),
    )
    with locked(directory):
        best = launch(experiment.hardware, work)
    return load(directory / BEST) if best is None else best


def _train(
    fabric: "lightning_fabric.Fabric",
    experiment: Experiment,
    dataset: Dataset,
    directory: Path,
    resume: bool,
    progress: Progress,
    recipe: str | None,
    extensions: tuple[str, ...],
) -> Network | None:
    """What each process does; the first one evaluates, reads and writes.

    Returns:
        the best network; none in a process of several that this program started.
    """
    # What this process registers, if it is a new one.
    for module in extensions:
        import_extension(module)
    shown = progress if fabric.is_global_zero else Silent()
    learner = _learner(fabric, experiment, dataset)
    begin = partial(_begin, learner, experiment, directory, resume, recipe, shown)
    stored = agreed(fabric, begin)
    state = TrainingState()
    if stored is not None:
        state = restore_checkpoint(stored, learner.network, learner.optimizer, learner.average)
        if fabric.is_global_zero:
            # What stands in the checkpoint is whole; a kill may have left less in the file.
            _write_metrics(directory, state.history, tensorboard=False)
    epochs = experiment.optimizer.epochs
    with shown.task("train", epochs, done=state.epoch) as advance:
        for epoch in range(state.epoch, epochs):
            started = time.perf_counter()
            record = _learn(learner, dataset, experiment, epoch, shown)
            state.epoch = epoch + 1
            if fabric.is_global_zero:
                record |= _validated(learner.chosen, dataset.validation)
                record["seconds"] = round(time.perf_counter() - started, 3)
                _keep(record, state, learner, directory)
                _write_metrics(directory, state.history, experiment.hardware.tensorboard)
                advance(_note(record))
            fabric.barrier()
    best = agreed(fabric, partial(load, directory / BEST)) if is_launched() else None
    # A process that ended first without this could abort the other's threads.
    if fabric.world_size > 1:
        fabric.barrier()
        distributed.destroy_process_group()
    return best


def _learner(
    fabric: "lightning_fabric.Fabric", experiment: Experiment, dataset: Dataset
) -> Learner:
    """Network and optimizer, as each process has them before the first epoch."""
    config, processes = experiment.optimizer, fabric.world_size
    if config.batch_size < processes or len(dataset.train) < processes:
        raise DataError(f"fewer samples a batch than the {processes} processes")
    network = experiment.build(dataset)
    if processes > 1 and experiment.hardware.synchronize:
        network = synchronize_statistics(network)
    else:
        require_statistics(network, dataset, experiment, fabric.world_size)
    if experiment.hardware.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, config)
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    average = make_average(network, config)
    return Learner(fabric, network, wrapped, optimizer, wrapped_optimizer, average)


def _begin(
    learner: Learner,
    experiment: Experiment,
    directory: Path,
    resume: bool,
    recipe: str | None,
    shown: Progress,
) -> Stored[Network] | None:
    """The checkpoint to go on from, or None; a new run's first files are written."""
    last, config = directory / LAST, directory / CONFIG
    goes_on = resume and last.exists()
    if goes_on:
        require_continued(Experiment.load(config), experiment, config)
    elif experiment.init is not None:
        with shown.task("init", 1) as advance:
            advance(start_from(Path(experiment.init), learner.network))
    experiment.save(config, recipe)
    if not goes_on:
        _save(learner, TrainingState(), directory)
    # Others have the weights to start from by the checkpoint only.
    return read_checkpoint(last, learner.network) if goes_on or experiment.init else None


def _save(learner: Learner, state: TrainingState, directory: Path) -> None:
    save_checkpoint(directory / LAST, learner.network, learner.optimizer, state, learner.average)


def _learn(
    learner: Learner, dataset: Dataset, experiment: Experiment, epoch: int, shown: Progress
) -> dict[str, Any]:
    """One pass over the training samples, and its record."""
    config = experiment.optimizer
    rate = learning_rate(config, epoch)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    batches = math.ceil(len(dataset.train) / config.batch_size)
    with shown.task(f"epoch {epoch + 1}", batches) as advance:
        result = train_epoch(learner, dataset, experiment, epoch, advance)
    return {
        "epoch": epoch + 1,
        "learning_rate": rate,
        "train_loss": result["loss"],
        "train_accuracy": result["accuracy"],
    }


def _validated(network: Network, samples: Samples) -> dict[str, float]:
    """Loss and accuracy on the validation samples, if there are any."""
    if not len(samples):
        return {}
    result = evaluate(network, samples)
    return {"validation_loss": result["loss"], "validation_accuracy": result["accuracy"]}


def _note(record: dict[str, Any]) -> str:
    """What progress says about an epoch."""
    note = f"loss {record['train_loss']:.3f}"
    if "validation_accuracy" in record:
        note += f"  validation {record['validation_accuracy']:.2%}"
    return note


def _keep(record: dict[str, Any], state: TrainingState, learner: Learner, directory: Path) -> None:
    """Note the epoch; keep its network if its validation accuracy (then loss) is the best yet."""
    best = state.history[state.best_epoch - 1] if state.best_epoch else None
    state.history.append(record)
    if best is None or _rank(record) > _rank(best):
        state.best_epoch = record["epoch"]
        save(learner.chosen, directory / BEST, extra={"metrics": record})
    _save(learner, state, directory)


def _rank(record: dict[str, Any]) -> tuple[float, float]:
    """The better epoch's is the greater; without validation samples the later one's."""
    if "validation_accuracy" not in record:
        return float(record["epoch"]), 0.0
    return record["validation_accuracy"], -record["validation_loss"]


def _write_metrics(directory: Path, history: list[dict[str, Any]], tensorboard: bool) -> None:
    with replacing(directory / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(finite(record)) + "\n" for record in history))
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
