"""Norms after the connection that know time, as users write them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.data import TensorSamples
from spikefold.dynamics import Normalization
from spikefold.errors import FoldError, ShapeError
from spikefold.folding import made_again, transforms_in
from spikefold.nn import BNTT, CurrentAffine, over_time
from spikefold.training import recalibrate
from tests.dynamics.reference import mpbn_lif
from tests.nn.current_norms import NORMS

T, C = 4, 6


def unit(kind: str, membrane: bool = True) -> sf.SpikingLayer:
    """A layer with random gains, so that no map is that of another step."""
    norm = NORMS[kind](C, T)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(torch.rand_like(parameter) - 0.5)
    lif = sf.LIF(sf.MPBN(C) if membrane else None)
    return sf.SpikingLayer(nn.Conv2d(3, C, 3, padding=1), norm, lif)


class Restated:
    """The published formulas in float64, of copies of a layer's tensors; its SGD."""

    def __init__(self, kind: str, layer: sf.SpikingLayer) -> None:
        self.kind = kind
        values = {name: value.double() for name, value in layer.state_dict().items()}
        learnt = {name for name, _ in layer.named_parameters()}
        self.p = {name: values[name].clone().requires_grad_() for name in learnt}
        self.mean, self.variance = (values[f"norm.running_{s}"].clone() for s in ("mean", "var"))

    def of_step(self, x: Tensor, t: int) -> Tensor:
        """What the statistics of step t are taken of."""
        return {"BNTT": x[t : t + 1], "TAB": x[: t + 1]}.get(self.kind, x)

    def affine(self, t: int) -> tuple[Tensor, Tensor]:
        weight, bias, p = (self.p.get(f"norm.{name}") for name in ("weight", "bias", "p"))
        assert weight is not None
        match self.kind:
            case "BNTT":
                return weight[t], torch.zeros(C, dtype=torch.float64)
            case "TEBN":
                return weight * p[t], bias * p[t]  # type: ignore[index, operator]
            case "TAB":
                return weight[t] * p[t] ** 2, bias[t] * p[t] ** 2  # type: ignore[index]
        return weight * (0.5 * 2**-0.5), bias  # type: ignore[return-value]

    def currents(self, x: Tensor, training: bool = True) -> Tensor:
        weight, bias = self.p["connection.weight"], self.p["connection.bias"]
        x = torch.stack([nn.functional.conv2d(x_t, weight, bias, padding=1) for x_t in x])
        eps = 1e-4 if self.kind == "BNTT" else 1e-5
        normalized = []
        for t in range(T):
            values = self.of_step(x, t).movedim(2, 0).flatten(1)
            mean, variance = values.mean(1), values.var(1, correction=0)
            sets = self.mean.ndim > 1
            if not training:
                mean, variance = (v[t] if sets else v for v in (self.mean, self.variance))
            elif sets or t == 0:
                for running, new in ((self.mean, mean), (self.variance, values.var(1))):
                    (running[t] if sets else running).lerp_(new.detach(), 0.1)
            y = (x[t] - mean[:, None, None]) / (variance + eps).sqrt()[:, None, None]
            gain, shift = self.affine(t)
            normalized.append(y * gain[:, None, None] + shift[:, None, None])
        return torch.stack(normalized)

    def spikes(self, x: Tensor) -> Tensor:
        gamma, beta = (self.p[f"lif.norm.{name}"][:, None, None] for name in ("weight", "bias"))
        constants: Any = {"decay": 0.25, "threshold": 0.5, "soft": False, "detach": False}
        return mpbn_lif(self.currents(x), gamma, beta, eps=1e-5, **constants)

    def learn(self, loss: Tensor) -> None:
        for p, grad in zip(
            self.p.values(), torch.autograd.grad(loss, list(self.p.values())), strict=True
        ):
            p.data -= 0.05 * grad


