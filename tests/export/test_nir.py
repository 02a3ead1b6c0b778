"""Networks as NIR graphs: their spikes by NIR's equations in exact numbers, and back again."""

import json
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikefold as sf
from spikefold import export
from spikefold.cli import main
from spikefold.dynamics import Condition, Neuron
from spikefold.errors import ExportError, FileFormatError
from spikefold.models import MODELS, Standardize
from spikefold.nn import Call, observing
from tests.adopt.nir_equations import simulate

nir = pytest.importorskip("nir", reason="nir is not here: pip install 'spikefold[export]'")

SUFFIXES = ("_above", "_below", "_at_zero")


def dyadic(*shape: int) -> Tensor:
    """Numbers that add up without rounding, in whatever order."""
    return torch.randint(-8, 9, shape) / 8


def exact(module: nn.Module) -> nn.Module:
    """The module with parameters of which sums are exact."""
    for name, parameter in module.named_parameters():
        values = dyadic(*parameter.shape)
        parameter.data = 2.0 ** values.sign() if "norm" in name and "weight" in name else values
    return module


def spikes_of(network: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}

    def see(name: str, call: Call) -> None:
        seen[name] = call.fired.spikes

    with torch.no_grad(), observing(network, see):
        y = network(x)
    return y, seen


def together(parts: dict[str, Tensor], path: str, like: Tensor) -> Tensor:
    """Spikes of all populations that a layer became."""
    name = path.replace(".", "_")
    mine = [spikes for key, spikes in parts.items() if _without_suffix(key) == name]
    assert mine, f"{name} is not among {list(parts)}"
    return sum(mine).reshape(like.shape)


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES * 2:
        name = name.removesuffix(suffix)
    return name


class Net(nn.Module):
    """Every kind of operation: a norm, a shortcut, pools that pad or not, flattening, a mean."""

    def __init__(self, neurons: Any, shortcut: bool) -> None:
        super().__init__()
        self.input = sf.OverTime(Standardize(2))
        self.first = sf.SpikingLayer(
            nn.Conv2d(2, 4, 3, padding="same", groups=2), nn.BatchNorm2d(4, eps=0.0),
            neurons(4, 8, 8),
        )  # fmt: skip
        self.pool = sf.OverTime(nn.AvgPool2d(2), nn.AvgPool2d(2, 1, 1))
        self.second = sf.SpikingLayer(
            nn.Conv2d(4, 4, 3, padding=1), nn.Identity(), neurons(4, 5, 5)
        )
        self.pool_again = sf.OverTime(nn.AvgPool2d(2))
        self.third = sf.SpikingLayer(nn.Linear(16, 6), nn.BatchNorm1d(6, eps=0.0), neurons(6))
        self.readout = nn.Linear(6, 3)
        self.shortcut = shortcut
        exact(self)
        self.input[0].mean.copy_(dyadic(2))
        self.input[0].deviation.fill_(0.5)
        for norm in (self.first.norm, self.third.norm):
            norm.running_mean.copy_(dyadic(len(norm.running_mean)))
            norm.running_var.fill_(0.25)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(self.input(x)))
        x = self.second(x, x) if self.shortcut else self.second(x)
        x = self.third(torch.flatten(self.pool_again(x), 2))
        return self.readout(x).mean(0)


def drawn(values: list[float], kind: str, shape: tuple[int, ...]) -> Tensor:
    sizes = {"layer": (), "channel": shape[:1], "neuron": shape}[kind]
    return torch.tensor(values)[torch.randint(len(values), sizes)]


