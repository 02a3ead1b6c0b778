"""Every recipe builds, trains two steps on made-up data of its shape, folds and verifies."""

import dataclasses
from pathlib import Path

import pytest
import torch

import spikefold as sf
from spikefold import training
from spikefold.data import DATASETS, Dataset, TensorSamples
from spikefold.errors import ConfigError
from spikefold.recipes import RECIPES, find_recipe

SHAPES = {
    "digits": (1, 8, 8),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "nmnist": (6, 2, 34, 34),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_two_steps_folds_and_verifies(name: str, tmp_path: Path) -> None:
    experiment = RECIPES[name].experiment
    shape = SHAPES[experiment.data.name]
    made = TensorSamples(torch.rand(8, *shape), torch.arange(8) % 4)
    dataset = Dataset(name, 10, made, made, made)
    short = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, width=experiment.model.width / 16),
        optimizer=dataclasses.replace(experiment.optimizer, epochs=1, batch_size=4),
        hardware=training.HardwareConfig(),
    )
    network = training.train(short, dataset, tmp_path)
    record = sf.verify(network, sf.fold(network), made.batches(4))
    assert record.mismatches == 0
    assert record.samples == 8
    assert experiment.data.name in DATASETS


def test_the_paper_rows_have_the_papers_settings() -> None:
    experiment = find_recipe("cifar10-resnet20-t4").experiment
    assert experiment.model.steps == 4
    assert (experiment.model.decay, experiment.model.threshold) == (0.25, 0.5)
    config = experiment.optimizer
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.1, 0.9, 1e-4)
    assert (config.epochs, config.batch_size) == (400, 128)
    augmentation = experiment.data.augmentation
    assert (augmentation.crop_padding, augmentation.flip, augmentation.cutout) == (4, True, 16)


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fashion-mnist'"):
        find_recipe("fashion_mnist")