@pytest.mark.parametrize("kind", NORMS)
def test_a_norm_of_ones_own_trains_as_its_formula_folds_and_is_saved(
    kind: str, tmp_path: Path
) -> None:
    layer = unit(kind)
    wide = unit(kind).double()
    wide.load_state_dict(layer.state_dict())
    restated = Restated(kind, layer)
    optimizers = [torch.optim.SGD(model.parameters(), 0.05) for model in (layer, wide)]
    for x in torch.randn(3, T, 8, 3, 5, 5, dtype=torch.float64):
        weights = torch.randn(T, 8, C, 5, 5, dtype=torch.float64) * 0.05
        expected = restated.spikes(x)
        restated.learn((expected * weights).sum())
        spikes = wide(x)
        assert torch.equal(spikes, expected)
        with sf.backend("fused"):
            ours = layer(x.float())
        assert (ours != expected).float().mean() < 1e-3  # ties
        for optimizer, loss in zip(
            optimizers, (ours * weights.float(), spikes * weights), strict=True
        ):
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
    for name, parameter in wide.named_parameters():
        torch.testing.assert_close(parameter, restated.p[name], msg=name)
        torch.testing.assert_close(
            layer.get_parameter(name).double(), parameter, rtol=1e-2, atol=1e-2
        )
    torch.testing.assert_close(wide.norm.running_mean, restated.mean)
    torch.testing.assert_close(wide.norm.running_var, restated.variance)

    x = torch.randn(T, 8, 3, 5, 5, dtype=torch.float64)
    computed = wide.eval().norm(torch.stack([wide.connection(x_t) for x_t in x]))
    torch.testing.assert_close(computed, restated.currents(x, training=False))
    with sf.backend("fused"):
        record = sf.verify(layer.eval(), sf.fold(layer), [x.float()], per_step=True)
    assert record.mismatches == 0
    assert record.spikes > 0
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    again = unit(kind).eval()
    again.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(again(x.float()), layer(x.float()))


@pytest.mark.parametrize("path", ["layer", "hooked", "called", "row"])
@pytest.mark.parametrize("kind", [*NORMS, "BatchNorm2d"])
def test_an_image_shown_several_times_counts_once(kind: str, path: str) -> None:
    """The unbiased variance is that of the image's pixels, on every way to the norm."""
    norm = nn.BatchNorm2d(C) if kind == "BatchNorm2d" else NORMS[kind](C, T)
    connection = nn.Conv2d(3, C, 3)
    image = torch.randn(2, 3, 4, 4)
    frames = image.expand(T, *image.shape)
    if path == "hooked":
        norm.register_forward_hook(lambda module, args, y: None)
    if path in ("layer", "hooked"):
        sf.SpikingLayer(connection, norm, sf.LIF())(frames)
    elif path == "row":
        sf.OverTime(connection, norm)(frames)
    else:
        over_time(norm, connection(image).expand(T, -1, -1, -1, -1))
    variance = connection(image).detach().double().transpose(0, 1).flatten(1).var(1)
    expected = (0.9 + 0.1 * variance).expand_as(norm.running_var)
    torch.testing.assert_close(norm.running_var.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_leaf_shown_several_times_has_the_gradient_of_each_step() -> None:
    x = torch.randn(2, 3).expand(T, 2, 3).requires_grad_()
    (over_time(nn.Identity(), x).sum((1, 2)) * torch.arange(T)).sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_an_image_shown_several_times_is_convolved_once(kind: str, training: bool) -> None:
    layer = unit(kind, membrane=False).train(training)
    with torch.no_grad():
        for _ in range(20):
            layer.train()(torch.randn(T, 8, 3, 5, 5))
    frames, wide = unit(kind, membrane=False), unit(kind, membrane=False).double()
    for other in (frames, wide):
        other.load_state_dict(layer.state_dict())
    seen: list[int] = []
    layer.connection.register_forward_hook(lambda module, args, y: seen.append(len(y)))
    image = torch.randn(8, 3, 5, 5)
    with sf.backend("fused"):
        spikes = layer.train(training)(image.expand(T, *image.shape))
    assert seen == [8]
    expected = wide.train(training)(image.double().repeat(T, 1, 1, 1, 1))
    assert (spikes != expected).float().mean() < 1e-3
    if kind != "tdBN":
        currents = layer.norm(layer.connection(image).expand(T, -1, -1, -1, -1))
        assert not any(torch.allclose(currents[0], currents[t]) for t in range(1, T))
    weights = torch.randn(spikes.shape)
    for fired in (spikes, expected):
        (fired * weights.to(fired.dtype)).sum().backward()
    for name, parameter in layer.named_parameters():
        grad = wide.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad.double(), grad, rtol=1e-2, atol=1e-2, msg=name)


