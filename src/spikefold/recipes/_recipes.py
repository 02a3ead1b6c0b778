"""The experiments by name."""

from dataclasses import dataclass, replace

from spikefold.data import Augmentation
from spikefold.models import Options
from spikefold.registry import Registry
from spikefold.training import (
    DataConfig,
    Experiment,
    HardwareConfig,
    ModelConfig,
    OptimizerConfig,
)

NOT_YET = "not yet run"


@dataclass(frozen=True)
class Recipe:
    """An experiment with a name; `spikefold run NAME` does all of it.

    Attributes:
        name: what the command line calls it.
        summary: one line: data, network, for what.
        experiment: the full configuration.
        measured: accuracy (mean and spread over seeds), hardware, time; or "not yet run".
    """

    name: str
    summary: str
    experiment: Experiment
    measured: str = NOT_YET


PAPER = OptimizerConfig(epochs=400, batch_size=128)
CIFAR = Augmentation(crop_padding=4, flip=True, auto_augment=True, cutout=16)
DVS = Augmentation(flip=True, roll=5)
IMAGENET = Augmentation(resized_crop=True, flip=True, color_jitter=(0.2, 0.2, 0.2, 0.1))


def _paper(
    data: str, model: str, steps: int, augmentation: Augmentation, optimizer: OptimizerConfig
) -> Recipe:
    """A row of the paper's tables."""
    return Recipe(
        f"{data}-{model}-t{steps}",
        f"paper: {data}, {model}, T = {steps}, {optimizer.epochs} epochs; for a GPU",
        Experiment(
            DataConfig(data, augmentation=augmentation),
            ModelConfig(model, Options(steps=steps, standardize=not data.endswith("dvs"))),
            optimizer,
            HardwareConfig(accelerator="auto"),
        ),
    )


# the paper's rows: data set, networks, numbers of steps, augmentation, optimizer
ROWS = (
    ("cifar10", ("resnet19",), (1, 2), CIFAR, PAPER),
    ("cifar10", ("resnet20", "vgg16"), (2, 4), CIFAR, PAPER),
    ("cifar100", ("resnet19",), (1, 2), CIFAR, PAPER),
    ("cifar100", ("resnet20",), (2, 4), CIFAR, PAPER),
    ("cifar100", ("vgg16",), (4,), CIFAR, PAPER),
    ("cifar10-dvs", ("resnet19", "resnet20"), (10,), DVS, PAPER),
    ("imagenet", ("resnet18", "resnet34"), (4,), IMAGENET, replace(PAPER, epochs=320)),
)

RECIPES: Registry[Recipe] = Registry("recipe")


def register(recipe: Recipe) -> Recipe:
    """Let the command line name a recipe of your own.

    Arguments:
        recipe: with a name of its own.

    Returns:
        the same.

    Raises:
        ConfigError: if another recipe has the name.
    """
    return RECIPES.add(recipe.name, recipe)


for _recipe in (
    Recipe(
        "digits",
        "scikit-learn's 8x8 digits, four convolutions, T = 4: a demonstration of a minute",
        Experiment(
            DataConfig("digits", augmentation=Augmentation(crop_padding=1)),
            ModelConfig("small", Options(steps=4)),
            OptimizerConfig(epochs=30, batch_size=32),
        ),
        measured="99.4 % of 359 test images, 1 seed (others: 98.9 % to 100 %); 2 min on 2 cores",
    ),
    Recipe(
        "digits-events",
        "the digits before a simulated event camera, 6 frames, four pooled convolutions",
        Experiment(
            DataConfig("digits-events", augmentation=Augmentation(crop_padding=2)),
            ModelConfig("compact", Options(steps=6)),
            OptimizerConfig(epochs=15, batch_size=32),
        ),
        measured="98.7 +- 0.8 % of 359 test images (simulated events), 5 seeds; 4 min of a core",
    ),
    Recipe(
        "nmnist",
        "N-MNIST's event recordings as 6 frames, four pooled convolutions",
        Experiment(
            DataConfig("nmnist", augmentation=Augmentation(crop_padding=2)),
            ModelConfig("compact", Options(steps=6)),
            OptimizerConfig(epochs=30, batch_size=32),
        ),
        measured="95.6 +- 1.8 % of 100 test recordings after 809, 5 seeds; 4 min of a core",
    ),
    Recipe(
        "fashion-mnist",
        "Fashion-MNIST, four pooled convolutions, T = 2",
        Experiment(
            DataConfig("fashion-mnist", augmentation=Augmentation(crop_padding=1, flip=True)),
            ModelConfig("compact", Options(steps=2)),
            OptimizerConfig(epochs=8, batch_size=128),
        ),
        measured="90.8 % of 10,000 test images, 1 seed; 24 min on 2 cores",
    ),
    Recipe(
        "cifar10-small",
        "a fifth of CIFAR-10, resnet20 of an eighth of the width, T = 2, 4 epochs: for a CPU",
        Experiment(
            DataConfig(
                "cifar10",
                train_fraction=0.2,
                augmentation=Augmentation(crop_padding=4, flip=True),
            ),
            ModelConfig("resnet20", Options(width=0.125, steps=2)),
            OptimizerConfig(epochs=4, batch_size=32, learning_rate=0.05),
        ),
        measured="31.8 +- 1.0 % of 4,500 validation images, 3 seeds; 2 min on 2 cores",
    ),
    Recipe(
        "cifar10-narrow",
        "CIFAR-10, resnet20 of an eighth of the width, T = 2, 12 epochs, as in docs/results",
        Experiment(
            DataConfig(
                "cifar10",
                # 5,000 of the 45,000 images that are left when the official test set is absent
                validation=0.1111,
                augmentation=Augmentation(crop_padding=4, flip=True),
            ),
            ModelConfig("resnet20", Options(width=0.125, steps=2)),
            OptimizerConfig(epochs=12, batch_size=64),
        ),
        measured="48.8 % of 5,000 images of the training set, 1 seed (learning rate 0.05: "
        "50.9 +- 1.1 %, 8 seeds); 15 min of a core",
    ),
    *(
        _paper(data, model, t, augmentation, optimizer)
        for data, models, steps, augmentation, optimizer in ROWS
        for model in models
        for t in steps
    ),
):
    register(_recipe)