def _like(value: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return value.reshape((*value.shape, *(1,) * (len(sizes) - value.ndim))).expand(sizes).clone()


PER = st.sampled_from(["layer", "channel", "neuron"])
TARGETS: dict[Any, tuple[dict[str, Any], list[float]]] = {
    None: ({}, [0.3, 0.5, -0.25, 0.0, torch.inf, -torch.inf]),
    "norse": ({"dt": 1e-3, "if_dt": 1.0}, [0.3, 0.5, -0.25, 0.0, torch.inf, -torch.inf]),
    "snntorch": ({}, [0.5, 0.25, 1.0, 0.0, torch.inf, -torch.inf]),
    "spikingjelly": ({"at_threshold": True}, [0.5, 0.25, -0.25, -1.0, 0.0, torch.inf, -torch.inf]),
}


@settings(max_examples=30)
@given(
    target=st.sampled_from(list(TARGETS)),
    seed=st.integers(0, 10_000),
    thresholds=PER,
    signs=PER,
    decays=PER,
)
def test_spikes_are_those_of_the_equations(
    target: Any, seed: int, thresholds: str, signs: str, decays: str
) -> None:
    """Of the graph, simulated; of the graph read back, too."""
    torch.manual_seed(seed)
    equations, values = TARGETS[target]
    if target in ("snntorch", "spikingjelly"):
        thresholds, signs = (kind.replace("neuron", "channel") for kind in (thresholds, signs))
    if target == "norse":
        signs = signs.replace("neuron", "channel")
    decays = "layer" if target == "spikingjelly" else decays.replace("neuron", "channel")

    def neurons(*shape: int) -> nn.Module:
        theta, sign = drawn(values, thresholds, shape), drawn([1.0, -1.0], signs, shape)
        decay = drawn([0.5, 0.75], decays, shape) if seed % 3 else torch.ones(())
        sizes = max(theta.shape, sign.shape, key=len)
        if target == "snntorch":
            theta, sign = _like(theta, sizes) * _like(sign, sizes), _like(sign, sizes)
        spread = [_like(value, sizes) for value in (theta, sign)]
        return sf.FoldedLIF(Condition(None, *(v[None] for v in spread)), Neuron(), decay)

    network, x = Net(neurons, shortcut=target != "norse").eval(), dyadic(4, 3, 2, 8, 8)
    graph = export.nir_graph(network, target=target, example=x)
    expected, spikes = spikes_of(network, x)
    simulated = simulate(graph, x, **equations)
    made, found = spikes_of(sf.from_nir(graph), x)
    found = {name.removeprefix("parts."): value for name, value in found.items()}
    assert set(spikes) == {"first.lif", "second.lif", "third.lif"}
    for name, value in spikes.items():
        assert torch.equal(together(simulated, name, value).float(), value), name
        assert torch.equal(together(found, name, value), value), name
    for output in (simulated["output"], made):
        torch.testing.assert_close(output.mean(0).flatten(1).float(), expected)


def test_a_third_of_the_potential_remains_exactly() -> None:
    """Decays are those of float32, from float64 tau: dt / tau of a float32 tau would be off."""
    for decay in (0.25, 1 / 3, 0.9, 0.1):
        layer = nn.Sequential(sf.OverTime(nn.Linear(2, 2)), sf.LIF(decay=decay))
        made = sf.from_nir(export.nir_graph(layer, example=torch.ones(3, 1, 2)))
        assert np.float32(made.parts["1"].constants.decay) == np.float32(decay)
        assert made.parts["1"].constants.threshold == 0.5


class Twice(nn.Module):
    """Sums of the same, a norm of a sum, a mean that keeps its dimensions, a second output edge."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sf.SpikingLayer(nn.Conv2d(2, 4, 3), nn.Identity(), sf.LIF())
        self.merge = sf.SpikingLayer(nn.Identity(), nn.BatchNorm2d(4, eps=0.0), sf.IF())
        self.again = sf.OverTime(nn.Conv2d(4, 4, 1))
        self.last = sf.OverTime(nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.merge(self.again(x) + x)
        z = (y + y).mean((-2, -1), keepdim=True)
        return (self.last(z) + self.last(self.again(y).mean((-2, -1), keepdim=True))).mean(0)


class Rows(nn.Module):
    """One spatial dimension, and none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sf.SpikingLayer(nn.Conv1d(2, 4, 3, 2), nn.BatchNorm1d(4, eps=0.0), sf.LIF())
        self.pool = sf.OverTime(nn.AvgPool1d(2))
        self.second = sf.SpikingLayer(nn.Linear(8, 5), nn.Identity(), sf.LIF(decay=0.5))
        self.readout = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.second(self.pool(self.first(x)).flatten(2))).mean(0)


