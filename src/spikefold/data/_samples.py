"""What a data set is, and how it is split."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from spikefold.errors import DataError

SplitName = Literal["train", "validation", "test"]


class Samples(ABC):
    """Images or frames with their labels, wherever they are kept.

    Attributes:
        labels: class of each sample, `[N]`.
    """

    labels: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one sample: `(C, H, W)` of an image, `(T, C, H, W)` of frames."""

    @abstractmethod
    def read(self, chosen: Int64[Tensor, "B"]) -> Float[Tensor, "..."]:
        """Some samples as a batch: images `[B, C, H, W]` in [0, 1], frames `[T, B, C, H, W]`.

        Arguments:
            chosen: places of the samples.
        """

    @abstractmethod
    def subset(self, chosen: Int64[Tensor, "M"]) -> "Samples":
        """The samples at these places."""

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in order, or shuffled if there is a generator; the last one may be smaller.

        Arguments:
            size: samples a batch.
            generator: source of the order.
        """
        for chosen in self.order(generator).split(size):
            yield self.read(chosen), self.labels[chosen]

    def order(self, generator: torch.Generator | None) -> Int64[Tensor, "N"]:
        """The places in the order in which `batches` reads them."""
        if generator is None:
            return torch.arange(len(self))
        return torch.randperm(len(self), generator=generator)


@dataclass(frozen=True)
class TensorSamples(Samples):
    """Samples held in memory.

    Arguments:
        inputs: images `[N, C, H, W]` or frames `[N, T, C, H, W]`, float32 or uint8.
        labels: class of each, `[N]`.
        scale: what a stored value is multiplied by (1 / 255 for uint8 images).
    """

    inputs: Shaped[Tensor, "N ..."]
    labels: Int64[Tensor, "N"]
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.inputs.shape[1:])

    def read(self, chosen: Int64[Tensor, "B"]) -> Float[Tensor, "..."]:
        """Some samples as a batch; time comes first."""
        batch = self.inputs[chosen].float()
        if self.scale != 1:
            batch = batch * self.scale
        return batch.transpose(0, 1) if batch.ndim == 5 else batch

    def subset(self, chosen: Int64[Tensor, "M"]) -> "TensorSamples":
        """The samples at these places."""
        return TensorSamples(self.inputs[chosen], self.labels[chosen], self.scale)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test samples of one data set.

    Validation is for choosing, test for reporting.

    Attributes:
        notes: what a reader of results must know about the samples, if anything.
    """

    name: str
    classes: int
    train: Samples
    validation: Samples
    test: Samples
    notes: str = ""

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
