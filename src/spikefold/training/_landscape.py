"""The loss around a trained network, along filter-normalized random directions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from spikefold.data import Samples
from spikefold.errors import ConfigError, DataError
from spikefold.nn import copied
from spikefold.ranges import require_within
from spikefold.records import finite
from spikefold.training._evaluate import norms_with_statistics, right_and_loss
from spikefold.training._optimizer import connection_weights


@dataclass(frozen=True)
class LandscapeConfig:
    """Where around a network the loss is taken.

    Arguments:
        two: along two directions, at every point of a grid; else along one.
        points: on a direction; odd, so that the network itself is the one in the middle.
        reach: distance of the outermost points; at 1 a filter has been changed by as much as it is
            long.
        seed: of the directions: the same ones for all networks whose convolutions and linear
            layers have the same shapes.
        batch_statistics: normalize by each batch's own statistics, as training does, not by the
            trained ones, with which MPBN is constant: its landscape is then that of its fold.
    """

    two: bool = False
    points: int = 21
    reach: float = 1.0
    seed: int = 0
    batch_statistics: bool = False

    def __post_init__(self) -> None:
        require_within("landscape", self, points="[3, 10001]", reach="(0, 1000]", seed="[0, 1e12]")
        if self.points % 2 == 0:
            raise ConfigError(
                f"landscape: points must be odd, so that the network itself is one of them, got "
                f"{self.points}"
            )

    @property
    def distances(self) -> list[float]:
        """Of the points on a direction; the middle one is 0."""
        half = self.points // 2
        return [self.reach * place / half for place in range(-half, half + 1)]

    @property
    def step(self) -> float:
        """From a point to the next."""
        return self.reach / (self.points // 2)

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each direction."""
        return (self.points, self.points) if self.two else (self.points,)

    @property
    def total(self) -> int:
        """Points in all."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """The record of `landscape`.

    Attributes:
        config: where the loss was taken.
        loss: mean cross entropy, `[points]` or `[points, points]` (the first direction first).
        accuracy: of the same shape.
        samples: how many were run at each point.
        moved: numbers that the directions change.
        parameters: all that the network has learnt.
    """

    config: LandscapeConfig
    loss: Tensor
    accuracy: Tensor
    samples: int
    moved: int
    parameters: int

    @property
    def centre(self) -> tuple[float, float]:
        """Loss and accuracy of the network itself."""
        place = (self.config.points // 2,) * self.loss.ndim
        return self.loss[place].item(), self.accuracy[place].item()

    @property
    def sharpness(self) -> float:
        """100 (max L - L(0)) / (1 + L(0)), in percent.

        Source: Keskar et al., "On Large-Batch Training for Deep Learning", ICLR 2017, metric 2.1;
        with the points here in the place of a box.
        """
        loss, _ = self.centre
        return 100 * (self.loss.max().item() - loss) / (1 + loss)

    @property
    def curvature(self) -> list[float]:
        """(L(-d) - 2 L(0) + L(d)) / d² along each direction, d apart."""
        middle, step = self.config.points // 2, self.config.step
        lines = [self.loss] if self.loss.ndim == 1 else [self.loss[:, middle], self.loss[middle]]
        around = [line[middle - 1 : middle + 2].tolist() for line in lines]
        return [(low - 2 * here + high) / step**2 for low, here, high in around]

    @property
    def slope(self) -> float:
        """The largest |L(a) - L(b)| / d of neighbours a, b on a direction, d apart.

        An estimate from below of the Lipschitz constant that is said to fall with normalization.

        Source: Santurkar et al., "How Does Batch Normalization Help Optimization?", NeurIPS 2018.
        """
        axes = range(self.loss.ndim)
        largest = max(self.loss.diff(dim=axis).abs().max().item() for axis in axes)
        return largest / self.config.step

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON record; what is not finite is None."""
        loss, accuracy = self.centre
        record = {
            "distances": self.config.distances,
            "loss": self.loss.tolist(),
            "accuracy": self.accuracy.tolist(),
            "centre": {"loss": loss, "accuracy": accuracy},
            "sharpness": self.sharpness,
            "curvature": self.curvature,
            "slope": self.slope,
            "samples": self.samples,
            "seed": self.config.seed,
            "batch_statistics": self.config.batch_statistics,
            "moved": self.moved,
            "parameters": self.parameters,
        }
        plain: dict[str, Any] = finite(record)
        return plain