class Branches(nn.Module):
    """Channels side by side; sizes and kernels that are not square."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.left = sf.SpikingLayer(nn.Conv2d(2, 4, (1, 3)), nn.Identity(), sf.LIF())
        self.right = sf.SpikingLayer(nn.Conv2d(2, 3, (5, 3), 1, (2, 0)), nn.Identity(), sf.LIF())
        self.both = sf.SpikingLayer(nn.Conv2d(7, 4, (2, 4), 2), nn.Identity(), sf.LIF())
        self.flat = flat
        self.readout = nn.Linear(4 * 3 * 4 if flat else 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.both(torch.cat([self.left(x), self.right(x)], 2))
        return self.readout(x.flatten(2) if self.flat else x.mean((-2, -1))).mean(0)


def features() -> nn.Module:
    parts = [sf.OverTime(nn.Linear(5, 8)), sf.IF(), sf.OverTime(nn.Linear(8, 3))]
    return nn.Sequential(*parts)


def converted() -> nn.Module:
    cnn = nn.Sequential(
        *(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8, eps=0.0),
            nn.ReLU(),
            nn.AvgPool2d(4, 2, 1),
        ),
        *(nn.Conv2d(8, 8, 3, groups=4, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4)),
    )
    network = sf.convert(cnn, steps=4, norm="none", weights=True)
    return network


@pytest.mark.parametrize(
    ("make", "shape"),
    [(partial(Branches, flat), (2, 7, 12)) for flat in (True, False)]
    + [(Twice, (2, 6, 6)), (Rows, (2, 9)), (features, (5,)), (converted, (2, 9, 9))],
)
def test_structures(make: Any, shape: tuple[int, ...]) -> None:
    network, x = exact(make()).eval(), dyadic(4, 6, *shape)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm1d)):
        norm.running_mean.fill_(0.5)
    graph = export.nir_graph(network, example=x)
    expected, spikes = spikes_of(network, x)
    made, found = spikes_of(sf.from_nir(graph), x)
    simulated = simulate(graph, x)
    for name, value in spikes.items():
        assert 0.02 < value.mean() < 0.98, name
        assert torch.equal(together(simulated, name, value).float(), value), name
    assert sum(value.sum() for value in found.values()) == sum(v.sum() for v in spikes.values())
    logits = made if expected.ndim == made.ndim else made.mean(0)
    torch.testing.assert_close(logits.reshape(expected.shape), expected)
    assert len([end for _, end in graph.edges if end == "output"]) == 1


def ready(network: nn.Module, x: Tensor) -> nn.Module:
    """With statistics, and gains and shifts of either sign; folded."""
    network.train()
    with torch.no_grad():
        network(x)
    for module in network.modules():
        if isinstance(module, sf.MPBN):
            module.weight.data.uniform_(-0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    return sf.fold(network.eval())


@pytest.mark.parametrize("norm", ["mpbn", "mpbn-element"])
@pytest.mark.parametrize("name", ["small", "compact", "resnet18", "resnet20", "vgg16"])
def test_models(name: str, norm: str, tmp_path: Path) -> None:
    """Fused, rounded otherwise: a tie may fall otherwise, and most do not."""
    size = 16 if name in ("small", "compact", "resnet20") else 32
    options: dict[str, Any] = {"width": 0.05, "steps": 2, "image_size": size, "norm": norm}
    x, path = torch.rand(2, 2, size, size), tmp_path / "net.nir"
    network = ready(MODELS[name](num_classes=5, in_channels=2, **options), x)
    frames = x.expand(2, *x.shape)
    expected, spikes = spikes_of(sf.fuse_conv_bn(network), frames)
    for target in (None, "norse", "spikingjelly"):
        sums = target == "norse" and name.startswith("resnet")
        if sums or (target is not None and norm == "mpbn-element"):
            with pytest.raises(ExportError, match=r"meet in it|differ from place to place"):
                sf.to_nir(network, path, target=target, example=x)  # type: ignore[arg-type]
            assert not list(tmp_path.iterdir())
            continue
        sf.to_nir(network, path, target=target, example=x)  # type: ignore[arg-type]
        nir.read(path, type_check=True)
        made, found = spikes_of(sf.from_nir(path), frames)
        path.unlink()
        found = {key.removeprefix("parts."): value for key, value in found.items()}
        differ = sum(int((together(found, key, v) != v).sum()) for key, v in spikes.items())
        compared = sum(value.numel() for value in spikes.values())
        assert compared > 1000
        assert differ <= 1e-4 * compared
        if not differ:
            logits = made.mean(0).flatten(1)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def layered(lif: nn.Module, connection: nn.Module | None = None) -> nn.Module:
    return sf.SpikingLayer(connection or nn.Conv2d(2, 3, 3), nn.Identity(), lif)


def thresholds(*theta: float) -> nn.Module:
    return sf.FoldedLIF(Condition(None, torch.tensor([theta])), Neuron(decay=0.5))


def decays(*decay: float) -> nn.Module:
    return layered(sf.FoldedLIF(Condition(None, torch.ones(1)), Neuron(), torch.tensor(decay)))


def followed(module: nn.Module) -> nn.Module:
    return nn.Sequential(layered(sf.LIF()), module)


UNEVEN = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
CEIL = nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=1)
PLACES = sf.FoldedLIF(Condition(None, torch.rand(1, 3, 4, 4)), Neuron())
STEPS = sf.fold(sf.SpikingLayer(nn.Conv2d(2, 3, 3), nn.Identity(), sf.LIF(sf.MPBN(3, steps=2))))


FRAMES = torch.ones(2, 1, 2, 6, 6)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("network", "target", "message"),
    [
        (layered(sf.LIF(sf.MPBN(3))), None, "'lif' (LIF): its membrane norm is not folded"),
        (layered(sf.LIF(reset="soft")), None, "'lif' (LIF): NIR has no soft reset"),
        (STEPS, None, "'lif' (FoldedLIF): NIR has no thresholds that change over time"),
        (layered(thresholds(0.5, -0.5, 1.0)), "snntorch",
         "'lif' (FoldedLIF): has thresholds below 0 (16 of 48 neurons), which snnTorch computes"),
        (layered(sf.LIF(threshold=-0.5)), "snntorch", "below 0 (48 of 48 neurons), which snnTorch"),
        (layered(sf.LIF(decay=0.0)), "spikingjelly", "SpikingJelly takes no decay of 0"),
        (layered(sf.LIF()), "sinabs", "unknown target 'sinabs'"),
        (decays(0.5, 0.25, 1.0), "spikingjelly", "its decays differ: SpikingJelly takes one a lay"),
        (decays(0.5, 0.25, 1.0), "norse", "some of its decays are 1: Norse takes all or none"),
        (layered(thresholds(1e-40, 0.5, 0.5)), "spikingjelly", "go beyond float32"),
        (layered(PLACES), "snntorch", "'lif' (FoldedLIF): its neurons differ from place to place"),
        (followed(sf.OverTime(nn.MaxPool2d(2))), None, "'1.0' (MaxPool2d): NIR has no maximum"),
        (followed(sf.OverTime(UNEVEN)), None, "'1.0' (AvgPool2d): its averages leave out the padd"),
        (followed(sf.OverTime(CEIL)), None, "'1.0' (AvgPool2d): its windows reach over one end"),
        (followed(nn.Linear(4, 2)), None, "'1' (Linear): takes [3, 4, 4], and NIR's only one dim"),
        (layered(sf.LIF(), nn.Conv2d(2, 3, (2, 3))), None, "kernel of [2, 3]: NIR's must be"),
        (layered(sf.LIF(), nn.ConvTranspose2d(2, 3, 3)), None, "of a type that cannot be exported"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_name(
    network: nn.Module, target: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as raised:
        sf.to_nir(network, tmp_path / "net.nir", target=target, example=FRAMES)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ready(sf.models.small(in_channels=1, steps=3, width=0.2, image_size=8),
                    x := torch.rand(4, 1, 8, 8))  # fmt: skip
    framing = sf.data.Framing(size=8)
    network.input_spec = sf.InputSpec(1, framing, classes=tuple("0123456789"))
    file, out = str(tmp_path / "net.safetensors"), str(tmp_path / "net.nir")
    sf.save(network, file)
    words = ["export", file, "--to", "nir", "--for", "spikingjelly", "-o", out, "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"output": out, "to": "nir", "for": "spikingjelly",
                    "bytes": Path(out).stat().st_size}  # fmt: skip
    made = sf.from_nir(out)
    assert made.input_spec == network.input_spec
    found = made(x.expand(3, *x.shape)).mean(0).flatten(1)
    torch.testing.assert_close(found, network(x), rtol=1e-4, atol=1e-5)
    described = json.loads(nir.read(out).metadata["spikefold"]["description"])
    assert described["source"] == sha256(Path(file).read_bytes()).hexdigest()
    assert described["neurons"][0][0] == "features.0.lif"
    assert main(words) == 1
    assert "already exists: --overwrite replaces it" in capsys.readouterr().err
    for wrong in (["--fuse"], ["--layout", "step"]):
        assert main([*words, *wrong]) == 2
    assert main(["export", file, "--for", "norse", "-o", f"{out}.onnx"]) == 2


@pytest.mark.parametrize("to", ["onnx", "torch", "nir"])
def test_what_was_imported_is_exported_again(to: str, tmp_path: Path) -> None:
    """Its pools are sums."""
    x = torch.rand(3, 4, 2, 16, 16)
    network = ready(sf.models.compact(in_channels=2, steps=3, width=0.2, image_size=16), x)
    sf.to_nir(network, tmp_path / "net.nir", example=x)
    made = sf.from_nir(tmp_path / "net.nir")
    assert any(getattr(part, "divisor_override", None) == 1 for part in made.modules())
    {"onnx": sf.to_onnx, "torch": sf.to_torch, "nir": sf.to_nir}[to](
        made, tmp_path / "again", example=x
    )
    record = sf.check(made, tmp_path / "again", [x])
    assert record.file.decisions > 10_000
    assert record.file.differ == 0
    assert spikes_of(made, x)[0].abs().mean() > 0.01


@pytest.mark.usefixtures("as_user")
def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = layered(thresholds(0.5, -0.5, 1.0)).eval()
    with pytest.raises(FileFormatError, match="cannot write"):
        sf.to_nir(network, "/proc/net.nir", example=FRAMES)
    sf.to_nir(network, tmp_path / "net.nir", target="spikingjelly", example=FRAMES)
    assert [path.name for path in tmp_path.iterdir()] == ["net.nir"]
    # the file says that it fires at the threshold; who says otherwise is followed
    x = torch.randn(2, 4, 2, 6, 6)
    assert (sf.from_nir(tmp_path / "net.nir").parts["lif_above"].constants.threshold) == 1.0
    said = sf.from_nir(tmp_path / "net.nir", source="nir")
    assert said.parts["lif_above"].constants.threshold > 1.0
    assert torch.equal(sf.from_nir(tmp_path / "net.nir")(x), network(x))
    graph = nir.read(tmp_path / "net.nir")
    graph.metadata["spikefold"]["lif_step"] = "soon"
    with pytest.raises(sf.AdoptError, match="what the graph says of dt is damaged: give source="):
        sf.from_nir(graph)
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ExportError, match=r"NIR needs nir: pip install 'spikefold\[export\]'"):
        sf.to_nir(network, tmp_path / "other.nir", example=FRAMES)
