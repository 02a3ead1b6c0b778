"""ONNX files: other runtimes fire the same spikes, in every layout."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ExportError
from spikefold.export import Layout
from tests.export.running import (
    eager,
    neurons,
    onnx,
    onnxruntime_of,
    reference_of,
    run,
    trained,
)
from tests.nn.current_norms import NORMS

LAYOUTS: list[Layout] = ["merged", "scan", "step"]
SEEDED = torch.Generator().manual_seed(1)
IMAGES = torch.rand(4, 1, 8, 8, generator=SEEDED)
FRAMES = torch.rand(3, 4, 2, 8, 8, generator=SEEDED)


def small(**options: object) -> nn.Module:
    network = sf.models.small(in_channels=1, steps=3, image_size=8, width=0.2, **options)
    network = trained(network, IMAGES, IMAGES)
    return network if options["norm"] == "none" else sf.fold(network)


class Own(nn.Module):
    """Flattening, concatenation, several means, layers over numbers instead of images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sf.SpikingLayer(nn.Conv2d(2, 4, 3, padding=1), nn.Identity(), sf.IF())
        self.second = sf.SpikingLayer(
            nn.Conv2d(4, 4, (4, 2), padding="same", groups=2),
            nn.BatchNorm2d(4),
            sf.LIF(sf.MPBN((4, 8, 8)), reset="soft", threshold=0.3, decay=0.7),
        )
        self.pool = sf.OverTime(nn.MaxPool2d(2), nn.Flatten())
        self.third = sf.SpikingLayer(nn.Linear(128, 6), nn.BatchNorm1d(6), sf.PLIF(sf.MPBN(6)))
        self.last = nn.Linear(6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        both = torch.cat([first, self.second(first, first)], dim=2)
        return self.last(self.third(self.pool(both))).mean(0)


def own() -> nn.Module:
    return sf.fold(trained(Own(), FRAMES, FRAMES))


def constant_neurons() -> nn.Module:
    """Some that always fire, some that never do."""
    network = small(norm="mpbn")
    network.features[1].lif.theta[:3] = torch.tensor([-torch.inf, torch.inf, -0.25])
    return network


def converted() -> nn.Module:
    cnn = nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    return sf.fold(trained(sf.convert(cnn, steps=3), IMAGES, IMAGES))


CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "channel": (lambda: small(norm="mpbn", learn_decay="channel"), IMAGES),
    "element": (lambda: small(norm="mpbn-element", standardize=True), IMAGES),
    "steps": (lambda: small(norm="mpbn-steps", learn_decay="layer"), IMAGES),
    "none": (lambda: small(norm="none"), IMAGES),
    "constant": (constant_neurons, IMAGES),
    "own": (own, FRAMES),
    "converted": (converted, IMAGES),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_the_same_spikes_in_onnxruntime(case: str, layout: Layout, tmp_path: Path) -> None:
    make, x = CASES[case]
    network, path = make(), tmp_path / "network.onnx"
    sf.to_onnx(network, path, layout=layout, spikes=neurons(network), example=x)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for batch in (x, x[..., :1, :, :, :]):  # any batch
        expected, seen = eager(network, batch), run(path, batch, 3)
        assert len(neurons(network)) > 1
        for name in neurons(network):
            np.testing.assert_array_equal(seen[name], expected[name], err_msg=name)
            assert batch is not x or 0 < expected[name].mean() < 1
        np.testing.assert_allclose(seen["logits"], expected["logits"], atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ["steps", "own"])
def test_the_same_spikes_in_the_reference(case: str, layout: Layout, tmp_path: Path) -> None:
    make, x = CASES[case]
    network, path = make(), tmp_path / "network.onnx"
    sf.to_onnx(network, path, layout=layout, spikes=neurons(network), example=x)
    expected, seen = eager(network, x), run(path, x, 3, reference_of)
    for name in neurons(network):
        np.testing.assert_array_equal(seen[name], expected[name], err_msg=name)


def test_blocks_with_shortcuts_and_fused_weights(tmp_path: Path) -> None:
    x = torch.rand(2, 3, 16, 16)
    network = sf.models.resnet20(width=0.05, steps=2, image_size=16)
    network, path = sf.fold(trained(network, x, x)), tmp_path / "network.onnx"
    expected = eager(network, x)
    for fuse in (False, True):
        sf.to_onnx(network, path, fuse=fuse, spikes=neurons(network))
        assert "BatchNormalization" not in {n.op_type for n in onnx.load(path).graph.node}
        seen = run(path, x, 2)
        differ = sum(int((seen[name] != expected[name]).sum()) for name in neurons(network))
        assert differ <= 2 * fuse


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_a_potential_at_the_threshold_does_not_fire(
    layout: Layout, reset: Any, tmp_path: Path
) -> None:
    """Quarters, and nothing is rounded: by hand, v = decay v + x, spike if v > 0.5."""
    network = sf.SpikingLayer(
        nn.Linear(1, 1, bias=False), nn.Identity(), sf.LIF(reset=reset, decay=0.5)
    )
    nn.init.ones_(network.connection.weight)
    path, x = tmp_path / "network.onnx", torch.tensor([0.5, 0.25, 0.5, 1.0, 0.25]).view(5, 1, 1)
    sf.to_onnx(network, path, layout=layout, spikes=["lif"], example=x)
    # u: 0.5, 0.5, 0.75, reset to 0 or 0.25; 1 or 1.125, reset to 0 or 0.625; 0.25 or 0.5625
    expected = [0, 0, 1, 1, 0 if reset == "hard" else 1]
    assert run(path, x, 5)["lif"].flatten().tolist() == expected


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norms_that_know_time(norm: str, layout: Layout, tmp_path: Path) -> None:
    network = sf.SpikingLayer(nn.Conv2d(2, 4, 3), NORMS[norm](4, 3), sf.LIF())
    network, path = trained(network, FRAMES, FRAMES), tmp_path / "network.onnx"
    sf.to_onnx(network, path, layout=layout, spikes=["lif"], example=FRAMES)
    np.testing.assert_array_equal(run(path, FRAMES, 3)["lif"], eager(network, FRAMES)["lif"])


POOLS: list[tuple[nn.Module, int]] = [
    (nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), 7),
    (nn.AvgPool2d(2, ceil_mode=True), 7),
    (nn.AvgPool2d(3, 2, 1), 7),
    (nn.AvgPool2d(3, 2, 1, count_include_pad=False), 8),
    (nn.AvgPool2d((2, 4), stride=(1, 3)), 9),
    (nn.AvgPool2d(3, 2, 1, divisor_override=1), 7),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5), 8),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), 8),
    (nn.MaxPool2d(2, 3, dilation=2), 9),
    (nn.MaxPool2d(2, 3, ceil_mode=True), 7),
    (nn.AdaptiveAvgPool2d((2, None)), 8),
    (nn.AdaptiveMaxPool2d(4), 8),
]


