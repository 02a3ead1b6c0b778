"""Plain data: what is written comes back, old data are read, and mistakes are named."""

import dataclasses
import json
import math
from typing import Any

import pytest

import spikefold as sf
from spikefold.dynamics import SURROGATES, Atan, Neuron, Rectangle, Sigmoid, Tanh, Triangle
from spikefold.errors import ConfigError
from spikefold.models import Arguments, Options
from spikefold.plain import from_plain, to_plain
from spikefold.training import DataConfig, Experiment, ModelConfig, OptimizerConfig

SETTINGS = Experiment(
    DataConfig("cifar10", size=8, frames_by="count"),
    ModelConfig(
        "resnet20",
        Options("none", width=0.125, steps=2, learn_decay="channel", standardize=True),
        Neuron(0.75, 1.5, "soft", Atan(3.0), True),
    ),
    OptimizerConfig(epochs=12, batch_size=64),
    seed=7,
)
# `config.json` of runs made before options and constants were classes of their own
OLD = """{
  "data": {
    "name": "cifar10", "root": null, "validation": 0.1111, "split_seed": 0, "train_fraction": 1.0,
    "size": null, "frames_by": null,
    "augmentation": {"resized_crop": false, "crop_padding": 4, "flip": true, "auto_augment": false,
                     "cutout": 0, "roll": 0}
  },
  "model": {
    "name": "resnet20", "norm": "none", "width": 0.125, "steps": 2, "decay": 0.5,
    "learn_decay": "layer", "threshold": 1.5, "reset": "soft", "surrogate": "triangle",
    "detach_reset": true, "standardize": true
  },
  "optimizer": {
    "epochs": 12, "batch_size": 64, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0001,
    "warmup_epochs": 0, "label_smoothing": 0.0, "accumulate": 1, "clip_norm": 0.0, "ema_decay": 0.0
  },
  "hardware": {"accelerator": "cpu", "devices": 1, "nodes": 1, "precision": "float32",
               "synchronize": true, "tensorboard": false},
  "seed": 3
}"""