@torch.no_grad()
def landscape(
    network: nn.Module,
    samples: Samples,
    config: LandscapeConfig = LandscapeConfig(),
    batch_size: int = 128,
    on_point: Callable[[], None] = lambda: None,
) -> Landscape:
    """Loss and accuracy of a network whose weights are moved along random directions.

        L(a, b) = loss(w + a d + b e),  d_i = |w_i| r_i / |r_i| for each filter w_i, r ~ N(0, 1)

    A filter is an output channel of a convolution or a row of a linear layer. Everything else
    stays: biases, norms after connections, MPBN's parameters, a learnt decay; and the running
    statistics, by which the network is evaluated at every point. So it is in the source. By
    `config.batch_statistics` each batch's own are taken, in shuffled batches, of which a smaller
    last one is left out.

    Arguments:
        network: trained; not changed.
        samples: on which the loss is taken.
        config: directions, points and statistics.
        batch_size: samples at a time.
        on_point: called after each point of each batch, for progress.

    Raises:
        DataError: if there are no samples (with batch statistics: less than a batch), a class that
            the network does not know, or the loss of the network itself is not finite.
        ConfigError: if there is nothing to move, or a weight is computed from other parameters.
        FoldError: if there are no statistics of batches, because all norms are folded and fused.

    Source: Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape of Neural Nets",
    NeurIPS 2018, section 4.
    """
    moving = copied(network).eval()
    if config.batch_statistics:
        for norm in norms_with_statistics(moving, "landscape"):
            norm.train()
    path = _Path(moving, config)
    batches = _batches(samples, config, batch_size)
    (accuracy, loss), count = _means(moving, path, batches, on_point)
    record = Landscape(
        config=config,
        loss=loss,
        accuracy=accuracy,
        samples=count,
        moved=sum(weight.numel() for weight in path.weights),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    if not math.isfinite(record.centre[0]):
        raise DataError(
            f"landscape: the loss of the network itself is {record.centre[0]}: nothing around it "
            "can be compared with that"
        )
    return record


def _means(
    network: nn.Module,
    path: "_Path",
    batches: Iterator[tuple[Tensor, Tensor]],
    on_point: Callable[[], None],
) -> tuple[Tensor, int]:
    """Accuracy and loss at all points, `[2, *shape]`, and of how many samples they are."""
    config = path.config
    points = list(product(config.distances, repeat=len(config.shape)))
    count, sums = 0, torch.zeros(2, len(points), dtype=torch.float64)
    # each batch is read once, and goes to all points
    for x, labels in batches:
        count += len(labels)
        for place, distances in enumerate(points):
            path.move(distances)
            sums[:, place] += torch.tensor(right_and_loss(network, x, labels), dtype=torch.float64)
            on_point()
    return (sums / count).view(2, *config.shape), count


def _batches(
    samples: Samples, config: LandscapeConfig, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, the same at each point."""
    if not len(samples):
        raise DataError("landscape: there are no samples in this split")
    if not config.batch_statistics:
        return samples.batches(batch_size)
    if len(samples) < batch_size:
        raise DataError(
            f"landscape: {len(samples)} samples are less than a batch of {batch_size}, of which "
            "the statistics shall be"
        )
    # many data sets lie by class, and a batch of one class is no batch of training
    shuffled = samples.batches(batch_size, torch.Generator().manual_seed(config.seed))
    return (batch for batch in shuffled if len(batch[1]) == batch_size)


class _Path:
    """A network's weights, and where they go.

    Arguments:
        network: whose weights are moved.
        config: says how many directions, and of which seed.
    """

    def __init__(self, network: nn.Module, config: LandscapeConfig) -> None:
        weights = connection_weights(network)
        if not weights:
            raise ConfigError("landscape: the network has no convolution or linear layer to move")
        for name, weight in weights.items():
            if not isinstance(weight, nn.Parameter):
                raise ConfigError(
                    f"landscape: layer '{name}': its weight is computed from other parameters and "
                    "cannot be moved: torch.nn.utils.parametrize.remove_parametrizations makes it "
                    "one"
                )
        self.config, self.weights = config, list(weights.values())
        self.centre = [weight.clone() for weight in self.weights]
        generator = torch.Generator().manual_seed(config.seed)
        self.directions = [
            [filter_normalized(weight, generator) for weight in self.centre] for _ in config.shape
        ]

    def move(self, distances: Sequence[float]) -> None:
        """Put the weights at these distances from where they were, one a direction."""
        for place, weight in enumerate(self.weights):
            weight.copy_(self.centre[place])
            for direction, distance in zip(self.directions, distances, strict=True):
                weight.add_(direction[place], alpha=distance)


def filter_normalized(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction, each filter of which is as long as the weight's.

    Arguments:
        weight: `[filters, ...]`.
        generator: on the CPU, so that the direction is the same on every device.
    """
    drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return (drawn * (_lengths(weight.cpu().double()) / _lengths(drawn))).to(weight)


def _lengths(weight: Tensor) -> Tensor:
    """Of the filters, `[filters, 1, ...]`."""
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
