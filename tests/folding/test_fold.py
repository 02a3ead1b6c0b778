"""The fold is exact: not one spike differs, whatever the parameters."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikefold as sf
from spikefold.dynamics import Condition
from spikefold.errors import FoldError
from spikefold.folding import exact_thresholds, from_ordinal, to_ordinal
from spikefold.models import MODELS

WIDTH = 64  # ulp on either side of every threshold

normal = st.floats(-10, 10, width=32)
gains = st.one_of(
    normal,
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-38, -3e-39, 1e30, -1e30, 3e38, -3e38, 1e-20]),
)
variances = st.one_of(st.floats(0, 100, width=32), st.sampled_from([0.0, 1e-45, 1e-12, 1e20, 1e38]))
means = st.one_of(normal, st.sampled_from([0.0, 1e-30, 1e6, -1e6, 1e20]))
eps_values = st.sampled_from([0.0, 1e-12, 1e-5, 1e-3, 1.0])
channels = st.lists(st.tuples(gains, normal, means, variances), min_size=1, max_size=6)


def make_norm(
    rows: list[tuple[float, float, float, float]], eps: float, spatial: tuple[int, ...] = ()
) -> sf.MPBN:
    """An MPBN in evaluation with these (gain, shift, mean, variance), repeated over space."""
    shape = (len(rows), *spatial)
    norm = sf.MPBN(shape, eps=eps).eval()
    columns = [torch.tensor(column, dtype=torch.float32) for column in zip(*rows, strict=True)]
    with torch.no_grad():
        targets = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        for target, column in zip(targets, columns, strict=True):
            target.copy_(column.reshape(-1, *(1,) * len(spatial)).expand(shape))
    return norm


def near(theta: Tensor) -> Tensor:
    """Every float within WIDTH ulp of each threshold, [2 WIDTH + 1, *shape]."""
    top = torch.finfo(theta.dtype).max
    center = to_ordinal(theta.clamp(-top, top))
    offsets = torch.arange(-WIDTH, WIDTH + 1).reshape(-1, *(1,) * theta.ndim)
    limit = to_ordinal(torch.tensor(top, dtype=theta.dtype))
    return from_ordinal((center + offsets).clamp(-limit, limit), theta.dtype)


def thresholds(norm: sf.MPBN, threshold: float) -> tuple[Tensor, Tensor]:
    """Theta and polarity, one set for all steps."""
    condition = exact_thresholds(Condition(norm.eval().normalization()), threshold)
    assert condition.theta is not None
    assert condition.polarity is not None
    return condition.theta[0], condition.polarity[0]


def decisions_that_differ(norm: sf.MPBN, theta: Tensor, polarity: Tensor, threshold: float) -> int:
    """Wrong decisions of theta and polarity, near every threshold and at random potentials."""
    random = torch.randn(256, *theta.shape, dtype=theta.dtype)
    scales = torch.logspace(-30, 30, 256, dtype=theta.dtype).reshape(-1, *(1,) * theta.ndim)
    u = torch.cat([near(theta), random, random * scales, norm.running_mean + random])
    truth = norm(u) > threshold
    folded = polarity * u > polarity * theta
    return int((truth != folded).sum())


@given(rows=channels, eps=eps_values, threshold=st.sampled_from([0.5, 1.0, 0.0, -0.7, 1e-30, 20.0]))
@settings(max_examples=300)
@pytest.mark.usefixtures("as_user")
def test_thresholds_decide_as_the_normalization_does(
    rows: list, eps: float, threshold: float
) -> None:
    rows = [row for row in rows if not (row[3] + eps == 0 and row[0] == 0)] or [
        (1.0, 0.0, 0.0, 1.0)
    ]
    norm = make_norm(rows, eps)
    theta, polarity = thresholds(norm, threshold)
    assert decisions_that_differ(norm, theta, polarity, threshold) == 0


def test_the_closed_form_would_be_caught() -> None:
    """The same comparison fails for theta = (threshold - beta) sqrt(var + eps) / gamma + mean."""
    rows = torch.rand(500, 4) + torch.tensor([0.5, -0.5, -0.5, 0.5])
    norm = make_norm(rows.tolist(), 1e-5)
    with torch.no_grad():
        sigma = torch.sqrt(norm.running_var + norm.eps)
        closed = (0.5 - norm.bias) * sigma / norm.weight + norm.running_mean
    exact, polarity = thresholds(norm, 0.5)
    assert decisions_that_differ(norm, closed, polarity, 0.5) > 100
    assert decisions_that_differ(norm, exact, polarity, 0.5) == 0
    torch.testing.assert_close(exact, closed)  # and both are the same in real arithmetic


@given(
    rows=channels,
    steps=st.integers(1, 8),
    reset=st.sampled_from(["hard", "soft"]),
    spatial=st.sampled_from([(), (3, 2)]),
    element=st.booleans(),
    channels_last=st.booleans(),
    decay=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    threshold=st.sampled_from([0.5, 1.0, -0.25]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=300)
@pytest.mark.usefixtures("as_user")
def test_folded_neurons_fire_the_same_spikes(
    rows: list,
    steps: int,
    reset: str,
    spatial: tuple[int, ...],
    element: bool,
    channels_last: bool,
    decay: float,
    threshold: float,
    dtype: torch.dtype,
    seed: int,
) -> None:
    norm = make_norm(rows, 1e-5, spatial if element else ())
    lif = sf.LIF(norm, decay=decay, threshold=threshold, reset=reset).eval()  # type: ignore[arg-type]
    folded = sf.fold(lif)
    # the first step meets every threshold within 64 ulp, further ones are random
    first = near(folded.theta.clamp(-1e30, 1e30))
    if not element and spatial:
        first = first.reshape(*first.shape, 1, 1).expand(*first.shape, *spatial)
    generator = torch.Generator().manual_seed(seed)
    later = torch.randn(steps - 1, *first.shape, generator=generator)
    limit = torch.finfo(dtype).max  # potentials are finite, in half precision too
    x = torch.cat([first[None], later]).clamp(-limit, limit).to(dtype)
    if channels_last and spatial:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    assert torch.equal(lif(x), folded(x))


def test_polarity_and_constants_by_hand() -> None:
    #      gain  shift mean  var      fires when
    rows = [
        (2.0, 0.5, 1.0, 4.0),  # (u - 1) + 0.5 > 0.5   <=> u > 1
        (-2.0, 0.5, 1.0, 4.0),  # -(u - 1) + 0.5 > 0.5  <=> u < 1
        (0.0, 0.6, 1.0, 4.0),  # always
        (0.0, 0.5, 1.0, 4.0),  # never: 0.5 is not above 0.5
    ]
    theta, polarity = thresholds(make_norm(rows, 0.0), 0.5)
    # beyond half an ulp of 0.5 the sum rounds up: allow for that
    assert theta[:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert theta[2:].tolist() == [-math.inf, math.inf]
    assert polarity.tolist() == [1, -1, 1, 1]
    folded = sf.fold(sf.LIF(make_norm(rows, 0.0)))
    spikes = folded(torch.tensor([[[0.5] * 4, [1.5] * 4]]))
    assert spikes[0].tolist() == [[0, 1, 1, 0], [1, 0, 1, 0]]


def test_float64_networks_fold_too() -> None:
    norm = make_norm([(1.3, 0.2, -0.4, 0.9), (-0.7, 0.1, 0.3, 2.0)], 1e-5).double()
    theta, polarity = thresholds(norm, 0.5)
    assert theta.dtype == torch.float64
    assert decisions_that_differ(norm, theta, polarity, 0.5) == 0


def test_soft_reset_subtracts_the_constant_not_theta() -> None:
    norm = make_norm([(1.0, -2.0, 0.0, 1.0)], 0.0)  # theta = 2.5
    folded = sf.fold(sf.LIF(norm, decay=1.0, reset="soft"))
    spikes, state = folded.step(torch.tensor([[3.0]]))
    assert spikes.item() == 1
    assert state.v.item() == 2.5


class Residual(nn.Module):
    """A user's own module: two units, identity shortcut, linear unit."""

    def __init__(self) -> None:
        super().__init__()
        self.one = sf.SpikingLayer(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), sf.LIF(sf.MPBN(8))
        )
        self.two = sf.SpikingLayer(
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            sf.LIF(sf.MPBN((8, 6, 6)), reset="soft"),
        )
        self.three = sf.SpikingLayer(nn.Linear(288, 10), nn.Identity(), sf.LIF(sf.MPBN(10)))

    def forward(self, x: Tensor) -> Tensor:
        s = self.one(x)
        return self.three(self.two(s, s).flatten(2)).mean(0)  # type: ignore[no-any-return]