@pytest.mark.parametrize(
    "value",
    [SETTINGS, Experiment(), SETTINGS.model, Neuron(surrogate=Tanh(2.0)),
     Arguments(7, "mpbn-steps", in_channels=2, steps=3, neuron=Neuron(0.5))],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_written_comes_back(value: Any) -> None:
    text = json.dumps(to_plain(value), allow_nan=False)
    assert from_plain(json.loads(text), type(value), "text") == value


def keeps(new: Any, old: Any) -> bool:
    """Whether a record says all that an older one says."""
    if not isinstance(old, dict):
        return bool(new == old)
    return all(key in new and keeps(new[key], value) for key, value in old.items())


def test_configurations_of_earlier_runs_are_read() -> None:
    experiment = from_plain(json.loads(OLD), Experiment, "configuration")
    assert experiment.model == ModelConfig(
        "resnet20",
        Options("none", width=0.125, steps=2, learn_decay="layer", standardize=True),
        Neuron(0.5, 1.5, "soft", Triangle(1.0), True),
    )
    assert experiment.optimizer == OptimizerConfig(epochs=12, batch_size=64)
    assert (experiment.seed, experiment.data.augmentation.crop_padding) == (3, 4)
    # the names are still the same, so that records of all times meet in a table
    assert keeps(to_plain(experiment), json.loads(OLD))


def test_what_is_left_out_has_the_default_of_its_owner() -> None:
    model = from_plain({"width": 0.5, "decay": 0.75}, ModelConfig, "model")
    assert model == ModelConfig("small", Options(width=0.5, steps=4), Neuron(0.75))
    assert from_plain({}, Experiment, "configuration") == Experiment()


def test_no_two_settings_of_a_model_share_a_name() -> None:
    """At one level one of them would be lost."""
    names = [f.name for kind in (ModelConfig, Options, Neuron) for f in dataclasses.fields(kind)]
    assert len(set(names)) == len(names)
    assert to_plain(ModelConfig()).keys() == set(names) - {"options", "neuron"}


@pytest.mark.usefixtures("as_user")
def test_a_configuration_has_a_number_of_steps() -> None:
    with pytest.raises(ConfigError, match="model: steps must be given"):
        ModelConfig(options=Options())


def test_arguments_of_files_of_format_1_are_read() -> None:
    """Their surrogates are written out."""
    surrogate = {"name": "atan", "alpha": 1.5}
    neuron = {"decay": 0.25, "threshold": 0.5, "reset": "soft", "surrogate": surrogate}
    old = {"num_classes": 4, "norm": "mpbn", "in_channels": 1, "image_size": 8, "width": 0.25,
           "steps": None, "neuron": {**neuron, "detach_reset": False}}  # fmt: skip
    expected = Arguments(
        4, in_channels=1, image_size=8, width=0.25, neuron=Neuron(reset="soft", surrogate=Atan(1.5))
    )
    assert from_plain(old, Arguments, "arguments") == expected


def test_names_of_surrogates_in_files_keep_their_meaning() -> None:
    """A file that says "tanh" means k = 3, whatever becomes of the class."""
    meaning = {
        "tanh": Tanh(3.0),
        "rectangle": Rectangle(1.0),
        "triangle": Triangle(1.0),
        "sigmoid": Sigmoid(4.0),
        "atan": Atan(2.0),
    }
    assert meaning.keys() == SURROGATES.keys()
    for name, surrogate in meaning.items():
        assert from_plain(name, sf.Surrogate, "surrogate") == surrogate
        assert to_plain(surrogate) == name
    assert to_plain(Tanh(2.0)) == {"name": "tanh", "k": 2.0}


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.widht", 2, r"unknown setting 'widht': did you mean 'width'\? @ settings.model$"),
        ("model.options", {}, r"unknown setting 'options': one of name, .* @ settings.model$"),
        ("model", [], r"expected names with values, got \[\] @ settings.model$"),
        ("model.norm", "bn", "expected one of mpbn, mpbn-element, mpbn-steps, none, got 'bn' @ "
                             "settings.model.norm$"),
        ("model.width", "0.5", "expected a value of type float, got '0.5' @ settings.model.width$"),
        ("model.steps", 2.5, "int.*, got 2.5 @ settings.model.steps$"),
        ("model.steps", True, "int.*, got True"),
        ("model.steps", None, "int.*, got None"),
        ("model.detach_reset", "no", "expected a value of type bool, got 'no'"),
        ("model.decay", 2.0, r"decay must lie in \[0, 1\], got 2.0 @ settings.model$"),
        ("model.surrogate", "relu", "unknown surrogate 'relu': one of tanh, .*model.surrogate$"),
        ("model.surrogate", ["tanh"], r"unknown surrogate \['tanh'\]"),
        ("model.surrogate", {"name": "tanh", "kk": 3.0}, "surrogate tanh: .*kk"),
        ("model.surrogate", {"name": "tanh", "k": -1.0}, "k must be positive, got -1.0"),
        ("model.surrogate", {"name": "triangle", "width": math.inf}, "width must be positive"),
        ("data.size", "8", "settings.data.size"),
        ("data.frames_by", "day", "time, count, got 'day'"),
        ("optimizer.epochs", 0, r"epochs must lie in \[1, 1000000\]"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place(path: str, value: Any, message: str) -> None:
    data = to_plain(Experiment())
    *outer, last = path.split(".")
    place = data
    for name in outer:
        place = place[name]
    place[last] = value
    with pytest.raises(ConfigError, match=message) as caught:
        from_plain(data, Experiment, "settings")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("data", [None, 5, "digits", [1]])
def test_what_is_no_configuration_at_all_is_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected names with values, got .* @ settings"):
        from_plain(data, Experiment, "settings")


def test_a_surrogate_without_defaults_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Ramp(Triangle):
        name = "ramp"
        slope: float = dataclasses.field(kw_only=True)

    with pytest.raises(ConfigError, match="Ramp has to be registered before it can be saved"):
        to_plain(Neuron(surrogate=Ramp(slope=2.0)))
    monkeypatch.setitem(SURROGATES, "ramp", Ramp)
    neuron = Neuron(surrogate=Ramp(slope=2.0))
    assert to_plain(neuron)["surrogate"] == {"name": "ramp", "width": 1.0, "slope": 2.0}
    assert from_plain(to_plain(neuron), Neuron, "neuron") == neuron
    with pytest.raises(ConfigError, match=r"surrogate ramp: .*slope"):
        from_plain("ramp", sf.Surrogate, "surrogate")
