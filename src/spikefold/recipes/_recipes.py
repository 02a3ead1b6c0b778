"""The experiments by name."""

import difflib
from dataclasses import dataclass

from spikefold.data import Augmentation
from spikefold.errors import ConfigError
from spikefold.training import (
    DataConfig,
    Experiment,
    HardwareConfig,
    ModelConfig,
    OptimizerConfig,
)


@dataclass(frozen=True)
class Recipe:
    """An experiment with a name.

    Attributes:
        name: what the command line calls it.
        summary: one line: data, network, and what was measured (or that it was not yet run).
        experiment: the full configuration.
    """

    name: str
    summary: str
    experiment: Experiment


PAPER = OptimizerConfig(epochs=400, batch_size=128)
CIFAR = Augmentation(crop_padding=4, flip=True, cutout=16)


def _paper(data: str, model: str, steps: int) -> Recipe:
    """A row of the paper's table on CIFAR, without AutoAugment, which is not there yet."""
    return Recipe(
        f"{data}-{model}-t{steps}",
        f"paper: {data}, {model}, T = {steps}, 400 epochs, without AutoAugment; not yet run",
        Experiment(
            DataConfig(data, augmentation=CIFAR),
            ModelConfig(model, steps=steps),
            PAPER,
            HardwareConfig(accelerator="auto"),
        ),
    )


# the paper's rows on static images: data set, network, numbers of steps
ROWS = (
    ("cifar10", "resnet19", (1, 2)),
    ("cifar10", "resnet20", (2, 4)),
    ("cifar10", "vgg16", (2, 4)),
    ("cifar100", "resnet19", (1, 2)),
    ("cifar100", "resnet20", (2, 4)),
    ("cifar100", "vgg16", (4,)),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "digits",
            "scikit-learn's 8x8 digits, four convolutions, T = 4: a demonstration of a minute",
            Experiment(
                DataConfig("digits", augmentation=Augmentation(crop_padding=1)),
                ModelConfig("small", steps=4),
                OptimizerConfig(epochs=30, batch_size=32),
            ),
        ),
        Recipe(
            "nmnist",
            "N-MNIST's event recordings as 6 frames, four pooled convolutions",
            Experiment(
                DataConfig("nmnist", augmentation=Augmentation(crop_padding=2)),
                ModelConfig("compact", steps=6),
                OptimizerConfig(epochs=30, batch_size=32),
            ),
        ),
        Recipe(
            "fashion-mnist",
            "Fashion-MNIST, four pooled convolutions, T = 2",
            Experiment(
                DataConfig("fashion-mnist", augmentation=Augmentation(crop_padding=1, flip=True)),
                ModelConfig("compact", steps=2),
                OptimizerConfig(epochs=8, batch_size=128),
            ),
        ),
        Recipe(
            "cifar10-small",
            "CIFAR-10, resnet20 of an eighth of the width, T = 2, few epochs: for a CPU",
            Experiment(
                DataConfig("cifar10", augmentation=Augmentation(crop_padding=4, flip=True)),
                ModelConfig("resnet20", width=0.125, steps=2),
                OptimizerConfig(epochs=5, batch_size=128),
            ),
        ),
        *(_paper(data, model, t) for data, model, steps in ROWS for t in steps),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ConfigError: if there is none; names the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(RECIPES)}"
    raise ConfigError(f"unknown recipe '{name}': {hint}")