def trained(model: nn.Module, *inputs: Tensor) -> nn.Module:
    """Statistics from a few batches, and gains of both signs and zero."""
    for x in inputs:
        model(x)
    for module in model.modules():
        if isinstance(module, sf.MPBN):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
            module.weight.data.flatten()[0] = 0
    return model.eval()


def test_a_users_own_network_folds_and_is_left_as_it_is() -> None:
    model = trained(Residual(), *torch.randn(3, 4, 5, 3, 6, 6))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = sf.fold(model)
    record = sf.verify(model, folded, [torch.randn(4, 7, 3, 6, 6)])
    assert record.mismatches == 0
    assert record.spikes == 4 * 7 * (8 * 36 * 2 + 10)
    assert 0 < record.layers["two.lif"].firing_rate < 1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert isinstance(model.one.lif, sf.LIF)


@pytest.mark.parametrize("norm", ["mpbn", "mpbn-element"])
@pytest.mark.parametrize("name", MODELS)
def test_folded_networks_hold_no_membrane_normalization(name: str, norm: sf.models.Norm) -> None:
    model = MODELS[name](norm=norm, num_classes=10, width=0.0625, image_size=32)
    trained(model, *torch.randn(2, 3, 4, 3, 32, 32))
    folded = sf.fold(model)
    record = sf.verify(model, folded, [torch.randn(3, 4, 3, 32, 32)])
    assert record.mismatches == 0
    assert record.max_output_difference == 0
    assert record.layers.keys() == {f"{key}.lif" for key in folded.layers()}
    assert any(0 < layer.firing_rate < 1 for layer in record.layers.values())
    plain = MODELS[name](norm="none", width=0.0625, image_size=32)
    assert not any(isinstance(module, sf.MPBN) for module in folded.modules())
    assert {k for k, _ in folded.named_parameters()} == {k for k, _ in plain.named_parameters()}