@pytest.mark.parametrize("kind", ["BNTT", "TEBN", "TAB"])
def test_fusion_leaves_gain_and_shift_of_each_step(kind: str) -> None:
    """By hand from the tensors, in float64: nothing is subtracted or divided any more."""
    layer = unit(kind)
    for x in torch.randn(5, T, 8, 3, 5, 5):
        layer(2 * x + 1)
    layer.eval()
    fused, restated, norm = sf.fuse_conv_bn(layer), Restated(kind, layer), layer.norm
    assert type(fused.norm) is CurrentAffine
    assert fused.norm.weight.shape == fused.norm.bias.shape == (T, C)
    eps = 1e-4 if kind == "BNTT" else 1e-5
    for t in range(T):
        gain, shift = restated.affine(t)
        s = t if kind != "TEBN" else slice(None)
        scale = gain / (norm.running_var.double()[s] + eps).sqrt()
        expected = {"weight": scale, "bias": shift - norm.running_mean.double()[s] * scale}
        for name, value in expected.items():
            found = fused.norm.get_parameter(name)[t]
            torch.testing.assert_close(found.double(), value, rtol=2e-7, atol=2e-7)
    x = torch.randn(T, 8, 3, 5, 5)
    wide = fused.norm.weight.double()[:, None, :, None, None] * x.new_ones(1, 2, C, 3, 3).double()
    y = fused.norm(torch.ones(T, 2, C, 3, 3)).double()
    shift = fused.norm.bias.double()[:, None, :, None, None]
    torch.testing.assert_close(y, wide + shift, rtol=2e-7, atol=2e-7)
    assert sf.verify(layer, fused, [x], per_step=True).mismatch_rate < 1e-2
    with pytest.raises(ShapeError, match="CurrentAffine has maps for 4 time steps"):
        fused(x[:2])
    with pytest.raises(FoldError, match="nothing to fuse"):
        sf.fuse_conv_bn(fused)


def test_what_is_left_of_norms_is_streamed_and_saved(tmp_path: Path) -> None:
    row = nn.Sequential(
        unit("TEBN"), sf.SpikingLayer(nn.Conv2d(C, 5, 3), nn.BatchNorm2d(5), sf.LIF())
    )
    x = torch.randn(T, 8, 3, 5, 5)
    row(x)
    fused = sf.fuse_conv_bn(sf.fold(row.eval()))
    assert type(fused[0].norm) is CurrentAffine
    assert type(fused[1].norm) is nn.Identity
    assert not fused[0].norm.training
    state = None
    for t, spikes in enumerate(fused[0](x)):
        found, state = fused[0].step(x[t], state)
        assert torch.equal(found, spikes)
    sf.save(fused, tmp_path / "a.safetensors")
    torch.manual_seed(1)
    new = nn.Sequential(
        unit("TEBN"), sf.SpikingLayer(nn.Conv2d(C, 5, 3), nn.BatchNorm2d(5), sf.LIF())
    )
    assert torch.equal(sf.load(tmp_path / "a.safetensors", into=new)(x), fused(x))


def test_statistics_that_are_not_finite_are_refused_by_the_layer() -> None:
    row = nn.Sequential(unit("TAB")).eval()
    row[0].norm.running_var[1, 2] = torch.nan
    with pytest.raises(FoldError, match=r"layer '0': running statistics .* NaN or infinite"):
        sf.fuse_conv_bn(row)


def test_a_norm_without_weights_before_it_becomes_gain_and_shift() -> None:
    row = sf.OverTime(nn.AvgPool2d(2), sf.TdBN(3))
    for x in torch.randn(3, T, 4, 3, 6, 6):
        row(x)
    fused = sf.fuse_conv_bn(row.eval())
    assert type(fused[1]) is CurrentAffine
    assert fused[1].weight.shape == (1, 3)
    torch.testing.assert_close(fused(x[:2]), row(x[:2]), rtol=1e-5, atol=1e-6)


class Decayed(sf.CurrentNorm):
    """Makes a tensor, looks at values, and has statistics of each step but one gain."""

    def __init__(self, channels: int, steps: int | None) -> None:
        super().__init__(channels, steps)
        self.keep_statistics(T)
        self.weight = nn.Parameter(torch.ones(channels))

    def normalization(self) -> Normalization:
        gain = (self.weight * 0.9 ** torch.arange(1)[:, None]).abs()
        if (self.weight < 0).any():
            gain = -gain
        return Normalization(gain, torch.zeros_like(gain), 1e-5, self.fixed, over="each")


