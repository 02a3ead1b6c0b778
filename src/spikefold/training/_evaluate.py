"""Accuracy, and statistics estimated again."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.data import Samples
from spikefold.errors import DataError, FoldError
from spikefold.folding import evaluation
from spikefold.models import Network
from spikefold.nn import FoldedLIF, Norm, copied


def like_weights(network: nn.Module, x: Tensor) -> Tensor:
    """An input in the dtype and on the device of a network's weights.

    Arguments:
        network: any.
        x: images or frames.
    """
    weight = next(network.parameters(), x)
    return x.to(weight.device, weight.dtype)


def require_classes(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that have no logit.

    Arguments:
        logits: `[N, K]`.
        labels: `[N]`.

    Raises:
        DataError: if a label is K or more.
    """
    if int(labels.max()) >= logits.shape[1]:
        raise DataError(
            f"a sample is of class {int(labels.max())}, counted from 0, but the network tells "
            f"{logits.shape[1]} classes apart"
        )


def right_and_loss(
    network: nn.Module,
    x: Tensor,
    labels: Tensor,
    confusions: Counter[tuple[int, int]] | None = None,
) -> tuple[int, float]:
    """How many of a batch a network tells rightly, and the sum of their cross entropies.

    Arguments:
        network: from images or frames to logits, in the mode in which it shall run.
        x: images or frames.
        labels: class of each sample, `[N]`.
        confusions: if given, to it are added the numbers of samples by class and predicted class.

    Raises:
        DataError: if there is a class that the network does not know.
    """
    logits = network(like_weights(network, x))
    require_classes(logits, labels)
    labels = labels.to(logits.device)
    predicted = logits.argmax(1)
    if confusions is not None:
        confusions.update(zip(labels.tolist(), predicted.tolist(), strict=True))
    return int((predicted == labels).sum()), F.cross_entropy(logits, labels, reduction="sum").item()


@torch.no_grad()
def evaluate(
    network: nn.Module,
    samples: Samples,
    batch_size: int = 128,
    on_batch: Callable[[], None] = lambda: None,
    confusions: Counter[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Accuracy and mean cross entropy over samples, in evaluation mode.

    Arguments:
        network: from images or frames to logits.
        samples: what to evaluate on.
        batch_size: how many at a time.
        on_batch: called after each batch, for progress.
        confusions: if given, to it are added the numbers of samples by class and predicted class.

    Raises:
        DataError: if there are no samples, or a class that the network does not know.
    """
    if not len(samples):
        raise DataError("evaluate: there are no samples in this split")
    correct, loss = 0, 0.0
    with evaluation(network) as network:
        for x, labels in samples.batches(batch_size):
            right, summed = right_and_loss(network, x, labels, confusions)
            correct, loss = correct + right, loss + summed
            on_batch()
    return {
        "accuracy": correct / len(samples),
        "loss": loss / len(samples),
        "correct": correct,
        "samples": len(samples),
    }


def norms_with_statistics(network: nn.Module, what: str) -> list[Any]:
    """The norms that keep running statistics.

    Arguments:
        network: any.
        what: needs them, in messages.

    Raises:
        FoldError: if there are none.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm | Norm) and "running_mean" in module._buffers
    ]
    if not norms:
        raise FoldError(f"{what}: the network has no running statistics")
    return norms


@torch.no_grad()
def recalibrate(
    network: Network,
    samples: Samples,
    batch_size: int = 128,
    *,
    on_batch: Callable[[], None] = lambda: None,
    seed: int = 0,
) -> Network:
    """A new network whose running statistics are the plain means over the samples.

    In training, statistics are a moving average with T updates a batch, in which the last time
    steps of the last batches weigh most. Here every batch and every time step counts the same:
    mean over all of them of the batch's mean and unbiased variance, all layers in one pass with
    the batch's own statistics below, as in training.

    Arguments:
        network: trained, not folded; not changed.
        samples: training samples.
        batch_size: samples a batch; a smaller last batch is left out.
        on_batch: called after each batch, for progress.
        seed: of the order: many data sets lie by class, and a batch of one class is no batch of
            training.

    Returns:
        the network with new statistics, in evaluation mode.

    Raises:
        FoldError: if the network is folded, or has no statistics, or there are fewer samples than a
            batch.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 (PreciseBN).
    """
    if any(isinstance(module, FoldedLIF) for module in network.modules()):
        raise FoldError(
            "recalibrate: the network is folded, and its thresholds belong to its statistics: "
            "recalibrate it as trained, then fold"
        )
    if len(samples) < batch_size:
        raise FoldError(
            f"recalibrate: {len(samples)} samples are less than a batch of {batch_size}"
        )
    new = copied(network)
    norms = norms_with_statistics(new, "recalibrate")
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the cumulative mean
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.zero_()
        norm.train()
    for x, labels in samples.batches(batch_size, torch.Generator().manual_seed(seed)):
        if len(labels) == batch_size:
            new(like_weights(new, x))
            on_batch()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return new.eval()