def test_the_fold_does_not_depend_on_the_mode() -> None:
    model = trained(Residual(), *torch.randn(3, 4, 5, 3, 6, 6))
    evaluated, training = sf.fold(model.eval()), sf.fold(model.train())
    assert not training.training
    for one, other in zip(
        evaluated.state_dict().values(), training.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("running_mean", math.nan, "layer 'two.lif': running mean has 1 of 288 values"),
        ("running_var", math.inf, "layer 'two.lif': running variance has 1"),
        ("running_var", -1.0, "layer 'two.lif': running variance has negative"),
        ("weight", math.nan, "layer 'two.lif': gain has 1"),
        ("bias", -math.inf, "layer 'two.lif': shift has 1"),
    ],
)
def test_statistics_without_a_threshold_are_refused(
    attribute: str, value: float, message: str
) -> None:
    model = Residual()
    getattr(model.two.lif.norm, attribute).data.flatten()[3] = value
    with pytest.raises(FoldError, match=message):
        sf.fold(model)


def test_nothing_to_fold_is_an_error() -> None:
    with pytest.raises(FoldError, match="nothing to fold"):
        sf.fold(sf.models.small(norm="none"))
    with pytest.raises(FoldError, match="nothing to fold"):
        sf.fold(sf.fold(sf.models.small()))
    with pytest.raises(FoldError, match=r"layer '1'.*outside a LIF"):
        sf.fold(nn.Sequential(sf.LIF(sf.MPBN(3)), sf.MPBN(3)))
    with pytest.raises(FoldError, match="float16"):
        sf.fold(sf.LIF(sf.MPBN(3)).half())
