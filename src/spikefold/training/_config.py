"""The full configuration of a training run, typed; plain data on disk."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from spikefold.data import Augmentation, Dataset, Samples, spec_of
from spikefold.dynamics import Neuron
from spikefold.errors import ConfigError
from spikefold.models import MODELS, Arguments, Network, Norm, Options, Standardize, Task, build
from spikefold.plain import flat, from_plain, to_plain
from spikefold.ranges import require_one_of, require_within
from spikefold.records import write_json

OptimizerName = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True)
class DataConfig:
    """What is learned.

    Arguments:
        name: of the data set.
        root: folder in which it lies; default: where downloads are kept.
        validation: fraction of the training samples held out for choosing the epoch; 0: all are
            trained on, and the last epoch counts.
        split_seed: decides which.
        train_fraction: share of the remaining training samples that is used, by class.
        size: height and width of event frames or of images from files; default: the data set's.
        frames_by: event frames of equal "time" or "count" of events; default: the data set's.
        sensor: width and height of the event camera; default: what the recordings state.
        augmentation: random changes to training samples.

    Raises:
        ConfigError: if a value is out of range, or none of the choices.
    """

    name: str = "digits"
    root: str | None = None
    validation: float = 0.1
    split_seed: int = 0
    train_fraction: float = 1.0
    size: int | None = None
    frames_by: Literal["time", "count"] | None = None
    sensor: tuple[int, int] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        require_within(
            "data",
            self,
            validation="[0, 1)",
            split_seed="[0, 1e18]",
            train_fraction="(0, 1]",
            size="[1, 10000]",
        )
        require_one_of("data", self)


@flat
@dataclass(frozen=True)
class ModelConfig:
    """What learns it; records and the command line have it all at one level.

    Arguments:
        name: of the model.
        options: what else is chosen of it, but what the data decide.
        neuron: constants of its neurons.

    Raises:
        ConfigError: if a value is out of range, or none of the choices.
    """

    name: str = "small"
    options: Options = Options(steps=4)
    neuron: Neuron = Neuron()

    def __post_init__(self) -> None:
        MODELS.find(self.name)
        if self.options.steps is None:
            raise ConfigError("model: steps must be given, the number of time steps")


@dataclass(frozen=True)
class OptimizerConfig:
    """How it is learned.

    Arguments:
        epochs: passes over the training samples.
        batch_size: samples a step, over all processes.
        name: "sgd", with momentum, or "adamw".
        learning_rate: at the start (after the warm-up); SGD takes about 0.1, AdamW 0.001.
        schedule: of the learning rate: "cosine", to zero over the epochs, or "constant".
        momentum: of SGD; the first beta of AdamW.
        beta2: of AdamW, the second beta.
        weight_decay: on the weights of convolutions and linear layers only; SGD takes about 1e-4,
            AdamW, which subtracts learning_rate * weight_decay of a weight, 0.01.
        warmup_epochs: epochs in which the learning rate rises linearly to its start.
        label_smoothing: share of the target spread over all classes.
        accumulate: parts in which a batch is run, its gradients added up.
        clip_norm: upper bound of the gradient's norm; 0 is none.
        ema_decay: of the moving average of the weights that is evaluated and kept; 0 is none.

    Raises:
        ConfigError: if a value is out of range, or none of the choices.
    """

    epochs: int = 20
    batch_size: int = 64
    name: OptimizerName = "sgd"
    learning_rate: float = 0.1
    schedule: Schedule = "cosine"
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-4
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    accumulate: int = 1
    clip_norm: float = 0.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        require_within(
            "optimizer",
            self,
            epochs="[1, 1000000]",
            batch_size="[1, 1000000]",
            learning_rate="(0, 1e6]",
            momentum="[0, 1)",
            beta2="[0, 1)",
            weight_decay="[0, 1e6]",
            label_smoothing="[0, 1)",
            accumulate="[1, 1000000]",
            clip_norm="[0, 1e18]",
            ema_decay="[0, 1)",
        )
        require_one_of("optimizer", self)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError("optimizer: warmup_epochs must lie in [0, epochs)")


@dataclass(frozen=True)
class HardwareConfig:
    """Where it is learned.

    Arguments:
        accelerator: "cpu", "cuda", or "auto" for whatever is there.
        devices: processes on this host, at most one a core or GPU; each gets its share of a batch.
        nodes: hosts (start each with torchrun).
        precision: "float32", mixed "bf16" or "fp16" (membrane and statistics stay float32), or
            "float64".
        oversubscribe: allow more processes than cores.
        synchronize: statistics of MPBN and batch norms over all processes, not each its own.
        channels_last: weights and images in the order N, H, W, C, in which a GPU convolves fastest
            in half precision.
        tensorboard: also log the metrics for TensorBoard.

    Raises:
        ConfigError: if a value is out of range, or none of the choices.
    """

    accelerator: Literal["cpu", "cuda", "auto"] = "cpu"
    devices: int = 1
    nodes: int = 1
    precision: Literal["float32", "bf16", "fp16", "float64"] = "float32"
    oversubscribe: bool = False
    synchronize: bool = True
    channels_last: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        require_within("hardware", self, devices="[1, 10000]", nodes="[1, 10000]")
        require_one_of("hardware", self)


@dataclass(frozen=True)
class Experiment:
    """A training run: everything that decides its result.

    Arguments:
        data: what is learned.
        model: what learns it.
        optimizer: how.
        hardware: where.
        seed: of the initial weights, the order of the samples and the augmentation.
        init: network file, as trained, whose weights it starts from; for another number of classes
            the readout is new.

    Raises:
        ConfigError: if a value is out of range, or none of the choices.
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    hardware: HardwareConfig = HardwareConfig()
    seed: int = 0
    init: str | None = None

    def __post_init__(self) -> None:
        require_within("experiment", self, seed="[0, 1e12]")

    def save(self, path: Path, recipe: str | None = None) -> None:
        """Write the configuration as JSON, and the name of its recipe."""
        about = {} if recipe is None else {"recipe": recipe}
        write_json(path, {**about, **to_plain(self)})

    @classmethod
    def load(cls, path: Path) -> "Experiment":
        """The configuration of a JSON file.

        Raises:
            ConfigError: if it cannot be read or is not a configuration.
        """
        try:
            record = json.loads(path.read_text())
            if isinstance(record, dict):
                # what a recipe says of itself besides
                record = {k: v for k, v in record.items() if k not in ("recipe", "summary")}
            return from_plain(record, cls, "configuration")
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: {error}") from error

    def build(self, dataset: Dataset, norm: Norm | None = None) -> Network:
        """The network, initialized by the seed.

        Arguments:
            dataset: decides channels, size and classes.
            norm: instead of the configured one, for a comparison.
        """
        model, shape = self.model, dataset.train.shape
        task = Task(dataset.classes, in_channels=shape[-3], image_size=shape[-1])
        options = model.options
        if norm is not None:
            options = replace(options, norm=norm, rate=None if norm == "none" else options.rate)
        torch.manual_seed(self.seed)
        network = build(model.name, Arguments(**vars(task), **vars(options), neuron=model.neuron))
        for module in network.input.modules():
            if isinstance(module, Standardize):
                module.mean, module.deviation = moments(dataset.train)
        network.input_spec = spec_of(dataset)
        return network


def moments(samples: Samples) -> tuple[Float[Tensor, "C"], Float[Tensor, "C"]]:
    """Mean and deviation of each input channel over the samples, or a random 10,000 of them.

    Arguments:
        samples: images or frames.

    Raises:
        ConfigError: if a channel is the same everywhere.
    """
    count, sums, squares = 0, torch.zeros(()), torch.zeros(())
    chosen = samples.order(torch.Generator().manual_seed(0))[:10_000]
    for places in chosen.split(500):
        values = samples.read(places).double().movedim(-3, 0).flatten(1)
        count += values.shape[1]
        sums = sums + values.sum(1)
        squares = squares + values.square().sum(1)
    mean = sums / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    if not (deviation > 0).all():
        raise ConfigError("model: standardize: an input channel is the same in all samples")
    return mean.float(), deviation.float()