@pytest.mark.parametrize(("pool", "size"), POOLS, ids=str)
def test_pools(pool: nn.Module, size: int, tmp_path: Path) -> None:
    network, path = sf.OverTime(pool).eval(), tmp_path / "pool.onnx"
    x = torch.randn(2, 3, 4, size, size)
    sf.to_onnx(network, path, example=x)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    for runtime in (onnxruntime_of, reference_of):
        seen = run(path, x, 2, runtime)["logits"]
        np.testing.assert_allclose(seen, network(x).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        (nn.AvgPool2d(3, 2, 1, ceil_mode=True), "ceil_mode with padding that counts"),
        (nn.AdaptiveAvgPool2d(3), "[8, 8] into [3, 3]: its windows differ in size"),
        (nn.FractionalMaxPool2d(2, 4), "of a kind that cannot be exported"),
    ],
)
def test_pools_that_cannot_be_said(pool: nn.Module, why: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as error:
        sf.to_onnx(sf.OverTime(pool), tmp_path / "pool.onnx", example=torch.rand(2, 3, 4, 8, 8))
    assert why in str(error.value)
    assert not list(tmp_path.iterdir())


def test_scan_takes_any_number_of_steps(tmp_path: Path) -> None:
    network, path = small(norm="mpbn"), tmp_path / "network.onnx"
    sf.to_onnx(network, path, layout="scan", spikes=neurons(network))
    frames = torch.rand(7, 2, 1, 8, 8)
    expected, seen = eager(network, frames), run(path, frames, 7)
    for name in neurons(network):
        np.testing.assert_array_equal(seen[name], expected[name])


def test_scan_of_thresholds_of_each_step_fixes_their_number(tmp_path: Path) -> None:
    network, path = small(norm="mpbn-steps"), tmp_path / "network.onnx"
    sf.to_onnx(network, path, layout="scan")
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    network, path = small(norm="mpbn"), tmp_path / "network.onnx"
    network.input_spec = sf.InputSpec(1, sf.data.Framing(size=8), classes=tuple("abcdefghij"))
    source = tmp_path / "network.safetensors"
    sf.save(network, source)
    sf.to_onnx(network, path, source=source)
    model = onnx.load(path)
    (entry,) = model.metadata_props
    record = json.loads(entry.value)
    assert (record["layout"], record["steps"], record["image"]) == ("merged", 3, True)
    assert record["input"]["classes"] == [*"abcdefghij"]
    assert record["version"] == sf.__version__ == model.producer_version
    assert [path for path, _ in record["neurons"]] == neurons(network)
    names = {name for node in model.graph.node for name in node.output}
    assert {name for _, name in record["neurons"]} <= names
    assert len(record["source"]) == 64
    assert model.opset_import[0].version == 18


def test_wishes_that_cannot_be_met(
    tmp_path: Path, as_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, path = small(norm="mpbn"), tmp_path / "network.onnx"
    with pytest.raises(ExportError, match=r"unknown layer of neurons 'features.9.lif': did you"):
        sf.to_onnx(network, path, spikes=["features.9.lif"])
    with pytest.raises(ExportError, match="unknown layout 'scanned': did you mean 'scan'"):
        sf.to_onnx(network, path, layout="scanned")
    with pytest.raises(ExportError, match=r"'features.0.lif' .* not folded: export sf.fold"):
        sf.to_onnx(sf.models.small(in_channels=1, steps=3), path)
    late = nn.Sequential(small(norm="none"), nn.Linear(10, 2)).eval()
    sf.to_onnx(late, path, example=IMAGES)
    np.testing.assert_allclose(
        run(path, IMAGES, 3)["logits"], late(IMAGES).detach().numpy(), atol=1e-6
    )
    path.unlink()
    with pytest.raises(ExportError, match="follows the mean over time"):
        sf.to_onnx(late, path, layout="step", example=IMAGES)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"needs onnx: pip install 'spikefold\[export\]'"):
        sf.to_onnx(network, path)
    assert not path.exists()
