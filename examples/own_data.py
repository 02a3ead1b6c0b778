"""A data set of your own: registered, trained on, folded, proven, and evaluated in a new process.

python examples/own_data.py [FOLDER]

The command line takes it as well, with the settings of a file:

cd examples && spikefold --import own_data run own_recipe.toml
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

import spikefold as sf

CLASSES = ("disc", "frame", "cross")


def draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images `[N, 1, 16, 16]` of shapes at random places, with noise; and their classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    row, column = torch.randint(5, 11, (2, count, 1, 1), generator=generator)
    y, x = torch.arange(16).view(1, 16, 1) - row, torch.arange(16).view(1, 1, 16) - column
    shapes = (x * x + y * y <= 16, x.abs().maximum(y.abs()) == 4, (x == y) | (x == -y))
    images = torch.stack(shapes)[labels, torch.arange(count)].float().unsqueeze(1)
    noise = torch.rand(images.shape, generator=generator)
    return 0.5 * images + 0.5 * noise, labels


def shapes(root: Path | None) -> sf.data.Parts:
    """What the data set consists of; read from `root`, if it lies in files."""
    return sf.data.Parts(
        CLASSES,
        train=lambda: sf.data.TensorSamples(*draw(900, seed=0)),
        test=lambda: sf.data.TensorSamples(*draw(300, seed=1)),
    )


sf.data.register(sf.data.DatasetInfo("shapes", "1,200 gray images 16x16 of shapes", load=shapes))


def main(folder: Path) -> None:
    """From training to a file that another process reads."""
    experiment = sf.training.Experiment(
        sf.training.DataConfig("shapes", augmentation=sf.data.Augmentation(flip=True)),
        sf.training.ModelConfig("small", sf.models.Options(width=0.5, steps=2)),
        sf.training.OptimizerConfig(epochs=5, batch_size=32),
    )
    dataset = sf.data.load_dataset("shapes")
    network = sf.training.train(experiment, dataset, folder / "run")
    folded = sf.fold(network)
    record = sf.verify(network, folded, dataset.test.batches(100))
    print(record)
    assert record.mismatches == 0
    sf.save(folded, folder / "shapes.safetensors")
    words = [sys.executable, __file__, "evaluate", str(folder / "shapes.safetensors")]
    subprocess.run(words, check=True)


def evaluate(path: Path) -> None:
    """What a new process sees of the file."""
    result = sf.training.evaluate(sf.load(path), sf.data.load_dataset("shapes", only="test").test)
    print(f"read again: {result['correct']} of {result['samples']} test images right")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["evaluate", path]:
            evaluate(Path(path))
        case words:
            main(Path(*words[:1]))
