"""The experiments by name."""

import difflib
from dataclasses import dataclass

from spikefold.data import Augmentation
from spikefold.errors import ConfigError
from spikefold.training import DataConfig, Experiment, ModelConfig, OptimizerConfig


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
            "N-MNIST's event recordings as 6 frames, four narrow convolutions",
            Experiment(
                DataConfig("nmnist", augmentation=Augmentation(crop_padding=2)),
                ModelConfig("small", width=0.5, steps=6),
                OptimizerConfig(epochs=30, batch_size=32),
            ),
        ),
        Recipe(
            "fashion-mnist",
            "Fashion-MNIST, four narrow convolutions, T = 2",
            Experiment(
                DataConfig("fashion-mnist", augmentation=Augmentation(crop_padding=1, flip=True)),
                ModelConfig("small", width=0.5, steps=2),
                OptimizerConfig(epochs=8, batch_size=128),
            ),
        ),
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
