"""Every recipe builds, trains two steps on made-up data of its shape, folds and verifies."""

import dataclasses
from pathlib import Path

import pytest
import torch

import spikefold as sf
from spikefold import training
from spikefold.data import DATASETS, Augmentation, Dataset, Framing, TensorSamples
from spikefold.errors import ConfigError, DataError
from spikefold.models import Options
from spikefold.recipes import RECIPES, find_recipe, load_data

SHAPES = {
    "digits": (1, 8, 8),
    "fashion-mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "nmnist": (6, 2, 34, 34),
    "digits-events": (6, 2, 34, 34),
    "cifar10-dvs": (10, 2, 48, 48),
    "imagenet": (3, 224, 224),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_two_steps_folds_and_verifies(name: str, tmp_path: Path) -> None:
    experiment = RECIPES[name].experiment
    options, shape = experiment.model.options, SHAPES[experiment.data.name]
    made = TensorSamples(torch.rand(8, *shape), torch.arange(8) % 4)
    dataset = Dataset(name, 10, made, made, made)
    short = dataclasses.replace(
        experiment,
        model=dataclasses.replace(
            experiment.model, options=dataclasses.replace(options, width=options.width / 16)
        ),
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
    assert experiment.model.options == Options(steps=4, standardize=True)
    assert (experiment.model.neuron.decay, experiment.model.neuron.threshold) == (0.25, 0.5)
    config = experiment.optimizer
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.1, 0.9, 1e-4)
    assert (config.epochs, config.batch_size) == (400, 128)
    augmentation = experiment.data.augmentation
    assert augmentation == Augmentation(crop_padding=4, flip=True, auto_augment=True, cutout=16)
    events = find_recipe("cifar10-dvs-resnet19-t10").experiment
    assert events.data.augmentation == Augmentation(roll=5, flip=True)
    assert DATASETS["cifar10-dvs"].framing == Framing(10, 48, "time", sensor=(128, 128))
    images = find_recipe("imagenet-resnet18-t4").experiment
    assert images.data.augmentation == Augmentation(
        resized_crop=True, flip=True, color_jitter=(0.2, 0.2, 0.2, 0.1)
    )


def test_every_row_of_the_papers_tables_has_its_recipe() -> None:
    rows = {name for name, recipe in RECIPES.items() if recipe.summary.startswith("paper")}
    assert rows == {
        *(f"{data}-resnet19-t{t}" for data in ("cifar10", "cifar100") for t in (1, 2)),
        *(f"{data}-resnet20-t{t}" for data in ("cifar10", "cifar100") for t in (2, 4)),
        "cifar10-vgg16-t2", "cifar10-vgg16-t4", "cifar100-vgg16-t4",
        "cifar10-dvs-resnet19-t10", "cifar10-dvs-resnet20-t10",
        "imagenet-resnet18-t4", "imagenet-resnet34-t4",
    }  # fmt: skip


@pytest.mark.usefixtures("as_user")
def test_frames_are_made_for_the_steps_and_size_asked_for() -> None:
    experiment = find_recipe("digits-events").experiment
    experiment = dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, size=17, frames_by="count", train_fraction=0.25),
        model=dataclasses.replace(experiment.model, options=Options(steps=3)),
    )
    dataset = load_data(experiment)
    assert dataset.train.shape == dataset.test.shape == (3, 2, 17, 17)
    assert len(dataset.train) == pytest.approx(1295 / 4, abs=5)
    totals = dataset.test.read(torch.arange(5)).sum((2, 3, 4))
    assert (totals.amax(0) - totals.amin(0)).max() <= 2  # nearly: a pixel counts to 255
    assert "simulated" in dataset.notes
    images = dataclasses.replace(experiment.data, name="digits")
    with pytest.raises(DataError, match="digits has one form only"):
        load_data(dataclasses.replace(experiment, data=images))


def test_a_train_fraction_that_leaves_a_class_without_samples_is_refused() -> None:
    experiment = find_recipe("digits").experiment
    few = dataclasses.replace(experiment.data, train_fraction=0.003)
    with pytest.raises(DataError, match=r"train_fraction 0.003 of 1,295 training samples: none of"):
        load_data(dataclasses.replace(experiment, data=few))


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fashion-mnist'"):
        find_recipe("fashion_mnist")
