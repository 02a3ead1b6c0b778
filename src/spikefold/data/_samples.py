"""What a data set is, and how it is split."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from spikefold.data._frames import Framing
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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} of {self.shape})"

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

    def spread(self, count: int) -> "Samples":
        """At most so many of the samples, evenly spaced, because data often lie by class.

        Arguments:
            count: at least 1.

        Raises:
            DataError: if there are none.
        """
        if not len(self):
            raise DataError("there are no samples in this split")
        count = min(count, len(self))
        return self.subset(torch.arange(count) * len(self) // count)

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


def require_labels(labels: Int64[Tensor, "N"], classes: int, what: str) -> None:
    """Refuse labels that no class has.

    Arguments:
        labels: of samples.
        classes: their number; labels count from 0.
        what: the samples are, in messages.

    Raises:
        DataError: tells the lowest and the highest.
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"{what}: labels from {labels.min()} to {labels.max()}, but there are {classes} "
            "classes: a file is damaged, or of another data set"
        )


@dataclass(frozen=True, repr=False)
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

    Validation is for choosing, test for reporting. A split that was not asked for is empty, and so
    is validation where all samples are trained on.

    Attributes:
        classes: their number.
        notes: what a reader of results must know about the samples, if anything.
        names: of the classes, in the order of their labels; their numbers unless given.
        framing: how recordings or image files became these tensors, where there was a choice.

    Raises:
        DataError: if there are more or fewer names than classes, or labels beyond them.
    """

    name: str
    classes: int
    train: Samples
    validation: Samples
    test: Samples
    notes: str = ""
    names: tuple[str, ...] = ()
    framing: Framing | None = None

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(str(n) for n in range(self.classes)))
        if len(self.names) != self.classes:
            raise DataError(f"{self.name}: {len(self.names)} names for {self.classes} classes")
        for split in (self.train, self.validation, self.test):
            require_labels(split.labels, self.classes, self.name)

    def split(self, name: SplitName) -> Samples:
        """One of the three."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return splits[name]
