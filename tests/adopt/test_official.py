"""Checkpoints of the official MPBN code."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spikefold as sf
from spikefold.errors import AdoptError, ConfigError
from spikefold.models import Network
from spikefold.nn import Call, observing
from tests.adopt.restated import Official

TENSORS = {"resnet20": 229, "resnet19": 201, "vgg16": 158, "resnet18": 207, "resnet34": 383}


@cache
def made_up(model: str, element: bool = False) -> tuple[Official, Tensor]:
    """An official network, its checkpoint filled by a first run, and images."""
    official = Official(model, divide=16, classes=7, element=element)
    size = 16 if model in ("resnet19", "resnet20") else 32
    images = torch.rand(4, 3, size, size, dtype=torch.float64)
    official(images, 1)
    return official, images


@pytest.mark.parametrize(
    ("model", "element"), [*((model, False) for model in TENSORS), ("resnet20", True)]
)
def test_spikes_and_logits_are_those_of_the_official_network(
    model: str, element: bool, tmp_path: Path
) -> None:
    official, images = made_up(model, element=element)
    assert len(official.tensors) == TENSORS[model]
    network = sf.from_official(official.tensors, model, steps=2)
    assert {t.dtype for t in network.state_dict().values()} == {torch.float64, torch.int64}
    spikes: list[Tensor] = []

    def see(name: str, call: Call) -> None:
        spikes.append(call.fired.spikes)

    with observing(network, see), torch.no_grad():
        logits = network(images)
    expected = official(images, 2)
    assert (logits - expected).abs().max() < 1e-12
    assert len(logits.unique(dim=0)) == 4
    assert len(spikes) == len(official.spikes)
    for fired, wanted in zip(spikes, official.spikes, strict=True):
        assert torch.equal(fired, wanted)
        assert 0 < fired.mean() < 1
    gains = [m.weight for m in network.modules() if isinstance(m, sf.MPBN)]
    assert len(gains) == len(spikes)
    assert any((gain < 0).any() for gain in gains)

    folded = sf.fold(network)
    record = sf.verify(network, folded, [images])
    assert (record.mismatches, record.spikes) == (0, sum(s.numel() for s in spikes))
    sf.save(network, tmp_path / "net.safetensors")
    sf.save(folded, tmp_path / "folded.safetensors")
    for name in ("net", "folded"):
        assert torch.equal(sf.load(tmp_path / f"{name}.safetensors")(images), logits)


def test_tensors_say_what_the_network_is() -> None:
    official, _ = made_up("resnet19")
    arguments = sf.from_official(official.tensors, "resnet19").arguments
    assert (arguments.num_classes, arguments.in_channels, arguments.norm) == (7, 3, "mpbn")
    assert (arguments.width, arguments.steps, arguments.standardize) == (1 / 16, None, False)
    official, _ = made_up("resnet18", element=True)
    network = sf.from_official(official.tensors, "resnet18")
    assert (network.arguments.norm, network.arguments.image_size) == ("mpbn-element", 32)
    without = {key: v for key, v in made_up("vgg16")[0].tensors.items() if not is_mpbn(key)}
    assert sf.from_official(without, "vgg16").arguments.norm == "none"
    single = {key: value.float() for key, value in official.tensors.items()}
    network = sf.from_official(single, "resnet18", neuron=sf.Neuron(decay=0.5))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network.layers()["features.0"].lif.constants.decay == 0.5
    assert not network.training


def is_mpbn(name: str) -> bool:
    return name.startswith("features") and int(name.split(".")[1]) in (
        *(2, 5, 9, 12, 16, 19, 22, 26, 29, 32, 36, 39, 42),
    )


def test_standardization_only_where_it_is_asked_for() -> None:
    official, images = made_up("resnet20")
    plain = sf.from_official(official.tensors, steps=2)
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    shaped = [torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, deviation)]
    standardized = (images - shaped[0]) / shaped[1]
    for asked in ("cifar10", (mean, deviation)):
        network = sf.from_official(official.tensors, steps=2, standardize=asked)
        assert torch.equal(network(images), plain(standardized))
        assert not torch.equal(network(images), plain(images))


def test_wrappers_and_other_entries_of_a_checkpoint() -> None:
    official, images = made_up("resnet20")
    expected = sf.from_official(official.tensors, steps=2)(images)
    for prefix in ("module.", "model.", "module.model."):
        wrapped = {prefix + key: value for key, value in official.tensors.items()}
        for checkpoint in (wrapped, {"epoch": 3, "state_dict": wrapped}):
            assert torch.equal(sf.from_official(checkpoint, steps=2)(images), expected)


def test_the_checkpoint_is_left_alone_and_shares_nothing() -> None:
    official, images = made_up("resnet20")
    before = {key: value.clone() for key, value in official.tensors.items()}
    network = sf.from_official(official.tensors, steps=2)
    network.train()(images).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    for key, value in before.items():
        assert torch.equal(official.tensors[key], value)


def test_back_under_the_official_names() -> None:
    for model in TENSORS:
        official, _ = made_up(model)
        again = sf.adopt.to_official(sf.from_official(official.tensors, model))
        assert again.keys() == official.tensors.keys()
        assert all(torch.equal(again[key], value) for key, value in official.tensors.items())


CONV, GAIN = "layer2.0.conv1.pool.weight", "layer2.0.relu1.bn.weight"


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({CONV: None}, f"tensor '{CONV}' is missing from resnet20"),
        ({"fc.conv.bias": None}, "tensor 'fc.conv.bias' is missing"),
        ({"conv1.0.pool.weight": None}, "tensor 'conv1.0.pool.weight' is missing"),
        ({"layer9.weight": torch.ones(3).double()}, "1 tensors are left over, 'layer9.weight'"),
        ({CONV: torch.ones(8, 4, 1, 1).double()}, f"'{CONV}' has shape [8, 4, 1, 1], resnet20 nee"),
        ({"conv1.0.pool.weight": torch.ones(4).double()}, "has shape [4], not 4 dimensions"),
        ({"conv1.0.pool.weight": torch.ones(0, 3, 3, 3).double()}, "has shape [0, 3, 3, 3]"),
        ({"conv1.2.bn.weight": torch.ones(7).double()}, "7 values for 4 channels"),
        ({GAIN: torch.ones(3).double()}, f"'{GAIN}' has shape [3], resnet20 needs [8]"),
        ({CONV: torch.ones(8, 4, 3, 3)}, f"'{CONV}' is torch.float32, others are torch.float64"),
        ({CONV: torch.ones(8, 4, 3, 3).half()}, f"'{CONV}' is torch.float16, not float32 or"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_named(
    change: dict[str, Tensor | None], message: str
) -> None:
    tensors = {**made_up("resnet20")[0].tensors, **change}
    with pytest.raises(AdoptError) as raised:
        sf.from_official({key: value for key, value in tensors.items() if value is not None})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("as_user")
def test_mistakes_in_the_arguments() -> None:
    tensors = made_up("resnet19")[0].tensors
    with pytest.raises(AdoptError, match="these are the tensors of resnet19"):
        sf.from_official(tensors, "resnet20")
    for options, message in (
        ({"model": "small"}, "unknown model 'small': one of resnet18, "),
        ({"steps": 0}, "steps must lie in [1, 10000]"),
        ({"standardize": "mnist"}, "unknown standardization 'mnist'"),
        ({"standardize": ((0.5,), (0.2,))}, "1 means and 1 deviations, the network 3"),
        ({"standardize": (0.5, 0.2)}, "1 means and 1 deviations, the network 3"),
        ({"standardize": ((0.5,) * 3, (0.0,) * 3)}, "deviations positive"),
        ({"standardize": ("a", "b")}, "mean and deviation of each channel"),
    ):
        with pytest.raises(ConfigError) as raised:
            sf.from_official(tensors, **{"model": "resnet19", **options})
        assert message in str(raised.value)
    for content, message in (
        ({}, "holds 0 state dicts"),
        ([tensors], "a list, not a state dict"),
        ({"a": tensors, "b": tensors}, "holds 2 state dicts"),
        ({"epoch": 3}, "'epoch' (int)"),
    ):
        with pytest.raises(AdoptError) as wrong:
            sf.from_official(content)
        assert message in str(wrong.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: sf.models.small(width=0.1), "model 'small': only resnet"),
        (lambda: sf.fold(sf.models.resnet20(width=0.0625)), "a network after fold: take it as"),
        (lambda: sf.models.resnet20(width=0.0625, current_norm="none"), "norms 'none' and 'mpbn'"),
        (
            lambda: sf.models.resnet20(width=0.0625, norm="mpbn-steps", steps=2),
            "norms 'bn' and 'mpbn-steps'",
        ),
        (lambda: sf.models.resnet20(width=0.0625, learn_decay="layer"), "tensor 'features.0.lif"),
    ],
)
def test_what_the_official_code_has_not_is_not_left_out(
    network: Callable[[], Network], message: str
) -> None:
    with pytest.raises(AdoptError, match=f"to_official: not in the official code: {message}"):
        sf.adopt.to_official(network())
