"""One pass over the training samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from spikefold import dynamics
from spikefold.data import Dataset
from spikefold.errors import ConfigError, ShapeError, SpikefoldError
from spikefold.models import Network
from spikefold.nn import Call, copied, observing
from spikefold.training._config import Experiment

if TYPE_CHECKING:
    import lightning_fabric


@dataclass
class Learner:
    """What a step of training needs: the network, plain and as Fabric wraps it, and the rest."""

    fabric: "lightning_fabric.Fabric"
    network: Network
    wrapped: Any
    optimizer: torch.optim.Optimizer
    wrapped_optimizer: Any
    average: AveragedModel | None

    @property
    def chosen(self) -> Network:
        """What is evaluated and kept."""
        return self.network if self.average is None else cast(Network, self.average.module)


def train_epoch(
    learner: Learner,
    dataset: Dataset,
    experiment: Experiment,
    epoch: int,
    on_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """One pass, in an order that depends on seed and epoch only; mean loss and accuracy.

    Arguments:
        learner: changed in place.
        dataset: of which the training samples are used.
        experiment: batch size, augmentation, seed.
        epoch: from 0.
        on_batch: called after each batch, for progress.

    Raises:
        SpikefoldError: if a loss is not finite; names step and layer.
    """
    fabric, config = learner.fabric, experiment.optimizer
    learner.wrapped.train()
    # Loss, correct, samples.
    totals = torch.zeros(3, dtype=torch.float64, device=fabric.device)
    for step, (x, labels) in enumerate(_batches(learner, dataset, experiment, epoch)):
        learner.optimizer.zero_grad()
        parts = list(_parts(x, labels, config.accumulate))
        for number, (part, targets) in enumerate(parts):
            waiting = number < len(parts) - 1
            with fabric.no_backward_sync(learner.wrapped, enabled=waiting):
                logits = learner.wrapped(part)
                loss = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
                fabric.backward(loss * (len(targets) / len(labels)))
            correct, count = (logits.detach().argmax(1) == targets).sum(), len(targets)
            totals[:2] += torch.stack([loss.detach().double() * count, correct.double()])
            totals[2] += count
        what = _not_finite(totals[0], learner.network, experiment)
        if what:
            what = f"epoch {epoch + 1}, step {step + 1}: the {what} is not finite"
            raise SpikefoldError(_diagnose(what, learner, dataset, experiment, x))
        if config.clip_norm:
            fabric.clip_gradients(
                learner.wrapped, learner.wrapped_optimizer, max_norm=config.clip_norm
            )
        learner.wrapped_optimizer.step()
        if learner.average is not None:
            learner.average.update_parameters(learner.network)
        on_batch()
    totals = fabric.all_reduce(totals, reduce_op="sum")  # type: ignore[assignment]
    return {"loss": (totals[0] / totals[2]).item(), "accuracy": (totals[1] / totals[2]).item()}


def require_statistics(
    network: nn.Module, dataset: Dataset, experiment: Experiment, processes: int
) -> None:
    """Refuse batch sizes for which a layer could not take statistics.

    Arguments:
        network: that is to be trained, on the CPU; not changed.
        dataset: of which the training samples are used.
        experiment: batch size and parts.
        processes: that share a batch and have statistics of their own.

    Raises:
        ConfigError: if a process or part gets one sample, and one has a single value in a layer.
    """
    config, count = experiment.optimizer, len(dataset.train)
    for batch in {min(config.batch_size, count), count % config.batch_size} - {0}:
        share = batch // processes
        if 1 not in {len(part) for part in torch.empty(share).chunk(config.accumulate)}:
            continue
        try:
            copied(network).train()(dataset.train.read(torch.tensor([0])))
        except (ShapeError, ValueError) as error:
            raise ConfigError(
                f"optimizer: {count:,} samples in batches of {config.batch_size} (processes: "
                f"{processes}, accumulate: {config.accumulate}) leave one sample alone, which "
                f"has no statistics: choose another batch_size ({error})"
            ) from error


def _batches(
    learner: Learner, dataset: Dataset, experiment: Experiment, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of each batch, augmented, on its device.

    All processes draw the same order; each takes every n-th sample of a batch. Samples left over
    where a batch cannot be shared evenly are dropped.
    """
    fabric, samples = learner.fabric, dataset.train
    rank, processes = fabric.global_rank, fabric.world_size
    seed = experiment.seed * 1_000_003 + epoch
    order = samples.order(torch.Generator().manual_seed(seed))
    augmentation = torch.Generator().manual_seed(seed * processes + rank)
    for batch in order.split(experiment.optimizer.batch_size):
        even = len(batch) // processes * processes
        chosen = batch[:even][rank::processes]
        if len(chosen):
            x = samples.read(chosen).to(fabric.device)
            x = experiment.data.augmentation(x, augmentation)
            yield x, samples.labels[chosen].to(fabric.device)


def _parts(x: Tensor, labels: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batch in so many parts; frames `[T, N, C, H, W]` have it in the second dimension."""
    return zip(x.chunk(count, dim=x.ndim - 4), labels.chunk(count), strict=True)


def _not_finite(loss: Tensor, network: nn.Module, experiment: Experiment) -> str | None:
    """Which of loss and gradient is not finite; a GPU is waited for once."""
    finite = {"loss": torch.isfinite(loss)}
    # A neuron whose membrane is NaN falls silent, so the loss may stay finite: look at the
    # gradient too (fp16 is left to its scaler, which skips steps that overflow).
    if experiment.hardware.precision != "fp16":
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        finite["gradient"] = torch.isfinite(nn.utils.get_total_norm(grads))
    answers = torch.stack(list(finite.values())).tolist()
    return next((name for name, answer in zip(finite, answers, strict=True) if not answer), None)


def _diagnose(
    what: str, learner: Learner, dataset: Dataset, experiment: Experiment, x: Tensor
) -> str:
    """Where the first number that is not finite appeared, in a copy without other processes."""
    parameter = next(learner.network.parameters())
    copy = experiment.build(dataset).to(parameter)
    copy.load_state_dict(learner.network.state_dict())
    layer = first_non_finite_layer(copy.train(), x.to(parameter))
    config = experiment.optimizer
    return (
        f"{what}; it began in {layer}. Lower optimizer.learning-rate "
        f"({config.learning_rate}) or set optimizer.clip-norm ({config.clip_norm}); "
        "last.safetensors is from before this epoch"
    )


@torch.no_grad()
def first_non_finite_layer(network: nn.Module, x: Tensor) -> str:
    """The first layer, in firing order, whose neurons get NaN or infinity.

    Arguments:
        network: run once, in the mode it is in.
        x: images or frames.

    Returns:
        "layer 'NAME'", or "the readout" if all layers are finite.
    """
    found: list[str] = []

    def see(name: str, call: Call) -> None:
        currents, _ = dynamics.compute(call.currents)
        if not bool(torch.isfinite(currents).all()):
            found.append(f"layer '{name}'")

    with observing(network, see):
        network(x)
    return found[0] if found else "the readout"
