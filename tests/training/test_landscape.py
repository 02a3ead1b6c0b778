"""Losses around a network against calculations by hand, and what must not change them."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import spikefold as sf
from spikefold.data import TensorSamples
from spikefold.errors import ConfigError, DataError, FoldError
from spikefold.models import Network
from spikefold.training import Landscape, LandscapeConfig, evaluate, landscape
from spikefold.training._landscape import _Path, filter_normalized


def samples(count: int, shape: tuple[int, ...] = (1, 8, 8), classes: int = 3) -> TensorSamples:
    return TensorSamples(torch.rand(count, *shape), torch.arange(count) % classes)


def trained(norm: Any = "mpbn") -> Network:
    """A small network whose running statistics are those of data like `samples`."""
    torch.manual_seed(0)
    network = sf.models.small(
        num_classes=3, in_channels=1, image_size=8, width=0.2, steps=2, norm=norm
    )
    for _ in range(30):
        network(torch.rand(32, 1, 8, 8))
    nn.init.normal_(network.classifier.weight)
    return network.eval()


def test_a_linear_network_against_a_loop_over_numbers() -> None:
    """Everything once more, in Python's float64, by the formulas of the paper."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    given = samples(7, (4,))
    record = landscape(network, given, LandscapeConfig(two=True, points=5, reach=0.5, seed=3), 4)
    generator = torch.Generator().manual_seed(3)
    weight, bias = network[1].weight.tolist(), network[1].bias.tolist()
    directions = []
    for _ in range(2):
        rows = torch.randn(3, 4, generator=generator, dtype=torch.float64).tolist()
        directions.append(
            [
                [value * math.hypot(*filter_) / math.hypot(*row) for value in row]
                for row, filter_ in zip(rows, weight, strict=True)
            ]
        )
    for i, a in enumerate((-0.5, -0.25, 0, 0.25, 0.5)):
        for j, b in enumerate((-0.5, -0.25, 0, 0.25, 0.5)):
            loss, correct = 0.0, 0
            for x, label in zip(given.inputs.tolist(), given.labels.tolist(), strict=True):
                logits = [
                    bias[k]
                    + sum(
                        (weight[k][n] + a * directions[0][k][n] + b * directions[1][k][n]) * x[n]
                        for n in range(4)
                    )
                    for k in range(3)
                ]
                loss += math.log(sum(map(math.exp, logits))) - logits[label]
                correct += logits.index(max(logits)) == label
            assert record.loss[i, j].item() == pytest.approx(loss / 7, rel=1e-12)
            assert record.accuracy[i, j].item() == pytest.approx(correct / 7)
    assert (record.samples, record.moved, record.parameters) == (7, 12, 15)


def test_each_filter_of_a_direction_is_as_long_as_the_networks() -> None:
    weight = torch.zeros(3, 1, 2, 2)
    weight[0, 0] = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    weight[1] = 0.5
    direction = filter_normalized(weight, torch.Generator().manual_seed(0))
    lengths = [math.hypot(*filter_) for filter_ in direction.flatten(1).tolist()]
    assert lengths == pytest.approx([5, 1, 0])
    assert filter_normalized(torch.ones(2, 3), torch.Generator()).norm(dim=1).tolist() == (
        pytest.approx([3**0.5] * 2)
    )


@pytest.mark.parametrize("two", [False, True])
def test_the_centre_is_what_evaluate_says_to_the_bit(two: bool) -> None:
    network, given = trained(), samples(70)
    record = landscape(network, given, LandscapeConfig(two=two, points=3), 32)
    expected = evaluate(network, given, 32)
    assert record.centre == (expected["loss"], expected["accuracy"])
    assert record.loss.shape == ((3, 3) if two else (3,))
    assert len(set(record.loss.flatten().tolist())) == record.config.total  # they differ


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_the_network_is_not_changed(batch_statistics: bool) -> None:
    network = trained().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = LandscapeConfig(points=3, batch_statistics=batch_statistics)
    landscape(network, samples(40), config, 32)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_rescaled_filters_before_a_batch_norm_change_nothing() -> None:
    """Why filters are normalized: the same function by other weights has the same landscape."""
    network, other = trained(), trained()
    scales = 2.0 ** torch.randint(-3, 4, (len(other.features[0].connection.weight),))
    with torch.no_grad():
        other.features[0].connection.weight *= scales[:, None, None, None]
        norm = other.features[0].norm
        norm.running_mean *= scales
        norm.running_var.copy_((norm.running_var + norm.eps) * scales**2 - norm.eps)
    given, config = samples(64), LandscapeConfig(points=5)
    one, same = (landscape(n, given, config).loss for n in (network, other))
    torch.testing.assert_close(same, one, rtol=1e-3, atol=0)
    assert one.max() > 1.1 * one.min()


