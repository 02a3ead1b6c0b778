"""Modules against torch's own batch norm, an explicit loop over time, and hand-made input."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn import OverTime, over_time


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
@pytest.mark.parametrize("affine", [True, False])
def test_channel_wise_equals_torch_batch_norm_at_each_step(
    momentum: float | None, affine: bool
) -> None:
    ours = sf.MPBN(5, momentum=momentum, affine=affine)
    torchs = nn.BatchNorm2d(5, momentum=momentum, affine=affine)
    for u in torch.randn(4, 3, 5, 4, 2):
        torch.testing.assert_close(ours(u), torchs(u), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    assert ours.num_batches_tracked == torchs.num_batches_tracked
    u = torch.randn(3, 5, 4, 2)
    torch.testing.assert_close(ours.eval()(u), torchs.eval()(u), rtol=1e-5, atol=1e-5)


def test_element_wise_equals_torch_batch_norm_over_flat_features() -> None:
    ours, torchs = sf.MPBN((5, 4, 2)), nn.BatchNorm1d(40)
    for u in torch.randn(4, 6, 5, 4, 2):
        torch.testing.assert_close(ours(u).flatten(1), torchs(u.flatten(1)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_var.flatten(), torchs.running_var)


def test_a_sequence_updates_the_statistics_as_single_steps_do() -> None:
    whole, single = (sf.LIF(sf.MPBN(3, momentum=None)) for _ in range(2))
    x = torch.randn(5, 4, 3, 2, 2)
    spikes = whole(x)
    state, steps = None, []
    for x_t in x:
        s, state = single.step(x_t, state)
        steps.append(s)
    assert torch.equal(spikes, torch.stack(steps))
    for one, other in zip(whole.state_dict().values(), single.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert whole.norm is not None
    assert whole.norm.num_batches_tracked == 5


def test_statistics_come_from_the_raw_potential_not_the_normalized() -> None:
    """The carried potential is u: with no spikes at all, u[1] = u[0] / 2 + x."""
    lif = sf.LIF(sf.MPBN(1), decay=0.5, threshold=100.0)
    x = torch.randn(2, 6, 1, 3, 3)
    _, state = lif.step(x[0])
    torch.testing.assert_close(state.v, x[0])
    _, state = lif.step(x[1], state)
    torch.testing.assert_close(state.v, x[0] / 2 + x[1])
    assert state.t == 2


@pytest.mark.usefixtures("as_user")
def test_a_sequence_without_time_is_no_image() -> None:
    layer = sf.SpikingLayer(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), sf.LIF())
    told = r"expected \[T, N, C, H, W\], got \[8, 3, 16, 16\]: is a dimension missing"
    with pytest.raises(ShapeError, match=told):
        layer(torch.rand(8, 3, 16, 16))
    with pytest.raises(ShapeError, match=r"expected \[T, N, C, W\]"):
        over_time(nn.Conv1d(3, 4, 3), torch.rand(8, 3, 16))


@pytest.mark.usefixtures("as_user")
def test_wrong_arguments_are_told_in_the_class_they_were_given_to() -> None:
    with pytest.raises(TypeError, match="IF: unknown constant 'tau': one of decay, threshold"):
        sf.IF(tau=2.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="LIF: unknown constant 'treshold': did you mean 'thres"):
        sf.LIF(treshold=2.0)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"MPBN: a size of its shape must be a whole .*, got 8.0"):
        sf.MPBN(8.0)  # type: ignore[arg-type]


def test_a_learnt_decay_is_shown_as_where_it_began() -> None:
    assert "decay at the start=0.5, threshold" in repr(sf.PLIF(decay=0.5))


def test_no_state_is_kept_between_calls() -> None:
    lif = sf.LIF(sf.MPBN(3)).eval()
    x = torch.randn(4, 2, 3, 5, 5)
    assert torch.equal(lif(x), lif(x))


def test_autocast_keeps_membrane_and_statistics_in_float32() -> None:
    layer = sf.SpikingLayer(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), sf.LIF(sf.MPBN(4)))
    seen: list[torch.dtype] = []
    layer.lif.register_forward_hook(
        lambda module, args, spikes: seen.extend([args[0].dtype, spikes.dtype])
    )
    x = torch.randn(2, 3, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = layer(x)
        _, state = layer.lif.step(torch.randn(3, 4, 6, 6, dtype=torch.bfloat16))
    assert seen[:2] == [torch.float32, torch.float32]  # currents; the layer returns
    assert spikes.dtype == torch.bfloat16  # what its connection does
    assert state.v.dtype == torch.float32
    assert layer.lif.norm.running_mean.dtype == torch.float32
    spikes.float().sum().backward()
    assert torch.isfinite(layer.connection.weight.grad).all()


def test_over_time_equals_a_loop() -> None:
    conv, pool = nn.Conv2d(3, 4, 3, bias=True), nn.AvgPool2d(2)
    x = torch.randn(5, 2, 3, 8, 8)
    expected = torch.stack([pool(conv(x_t)) for x_t in x])
    torch.testing.assert_close(OverTime(conv, pool)(x), expected)


class Counting(nn.Conv2d):
    """A convolution that notes the batch sizes it has seen."""

    sizes: list[int]

    def forward(self, input: Tensor) -> Tensor:
        self.sizes.append(len(input))
        return super().forward(input)


def test_a_static_image_is_convolved_once_with_the_same_result() -> None:
    connection = Counting(3, 4, 3)
    connection.sizes = []
    once, often = (
        sf.SpikingLayer(connection, nn.BatchNorm2d(4), sf.LIF(sf.MPBN(4))) for _ in range(2)
    )
    image = torch.randn(2, 3, 8, 8)
    frames = image.expand(6, *image.shape)
    results, grads = [], []
    for layer, x in ((once, frames), (often, frames.contiguous())):
        spikes = layer(x)
        weights = torch.linspace(-1, 1, spikes.numel()).reshape(spikes.shape)
        grads.append(
            torch.autograd.grad((spikes * weights).sum(), [connection.weight, layer.norm.weight])
        )
        results.append(spikes)
    assert connection.sizes == [2, 12]
    assert (results[0] != results[1]).float().mean() < 1e-3  # statistics differ by rounding
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(once.norm.running_mean, often.norm.running_mean)
    # the unbiased variance counts the pixels shown, once or T times: n / (n - 1)
    torch.testing.assert_close(once.norm.running_var, often.norm.running_var, rtol=0.02, atol=0)
    for layer in (once, often):
        layer.eval().load_state_dict(once.state_dict())
    assert torch.equal(once(frames), often(frames.contiguous()))


def test_the_shortcut_is_added_before_firing() -> None:
    layer = sf.SpikingLayer(nn.Identity(), nn.Identity(), sf.LIF(decay=0.0))
    x, shortcut = torch.full((1, 1, 2), 0.3), torch.tensor([[[0.1, 0.3]]])
    assert layer(x, shortcut).flatten().tolist() == [0, 1]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("norm", "shape", "message"),
    [
        (sf.MPBN(3), (4, 2, 5, 6, 6), r"expects potentials \[N, 3, ...\], got \[2, 5, 6, 6\]"),
        (
            sf.MPBN((3, 6, 6)),
            (4, 2, 3, 6, 5),
            r"expects potentials \[N, 3, 6, 6\], got \[2, 3, 6, 5\]",
        ),
        (sf.MPBN(3), (4, 1, 3), "larger batch"),
        (None, (4, 3), "missing"),
    ],
)
def test_bad_shapes_are_refused(norm: sf.MPBN | None, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        sf.LIF(norm)(torch.randn(shape))


@pytest.mark.usefixtures("as_user")
def test_bad_settings_are_refused() -> None:
    for settings in ({"eps": -1.0}, {"momentum": 2.0}, {"eps": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            sf.MPBN(3, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="shape"):
        sf.MPBN(0)
    with pytest.raises(ConfigError, match="norm must be an MPBN"):
        sf.LIF(nn.BatchNorm2d(3))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="MPBN normalizes the potential: give it to the neurons"):
        sf.SpikingLayer(nn.Identity(), sf.MPBN(3, steps=2), sf.LIF())
    with pytest.raises(ShapeError, match="dimension missing"):
        over_time(nn.Identity(), torch.zeros(3, 2))
    with pytest.raises(TypeError):
        sf.LIF(leak=0.5)  # type: ignore[call-arg]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("place", ["connection", "norm"])
def test_a_layer_without_a_part_says_what_stands_in_its_place(place: str) -> None:
    parts: dict[str, Any] = {"connection": nn.Linear(2, 2), "norm": nn.Identity()} | {place: None}
    with pytest.raises(sf.ConfigError, match=rf"{place} must be a module, got NoneType: nn.Ident"):
        sf.SpikingLayer(**parts, lif=sf.LIF())
