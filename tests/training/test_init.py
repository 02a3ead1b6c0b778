"""Training that starts from trained weights."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import spikefold as sf
from spikefold import training
from spikefold.data import Dataset, load_dataset
from spikefold.errors import ConfigError, FileFormatError
from spikefold.models import Options
from spikefold.training import Experiment, HardwareConfig, ModelConfig, OptimizerConfig
from spikefold.training._init import start_from

# too slow to change anything that float32 can hold, so that the start is what is left
STILL = Experiment(
    model=ModelConfig("small", Options(width=0.1, steps=2)),
    optimizer=OptimizerConfig(1, 512, learning_rate=1e-30, weight_decay=0.0, momentum=0.0),
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def base(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network's file."""
    directory = tmp_path_factory.mktemp("base")
    optimizer = OptimizerConfig(1, 64)
    training.train(dataclasses.replace(STILL, optimizer=optimizer), digits, directory)
    return directory / "best.safetensors"


class Notes:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[training.Advance]:
        yield lambda note="": self.said.append(f"{name}: {note}")


def few(digits: Dataset, classes: int) -> Dataset:
    """The first classes only."""
    parts = {
        name: digits.split(name).subset((digits.split(name).labels < classes).nonzero().flatten())  # type: ignore[arg-type]
        for name in ("train", "validation", "test")
    }
    return dataclasses.replace(digits, classes=classes, names=digits.names[:classes], **parts)


def test_it_starts_from_the_weights_of_the_file(
    digits: Dataset, base: Path, tmp_path: Path
) -> None:
    notes = Notes()
    experiment = dataclasses.replace(STILL, init=str(base), seed=5)
    training.train(experiment, digits, tmp_path, progress=notes)
    assert notes.said[0] == f"init: weights of {base}, with its readout of 10 classes"
    start, now = sf.load(base), sf.load(tmp_path / "last.safetensors")
    for (name, one), two in zip(start.named_parameters(), now.parameters(), strict=True):
        assert torch.equal(one, two), name
    other = experiment.build(digits)  # not by chance: its own first weights are others
    assert not torch.equal(other.classifier.weight, now.classifier.weight)
    assert Experiment.load(tmp_path / "config.json") == experiment
    # statistics too: those of the file, moved by an epoch of three batches
    key = "features.0.norm.num_batches_tracked"
    assert now.state_dict()[key] == start.state_dict()[key] + 3


def test_another_number_of_classes_gets_a_new_readout(
    digits: Dataset, base: Path, tmp_path: Path
) -> None:
    notes, experiment = Notes(), dataclasses.replace(STILL, init=str(base), seed=5)
    three = few(digits, 3)
    training.train(experiment, three, tmp_path, progress=notes)
    assert notes.said[0] == (
        f"init: weights of {base}, but a new readout: 3 classes where there were 10"
    )
    start, now = sf.load(base), sf.load(tmp_path / "last.safetensors")
    fresh = experiment.build(three).classifier
    assert torch.equal(now.classifier.weight, fresh.weight)
    for (name, one), two in zip(
        start.features.named_parameters(), now.features.parameters(), strict=True
    ):
        assert torch.equal(one, two), name


def test_float64_weights_stay_as_they_are(digits: Dataset, tmp_path: Path) -> None:
    network = STILL.build(digits).double()
    exact = network.classifier.weight.data.uniform_(-1, 1).clone()
    sf.save(network, tmp_path / "base.safetensors")
    experiment = dataclasses.replace(
        STILL,
        init=str(tmp_path / "base.safetensors"),
        hardware=HardwareConfig(precision="float64"),
        optimizer=dataclasses.replace(STILL.optimizer, ema_decay=0.5),
    )
    trained = training.train(experiment, digits, tmp_path / "run")
    assert (exact != exact.float().double()).any()
    assert torch.equal(trained.classifier.weight, exact)


def test_what_may_differ(base: Path) -> None:
    """Constants that only training sees, and steps where nothing is of a step."""
    neuron = sf.Neuron(surrogate=sf.Atan(), detach_reset=True)
    network = sf.models.small(10, in_channels=1, image_size=16, width=0.1, steps=7, neuron=neuron)
    assert "10 classes" in start_from(base, network)
    assert network.arguments.steps == 7
    assert torch.equal(network.classifier.weight, sf.load(base).classifier.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "none"}, "does not fit: norm is mpbn there, none here$"),
        ({"width": 0.2, "in_channels": 3},
         "in_channels is 1 there, 3 here, width is 0.1 there, 0.2 here$"),
        ({"learn_decay": "layer"}, "learn_decay is no there, layer here"),
        ({"standardize": True}, "standardize is False there, True here"),
        ({"neuron": sf.Neuron(0.5, 1.0, "soft")},
         "decay is 0.25 there, 0.5 here, reset is hard there, soft here, threshold is 0.5 there, "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(changes: dict, message: str, base: Path) -> None:
    arguments = {"in_channels": 1, "image_size": 8, "width": 0.1, "steps": 2, **changes}
    network = sf.models.small(10, **arguments)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ConfigError, match=message) as caught:
        start_from(base, network)
    assert str(caught.value).startswith(f"init: {base} ")
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_what_is_no_start_leaves_nothing(digits: Dataset, base: Path, tmp_path: Path) -> None:
    folded = tmp_path / "folded.safetensors"
    sf.save(sf.fuse_conv_bn(sf.fold(sf.load(base))), folded)
    other = tmp_path / "other.safetensors"
    sf.save(sf.models.compact(in_channels=1, width=0.1, steps=2), other)
    element = tmp_path / "element.safetensors"
    arguments = {"in_channels": 1, "width": 0.1, "steps": 2, "norm": "mpbn-element"}
    sf.save(sf.models.small(10, image_size=16, **arguments), element)
    for path, changes, error, message in (
        (folded, {}, ConfigError, r"changed after training \(fold, fuse_conv_bn\): take the net"),
        (other, {}, ConfigError, "is a compact, not a small"),
        (element, {"norm": "mpbn-element"}, ConfigError,
         r"features.0.lif.norm.\w+ is \[3, 16, 16\] there, \[3, 8, 8\] here"),
        (tmp_path / "none", {}, FileFormatError, "no such file"),
    ):  # fmt: skip
        options = dataclasses.replace(STILL.model.options, **changes)
        model = dataclasses.replace(STILL.model, options=options)
        experiment = dataclasses.replace(STILL, init=str(path), model=model)
        with pytest.raises(error, match=message) as caught:
            training.train(experiment, digits, tmp_path / "run")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
