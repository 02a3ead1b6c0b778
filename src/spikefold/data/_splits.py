"""How samples are divided: training, validation and test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Int64
from torch import Tensor

from spikefold.data._frames import Framing
from spikefold.data._samples import Samples, require_labels
from spikefold.errors import DataError

HELD_OUT = "no official test set: a tenth of each class (seed 0) is held out as the test set"


@dataclass(frozen=True)
class Parts:
    """What a data set consists of; its samples are read when they are asked for.

    Attributes:
        names: of the classes, in the order of their labels.
        train: reads the training samples, of which validation samples are held out later.
        test: reads the test samples.
        sizes: numbers of training and test samples of the whole data set, where they are known:
            what is less is noted.
        note: what else a reader of results must know.
        framing: how recordings or files become tensors, without gaps, where there is a choice.
    """

    names: tuple[str, ...]
    train: Callable[[], Samples]
    test: Callable[[], Samples]
    sizes: tuple[int, int] | None = None
    note: str = ""
    framing: Framing | None = None


def stratified_split(
    labels: Int64[Tensor, "N"], fraction: float, seed: int
) -> tuple[Int64[Tensor, "A"], Int64[Tensor, "B"]]:
    """Places of a random part and of the rest, with the same share of every class.

    Arguments:
        labels: class of each sample.
        fraction: size of the second part, in [0, 1); rounded in each class.
        seed: decides the choice.

    Returns:
        places of the rest and of the part, each in ascending order.

    Raises:
        DataError: if the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"split: the fraction must lie in [0, 1), got {fraction}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        order = torch.randperm(len(places), generator=generator)
        chosen[places[order[: round(fraction * len(places))]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def split_off(
    samples: Samples, fraction: float, seed: int, names: Sequence[str], part: str, hint: str
) -> tuple[Samples, Samples]:
    """The samples without and with only a random part, in which every class has its share.

    Arguments:
        samples: labelled by places in `names`.
        fraction: size of the part, in [0, 1); 0: nothing.
        seed: decides the choice.
        names: of the classes.
        part: what the part is for, in messages.
        hint: what would be right, in messages.

    Raises:
        DataError: if a class is left without samples in one of the two; says how many it has.
    """
    require_every_class(samples.labels, names, "training")
    kept, chosen = stratified_split(samples.labels, fraction, seed)
    if fraction:
        have = samples.labels.bincount(minlength=len(names))
        given = samples.labels[chosen].bincount(minlength=len(names))
        for wrong, left in ((given == 0, f"none for {part}"), (given == have, "none to train on")):
            if wrong.any():
                first = int(wrong.nonzero()[0])
                raise DataError(
                    f"{part}: {fraction:g} of the {have[first]} training samples of "
                    f"{_first(wrong, names)} is {given[first]}, which leaves {left}: {hint}"
                )
    return samples.subset(kept), samples.subset(chosen)


def require_every_class(labels: Int64[Tensor, "N"], names: Sequence[str], part: str) -> None:
    """Refuse labels beyond the classes, and classes that have no sample.

    Raises:
        DataError: names the first such class and tells the numbers.
    """
    missing = empty_classes(labels, names, part)
    if missing:
        raise DataError(
            f"{part}: none of the {len(labels):,} samples is of {missing}: every class needs some"
        )


def empty_classes(labels: Int64[Tensor, "N"], names: Sequence[str], part: str) -> str:
    """The classes without a sample, in words; empty if there is none.

    Raises:
        DataError: if a label lies beyond the classes.
    """
    require_labels(labels, len(names), part)
    missing = labels.bincount(minlength=len(names)) == 0
    return _first(missing, names) if missing.any() else ""


def held_out(
    whole: Callable[[], Samples], names: Sequence[str], fraction: float = 0.1
) -> tuple[Callable[[], Samples], Callable[[], Samples]]:
    """Readers of training and test samples without a test set: a share of each class is held out.

    Arguments:
        whole: reads all samples; called once.
        names: of the classes.
        fraction: for test; seed 0 decides which.
    """
    hint = "each class needs more samples, or a test set of its own"
    split = cache(lambda: split_off(whole(), fraction, 0, names, "test", hint))
    return lambda: split()[0], lambda: split()[1]


def _first(chosen: Tensor, names: Sequence[str]) -> str:
    """The first of the chosen classes, and how many more there are."""
    others = int(chosen.sum()) - 1
    more = f" (and of {others} more)" if others else ""
    return f"class '{names[int(chosen.nonzero()[0])]}'{more}"
