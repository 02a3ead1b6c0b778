"""Constants of a layer are plain data; surrogates of one's own work in every respect."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.dynamics import SURROGATES, register_surrogate
from spikefold.errors import ConfigError, FileFormatError


@dataclass(frozen=True)
class Box(sf.Surrogate):
    """A surrogate as a user writes one."""

    name: ClassVar[str] = "box"
    half: float = 0.7

    def derivative(self, z: Tensor) -> Tensor:
        return (z.abs() < self.half).to(z.dtype) / (2 * self.half)


class NoFields(sf.Surrogate):
    """Not a dataclass: a file could not say its parameter."""

    name = "no-fields"

    def __init__(self) -> None:
        vars(self)["k"] = 3.0

    def derivative(self, z: Tensor) -> Tensor:
        return z


@dataclass(frozen=True)
class NoName(sf.Surrogate):
    def derivative(self, z: Tensor) -> Tensor:
        return z


@dataclass(frozen=True)
class NoDerivative(sf.Surrogate):
    name: ClassVar[str] = "no-derivative"


@dataclass(frozen=True)
class OfATensor(Box):
    name: ClassVar[str] = "of-a-tensor"
    half: Any = 1.0


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": nn.Parameter(torch.tensor(0.5))}, "decay must be a plain number, got a Param"),
        ({"decay": True}, "decay must be a plain number"),
        ({"decay": "0.5"}, "decay must be a plain number, got a str"),
        ({"threshold": torch.tensor(0.5)}, "threshold must be a plain number, got a Tensor"),
        ({"surrogate": "tanh"}, r"such as sf.Tanh\(\), got 'tanh'"),
        ({"surrogate": sf.Tanh}, r"such as sf.Tanh\(\), got Tanh"),
        ({"surrogate": NoName()}, "NoName needs a name"),
        ({"surrogate": NoDerivative()}, "NoDerivative has no form and no derivative"),
        ({"surrogate": NoFields()}, "k is not a field: NoFields must be a frozen dataclass"),
        ({"surrogate": OfATensor(torch.tensor(1.0))}, "half must be a number, got a Tensor"),
        ({"detach_reset": 1}, "detach_reset must be a bool"),
    ],
)
def test_what_would_be_ignored_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sf.LIF(**settings)


@pytest.mark.usefixtures("as_user")
def test_whole_numbers_are_numbers() -> None:
    assert sf.LIF(decay=1, threshold=2).constants == sf.LIF(decay=1.0, threshold=2.0).constants


def test_a_surrogate_of_ones_own_trains_folds_and_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SURROGATES, "box", Box)  # undone at the end
    del SURROGATES["box"]
    neuron = sf.Neuron(surrogate=Box(0.3))
    network = sf.models.small(in_channels=1, steps=2, width=0.25, neuron=neuron)
    x = torch.rand(4, 1, 8, 8)
    network(x).square().sum().backward()
    weight = network.features[0].connection.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    path = tmp_path / "network.safetensors"
    with pytest.raises(ConfigError, match="Box has to be registered before it can be saved"):
        sf.save(network, path)
    assert not list(tmp_path.iterdir())
    register_surrogate(Box)
    sf.save(sf.fold(network), path)
    assert sf.load(path).arguments.neuron.surrogate == Box(0.3)
    assert torch.equal(sf.load(path)(x), sf.fold(network)(x))
    del SURROGATES["box"]
    with pytest.raises(FileFormatError, match="unknown surrogate 'box'"):
        sf.load(path)


@pytest.mark.usefixtures("as_user")
def test_a_name_is_given_once() -> None:
    @dataclass(frozen=True)
    class Other(Box):
        name: ClassVar[str] = "tanh"

    with pytest.raises(ConfigError, match="surrogate 'tanh' is already registered"):
        register_surrogate(Other)
    wrong: list[tuple[Any, str]] = [
        (NoName, "name"),
        (NoDerivative, "derivative"),
        (int, "subclass"),
    ]
    for kind, message in wrong:
        with pytest.raises(ConfigError, match=message):
            register_surrogate(kind)
    assert set(SURROGATES) == {"tanh", "rectangle", "triangle", "sigmoid", "atan"}
