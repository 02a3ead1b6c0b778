"""Every model, and networks of unusual shapes: exported in every layout, and proved."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.export import Layout
from spikefold.models import MODELS
from tests.export.running import neurons, onnx, trained

SEEDED = torch.Generator().manual_seed(3)


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=SEEDED)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model(name: str, tmp_path: Path) -> None:
    x = rand(2, 3, 64, 64) if name in ("resnet18", "resnet34") else rand(2, 3, 33, 33)
    network = MODELS[name](num_classes=5, width=0.05, steps=2, norm="mpbn")
    network, path = sf.fold(trained(network, x, x)), tmp_path / "network.onnx"
    sf.to_onnx(network, path, example=x)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    record = sf.check(network, path, [x])
    assert record.file.decisions > 10_000
    assert record.passed
    assert record.file.differ < 1e-4 * record.file.decisions


class Twice(nn.Module):
    """One layer that is called twice, and no mean over time; names that the file uses itself."""

    def __init__(self) -> None:
        super().__init__()
        lif = sf.LIF(threshold=0.1)
        self.logits = sf.SpikingLayer(nn.Linear(4, 4, bias=False), nn.Identity(), lif)
        self.x = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.x(self.logits(self.logits(x)))


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x, self.logits = sf.LIF(), sf.LIF(decay=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.x(x)).mean(0)


class Line(nn.Module):
    """Sound: convolution, pools and means along one dimension."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv1d(2, 4, 3, padding="same")
        self.layer = sf.SpikingLayer(conv, nn.BatchNorm1d(4), sf.LIF())
        self.pools = sf.OverTime(nn.AvgPool1d(2), nn.MaxPool1d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pools(self.layer(x)).mean(-1).mean(0)


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv3d(2, 4, 3, padding=1)
        self.layer = sf.SpikingLayer(conv, nn.BatchNorm3d(4), sf.LIF())
        self.pool = sf.OverTime(nn.AvgPool3d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.layer(x)).mean((-3, -2, -1)).mean(0)


class ShortcutOfTheImage(nn.Module):
    """A value that stands still is added to, and put beside, spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sf.SpikingLayer(nn.Conv2d(1, 2, 1), nn.Identity(), sf.LIF())
        self.second = sf.SpikingLayer(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), sf.LIF())
        self.shortcut = sf.OverTime(nn.Conv2d(1, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        frames = sf.models.as_frames(x, None, 3, 1)
        second = self.second(self.first(frames), self.shortcut(frames))
        return torch.cat([second, frames], dim=2).mean((-2, -1)).mean(0)


NETWORKS: dict[str, tuple[type[nn.Module], Tensor]] = {
    "twice": (Twice, rand(5, 3, 4) - 0.5),
    "named": (Named, rand(5, 3, 4)),
    "line": (Line, rand(4, 3, 2, 16)),
    "volume": (Volume, rand(4, 2, 2, 4, 4, 4)),
    "shortcut of the image": (ShortcutOfTheImage, rand(4, 1, 6, 6)),
}


@pytest.mark.parametrize("layout", ["merged", "scan", "step"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_unusual_shapes(name: str, layout: Layout, tmp_path: Path) -> None:
    make, x = NETWORKS[name]
    network, path = trained(make(), x, x), tmp_path / "network.onnx"
    sf.to_onnx(network, path, layout=layout, spikes=neurons(network), example=x)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    record = sf.check(network, path, [x])
    assert record.file.decisions > 0
    assert record.file.differ == record.file.classes == 0
    assert record.passed