@pytest.mark.parametrize("steps", [T, None])
def test_norms_of_ones_own_are_fused_saved_and_loaded(
    steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decayed(builder: sf.models.Builder, width: float) -> list[nn.Module]:
        connection = nn.Conv2d(builder.channels, 5, 3)
        builder.channels = 5
        return [sf.SpikingLayer(connection, Decayed(5, steps), sf.LIF())]

    arguments = sf.models.Arguments(num_classes=3, in_channels=2, image_size=5, steps=T)

    def build(**_: Any) -> sf.models.Network:
        return sf.models.assemble("decayed", decayed, arguments)

    monkeypatch.setitem(sf.models.MODELS, "decayed", build)
    made = build()
    for x in torch.rand(3, T, 4, 2, 5, 5):
        made(x)
    fused = sf.fuse_conv_bn(made.eval())
    assert fused.layers()["features.0"].norm.weight.shape == (T, 5)
    assert sf.verify(made, fused, [x]).mismatch_rate < 1e-2
    sf.save(fused, tmp_path / "a.safetensors")
    assert torch.equal(sf.load(tmp_path / "a.safetensors")(x), fused(x))


def test_files_of_networks_that_kept_their_norms_are_read() -> None:
    """Fusion has two parts, each by its name: an older file tells of connections alone."""
    row = nn.Sequential(
        unit("TAB"), sf.SpikingLayer(nn.Conv2d(C, 5, 3), nn.BatchNorm2d(5), sf.LIF())
    ).eval()
    older = made_again(row, [("", "fuse_conv_bn")])
    assert (type(older[0].norm), type(older[1].norm)) == (sf.TAB, nn.Identity)
    done = transforms_in(sf.fuse_conv_bn(row))
    assert done == (("", "fuse_conv_bn"), ("", "affine_currents"))
    assert type(made_again(row, done)[0].norm) is CurrentAffine


@pytest.mark.parametrize("kind", list(NORMS))
def test_norms_with_hooks_are_refused_by_the_layer(kind: str) -> None:
    row = nn.Sequential(unit(kind), sf.SpikingLayer(nn.Conv2d(C, 5, 3), sf.TdBN(5), sf.LIF()))
    row[0].norm.register_forward_hook(lambda *_: None)
    with pytest.raises(FoldError, match=r"layer '0': .* cannot be fused: it carries .*hook"):
        sf.fuse_conv_bn(row.eval())


def test_fusion_leaves_what_computes_by_itself_and_fuses_the_rest() -> None:
    own = sf.SpikingLayer(nn.Conv2d(3, C, 3, padding=1), Called(C), sf.LIF())
    row = nn.Sequential(own, sf.SpikingLayer(nn.Conv2d(C, 5, 3), nn.BatchNorm2d(5), sf.LIF()))
    fused = sf.fuse_conv_bn(row.eval())
    assert type(fused[0].norm) is Called
    assert type(fused[1].norm) is nn.Identity


def test_one_map_for_all_steps_is_fused() -> None:
    layer = unit("tdBN").double()
    x = torch.randn(T, 8, 3, 5, 5, dtype=torch.float64)
    layer(x)
    fused = sf.fuse_conv_bn(layer.eval())
    assert type(fused.norm) is nn.Identity
    # the published formula by hand
    norm = layer.norm
    y = torch.stack([layer.connection(x_t) for x_t in x])
    mean, variance, gain, shift = (
        value[:, None, None]
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    expected = gain * 0.5 / 2**0.5 * (y - mean) / (variance + 1e-5).sqrt() + shift
    torch.testing.assert_close(torch.stack([fused.connection(x_t) for x_t in x]), expected)
    assert sf.verify(layer, fused, [x], per_step=True).mismatches == 0


def test_its_statistics_are_recalibrated() -> None:
    """One batch: the running statistics become those of each of its steps."""
    network = sf.models.small(in_channels=1, steps=T, width=0.25)
    first = network.layers()["features.0"]
    first.norm = BNTT(first.connection.out_channels, T)
    x = torch.rand(16, 1, 8, 8)
    samples = TensorSamples(x, torch.arange(16) % 10)
    new = recalibrate(network, samples, batch_size=16).layers()["features.0"]
    values = first.connection(x)
    torch.testing.assert_close(new.norm.running_mean, values.mean((0, 2, 3)).expand(T, -1))
    variance = values.movedim(1, 0).flatten(1).var(1)
    torch.testing.assert_close(new.norm.running_var, variance.expand(T, -1))


class Called(sf.CurrentNorm):
    """One that computes by itself."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = tuple(x.shape)
        return x.cumsum(0)


def test_one_with_a_forward_of_its_own_gets_the_sequence() -> None:
    convolution, norm = nn.Conv2d(3, C, 3, padding=1), Called(C)
    layer = sf.SpikingLayer(convolution, norm, sf.LIF())
    image = torch.randn(8, 3, 5, 5)
    spikes = layer(image.expand(T, *image.shape))
    assert norm.seen == (T, 8, C, 5, 5)
    currents = convolution(image) * torch.arange(1, T + 1).reshape(-1, 1, 1, 1, 1)
    torch.testing.assert_close(sf.LIF()(currents), spikes)
    row = sf.OverTime(convolution, norm)
    x = torch.randn(T, 8, 3, 5, 5)
    torch.testing.assert_close(row(x), sf.OverTime(convolution)(x).cumsum(0))


def test_it_stands_in_a_row_as_well() -> None:
    """As in the convolution of a shortcut."""
    layer = unit("BNTT").eval()
    row = sf.OverTime(layer.connection, layer.norm)
    x = torch.randn(T, 8, 3, 5, 5)
    assert torch.equal(layer.lif(row(x)), layer(x))


@pytest.mark.usefixtures("as_user")
def test_what_does_not_fit_is_refused() -> None:
    for run in (unit("BNTT"), sf.OverTime(nn.Conv2d(3, C, 3), BNTT(C, T))):
        with pytest.raises(
            ShapeError, match="BNTT has maps for 4 time steps, but the sequence has 3"
        ):
            run(torch.randn(3, 8, 3, 5, 5))
    layer = sf.SpikingLayer(nn.Conv2d(3, 5, 3), BNTT(C, T), sf.LIF())
    with pytest.raises(ShapeError, match=r"BNTT\(6\) expects currents \[T, N, 6, ...\], got"):
        layer(torch.randn(T, 8, 3, 5, 5))
    made: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
        (BNTT, (C, 0), {}, r"BNTT: steps must lie in \[1, inf\), got 0"),
        (BNTT, (4, 2.5), {}, r"BNTT: steps must be a whole number in \[1, inf\), got 2.5"),
        (BNTT, (4.0, 2), {}, "BNTT: a size of its shape must be a whole number .*, got 4.0"),
        (sf.TEBN, (4, True), {}, "TEBN: steps must be a whole number .*, got True"),
        (sf.TAB, (0, 2), {}, r"TAB: a size of its shape must lie in \[1, inf\), got 0"),
        (sf.TdBN, (6,), {"alpha": "x"}, r"TdBN: alpha must be a number in \(0, inf\), got 'x'"),
        (sf.TdBN, (6,), {"threshold": math.inf}, "TdBN: threshold must lie in .*, got inf"),
        (sf.MPBN, (6,), {"eps": "x"}, "MPBN: eps must be a number"),
        (sf.MPBN, (6,), {"momentum": "x"}, "MPBN: momentum must be a number"),
        (sf.MPBN, (6,), {"rate": 0.1, "threshold": math.inf}, "MPBN: threshold must lie in"),
    ]
    for norm, sizes, options, message in made:
        with pytest.raises(sf.ConfigError, match=message):
            norm(*sizes, **options)


@pytest.mark.usefixtures("as_user")
def test_tdbn_scales_to_the_threshold_of_its_neurons() -> None:
    """By hand: values of deviation 1 become 0.8 / 4 wide."""
    norm = sf.TdBN(1, threshold=0.8, alpha=0.25)
    x = torch.tensor([-1.0, 1.0]).reshape(1, 2, 1, 1, 1)
    torch.testing.assert_close(norm(x), 0.2 * x, rtol=1e-5, atol=0)
    sf.SpikingLayer(nn.Conv2d(3, 1, 1), norm, sf.LIF(threshold=0.8))
    with pytest.raises(sf.ConfigError, match=r"scales to the threshold 0.8, .* fire above 0.5"):
        sf.SpikingLayer(nn.Conv2d(3, 1, 1), norm, sf.LIF())


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_counts_are_normalized_as_numbers(dtype: torch.dtype) -> None:
    x = torch.randint(0, 2, (2, 4, 3, 5, 5)).to(dtype)
    norm = sf.TEBN(3, 2)
    y = norm.train()(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, sf.TEBN(3, 2).train()(x.float()))