def test_directions_are_the_same_with_and_without_mpbn() -> None:
    networks = [trained("none"), trained("mpbn"), trained("mpbn-element"), trained("mpbn-steps")]
    for other in networks[1:]:
        missing = other.load_state_dict(networks[0].state_dict(), strict=False)
        assert all(".lif." in key for key in missing.missing_keys)
    one, *others = (_Path(network, LandscapeConfig(seed=5)).directions for network in networks)
    for other in others:
        assert len(other[0]) == len(one[0]) == 5
        assert all(map(torch.equal, other[0], one[0]))
    two = _Path(networks[0], LandscapeConfig(two=True, seed=5)).directions
    assert all(map(torch.equal, two[0], one[0]))
    assert not any(map(torch.equal, two[1], two[0]))
    assert not any(map(torch.equal, _Path(networks[0], LandscapeConfig()).directions[0], one[0]))


def test_by_trained_statistics_a_network_has_the_landscape_of_its_fold() -> None:
    network, given, config = trained(), samples(64), LandscapeConfig(points=5)
    with torch.no_grad():
        for layer in network.layers().values():
            layer.lif.norm.weight.uniform_(-1, 2)
    of_network, of_fold = (landscape(n, given, config) for n in (network, sf.fold(network)))
    assert torch.equal(of_network.loss, of_fold.loss)
    by_batch = LandscapeConfig(points=5, batch_statistics=True)
    of_batches = (landscape(n, given, by_batch, 64) for n in (network, sf.fold(network)))
    assert not torch.equal(*(record.loss for record in of_batches))


def test_by_batch_statistics_the_loss_is_that_of_training() -> None:
    network, given = trained(), samples(70)
    config = LandscapeConfig(points=3, batch_statistics=True, seed=4)
    record = landscape(network, given, config, 32)
    assert record.samples == 64  # the smaller last batch is left out
    order = torch.randperm(70, generator=torch.Generator().manual_seed(4))[:64]
    with torch.no_grad():
        losses = [
            F.cross_entropy(trained().train()(given.inputs[part]), given.labels[part]).item()
            for part in order.split(32)
        ]
    assert record.centre[0] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_figures_by_hand() -> None:
    def made(loss: list[Any], two: bool, reach: float) -> Landscape:
        grid = torch.tensor(loss, dtype=torch.float64)
        config = LandscapeConfig(two=two, points=3, reach=reach)
        return Landscape(
            config=config, loss=grid, accuracy=grid / 10, samples=1, moved=1, parameters=1
        )

    record = made([4.0, 1.0, 3.0], two=False, reach=0.5)
    assert record.centre == (1.0, 0.1)
    assert record.sharpness == 150  # 100 (4 - 1) / (1 + 1)
    assert record.curvature == [20]  # (4 - 2 + 3) / 0.25
    assert record.slope == 6  # 3 / 0.5
    record = made([[9.0, 1.0, 4.0], [2.0, 1.0, 3.0], [1.0, 5.0, 6.0]], two=True, reach=1.0)
    assert record.sharpness == 400
    assert record.curvature == [4, 3]  # 1 - 2 + 5 along the first, 2 - 2 + 3 along the second
    assert record.slope == 8  # from 9 to 1
    told = made([math.inf, 1.0, math.nan], two=False, reach=1.0).to_dict()
    assert told["loss"] == [None, 1.0, None]
    assert (told["sharpness"], told["curvature"], told["slope"]) == (None, [None], None)
    assert told["distances"] == [-1, 0, 1]
    assert told["centre"] == {"loss": 1.0, "accuracy": 0.1}


def test_losses_beyond_the_numbers_are_told_apart() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    nn.init.constant_(network[1].weight, 1e36)
    record = landscape(network, samples(9, (4,)), LandscapeConfig(points=3, reach=1000.0))
    assert record.loss.isfinite().tolist() == [False, True, False]


@pytest.mark.usefixtures("as_user")
def test_refused() -> None:
    network = trained()
    with pytest.raises(ConfigError, match=r"landscape: points must be odd, .* got 4"):
        LandscapeConfig(points=4)
    for wrong in ({"points": 1}, {"reach": 0}, {"reach": math.nan}, {"seed": -1}):
        with pytest.raises(ConfigError, match=f"landscape: {next(iter(wrong))} must lie in"):
            LandscapeConfig(**wrong)
    with pytest.raises(DataError, match="landscape: there are no samples"):
        landscape(network, samples(0))
    batches = LandscapeConfig(batch_statistics=True)
    with pytest.raises(DataError, match="landscape: 40 samples are less than a batch of 128"):
        landscape(network, samples(40), batches)
    with pytest.raises(FoldError, match="landscape: the network has no running statistics"):
        landscape(sf.fuse_conv_bn(sf.fold(network)), samples(200), batches)
    with pytest.raises(ConfigError, match="no convolution or linear layer to move"):
        landscape(nn.Flatten(), samples(9))
    with pytest.raises(DataError, match="of class 4"):
        landscape(network, samples(9, classes=5))
    tied = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 3)))
    with pytest.raises(ConfigError, match="layer '1': its weight is computed from other"):
        landscape(tied, samples(9))
    nn.init.constant_(network.classifier.bias, math.nan)
    with pytest.raises(DataError, match="the loss of the network itself is nan"):
        landscape(network, samples(9), LandscapeConfig(points=3))
