"""What a data set is, and how it is split."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spikefold.errors import DataError

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Samples:
    """Images (or frames) with their labels.

    Arguments:
        inputs: images `[N, C, H, W]` in [0, 1].
        labels: class of each, `[N]`.
    """

    inputs: Float[Tensor, "N ..."]
    labels: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, or shuffled if there is a generator; the last one may be smaller.

        Arguments:
            size: samples a batch.
            generator: source of the order.
        """
        order = (
            torch.arange(len(self))
            if generator is None
            else torch.randperm(len(self), generator=generator)
        )
        for chosen in order.split(size):
            yield self.inputs[chosen], self.labels[chosen]

    def subset(self, chosen: Int64[Tensor, "M"]) -> "Samples":
        """The samples at these places."""
        return Samples(self.inputs[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test samples of one data set.

    Validation is for choosing, test for reporting.
    """

    name: str
    classes: int
    train: Samples
    validation: Samples
    test: Samples

    def split(self, name: SplitName) -> Samples:
        """One of the three."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return splits[name]


def stratified_split(
    labels: Int64[Tensor, "N"], fraction: float, seed: int
) -> tuple[Int64[Tensor, "A"], Int64[Tensor, "B"]]:
    """Places of a random part and of the rest, with the same share of every class.

    Arguments:
        labels: class of each sample.
        fraction: size of the second part, in (0, 1); rounded in each class.
        seed: decides the choice.

    Returns:
        places of the rest and of the part, each in ascending order.
    """
    if not 0 < fraction < 1:
        raise DataError(f"split: the fraction must lie between 0 and 1, got {fraction}")
    generator = torch.Generator().manual_seed(seed)
    part = []
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        order = torch.randperm(len(places), generator=generator)
        part.append(places[order[: round(fraction * len(places))]])
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[torch.cat(part)] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
