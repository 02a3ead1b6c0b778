"""Networks against the official code's numbers, and their answers to bad input."""

import inspect
import re
from dataclasses import fields

import pytest
import torch
from torch import nn

import spikefold as sf
from spikefold.errors import ConfigError, ShapeError
from spikefold.models import MODELS, Arguments, build


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "layers"),
    [
        ("resnet20", 10, 11_256_010, 19),
        ("resnet19", 10, 12_578_186, 17),
        ("vgg16", 10, 14_736_714, 13),
        ("resnet18", 1000, 11_697_320, 17),
        ("resnet34", 1000, 21_812_904, 33),
    ],
)
def test_sizes_are_those_of_the_official_code(
    name: str, classes: int, parameters: int, layers: int
) -> None:
    network = MODELS[name](num_classes=classes, norm="mpbn")
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.layers()) == layers
    assert sum(isinstance(module, sf.MPBN) for module in network.modules()) == layers


@pytest.mark.parametrize(("name", "deviation"), [("vgg16", 0.01), ("resnet20", 1 / 512)])
def test_readouts_start_as_in_the_official_code(name: str, deviation: float) -> None:
    readout = MODELS[name](num_classes=100).classifier
    assert readout.weight.std().item() == pytest.approx(deviation, rel=0.02)  # 5 deviations
    assert (readout.bias == 0).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["mpbn", "mpbn-element", "none"])
def test_all_run_on_images_and_on_event_frames(name: str, norm: sf.models.Norm) -> None:
    network = MODELS[name](7, norm, in_channels=2, width=0.0625, image_size=32)
    frames = torch.rand(3, 2, 2, 32, 32)
    logits = network(frames)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    network.eval()
    image = frames[0]
    assert torch.equal(network(image, steps=3), network(image.expand(3, *image.shape)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["mpbn", "none"])
def test_a_new_network_learns_in_every_layer(name: str, norm: sf.models.Norm) -> None:
    """The official spiking networks begin with all batch norm gains at 1.

    With the gains of the residual branches at 0, as its networks before conversion have them,
    currents are 0 or 1, which MPBN puts outside of the surrogate's window: no gradient at all.
    """
    torch.manual_seed(0)
    network = MODELS[name](10, norm, width=0.125, steps=2)
    network(torch.rand(16, 3, 64, 64)).logsumexp(1).sum().backward()
    for layer in network.layers().values():
        assert layer.connection.weight.grad.abs().max() > 0
        assert (layer.norm.weight == 1).all()


def test_logits_are_the_mean_over_time() -> None:
    network = sf.models.small(in_channels=2, norm="none", width=0.5).eval()
    frames = 8 * torch.rand(3, 4, 2, 8, 8)  # strong enough to reach the readout
    fired = network.features(frames)
    by_hand = [network.classifier(fired[t].mean((-2, -1))) for t in range(3)]
    torch.testing.assert_close(network(frames), (by_hand[0] + by_hand[1] + by_hand[2]) / 3)
    assert by_hand[0].std() > 0


def test_the_network_knows_its_steps_unless_told() -> None:
    network = sf.models.small(in_channels=1, steps=2)
    x = torch.rand(2, 1, 8, 8)
    for _ in range(20):
        network(x)  # statistics with which it fires
    network.eval()
    assert torch.equal(network(x), network(x, steps=2))
    assert not torch.equal(network(x), network(x, steps=5))


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("shape", "steps", "message"),
    [
        ((2, 3, 8, 8), None, "no time dimension: give steps=T"),
        ((2, 3, 8, 8), 0, "steps must be at least 1, got 0"),
        ((2, 4, 8, 8), 2, "takes 3 input channels, got 4"),
        ((5, 2, 4, 8, 8), None, "takes 3 input channels, got 4"),
        ((5, 2, 3, 8, 8), 4, "leave out steps=4"),
        ((0, 2, 3, 8, 8), None, "no time step"),
        ((3, 8, 8), 2, "expected images"),
    ],
)
def test_bad_input_is_refused(shape: tuple[int, ...], steps: int | None, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        sf.models.small()(torch.zeros(shape), steps=steps)


@pytest.mark.usefixtures("as_user")
def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"steps must lie in \[1, 10000\]"):
        sf.models.small(steps=0)
    with pytest.raises(ConfigError, match="norm must be one of"):
        sf.models.small(norm="bn")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown model 'resnet21'"):
        build("resnet21", Arguments())
    with pytest.raises(TypeError, match="widht"):
        sf.models.small(widht=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_all_that_it_takes(name: str) -> None:
    """Signature and docstring, as `help` shows them, have every field of `Arguments`."""
    parameters = inspect.signature(inspect.unwrap(MODELS[name])).parameters
    assert parameters.keys() == {field.name for field in fields(Arguments)}
    assert list(parameters)[:2] == ["num_classes", "norm"]
    text = inspect.getdoc(MODELS[name])
    assert text is not None
    for parameter in parameters:
        assert re.search(rf"^    {parameter}: \S", text, re.MULTILINE), parameter
    large = name in ("resnet18", "resnet34")
    network = MODELS[name](width=0.0625, in_channels=1)
    assert network.classifier.out_features == (1000 if large else 10)
    for parameter in ("num_classes", "image_size"):
        assert parameters[parameter].default == getattr(network.arguments, parameter)
    assert network.arguments.image_size == (224 if large else 32)
    assert MODELS[name](7, "none", width=0.0625, image_size=64).arguments == Arguments(
        7, "none", width=0.0625, image_size=64
    )


def test_initialization_is_that_of_the_official_code() -> None:
    network = sf.models.resnet19()
    conv = network.layers()["features.1.first"].connection
    assert isinstance(conv, nn.Conv2d)
    # normal of variance 2 / (kernel area · output channels)
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert network.classifier.weight.std().item() == pytest.approx(1 / 512, rel=0.05)
