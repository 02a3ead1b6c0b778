"""`check` of NIR files: passes what is the same, finds what is not."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import spikefold as sf
from spikefold.cli import main
from spikefold.errors import ExportError, FileFormatError
from tests.export.running import trained
from tests.export.test_networks import NETWORKS
from tests.export.test_nir import ready

nir = pytest.importorskip("nir", reason="nir is not here: pip install 'spikefold[export]'")


@pytest.fixture
def shipped(tmp_path: Path) -> tuple[nn.Module, Path, torch.Tensor]:
    """A folded network, its file for SpikingJelly, and images."""
    x = torch.rand(8, 1, 8, 8)
    network = sf.models.small(in_channels=1, steps=3, width=0.3, image_size=8)
    network = ready(network, x)
    sf.to_nir(network, tmp_path / "net.nir", target="spikingjelly")
    return network, tmp_path / "net.nir", x


def changed(path: Path, edit: Any) -> None:
    graph = nir.read(path)
    edit(graph)
    nir.write(path, graph)


def test_the_same_passes(shipped: Any) -> None:
    network, path, x = shipped
    for batches in ([x], [x.expand(3, *x.shape)], [(x, torch.zeros(8))]):
        record = sf.check(network, path, batches, runtime="spikefold")
        assert record.passed
        assert record.runtime == "spikefold"
        assert record.samples == 8
        # 10, 10, 19 and 19 channels, three steps
        assert record.file.decisions == (2 * 10 * 64 + 19 * 16 + 19 * 4) * 3 * 8
        assert record.file.first == record.file.beyond == 0


@pytest.mark.parametrize("name", ["twice", "named", "shortcut of the image"])
def test_networks_of_unusual_shapes(name: str, tmp_path: Path) -> None:
    make, x = NETWORKS[name]
    network = trained(make(), x, x)
    sf.to_nir(network, tmp_path / "net.nir", example=x)
    record = sf.check(network, tmp_path / "net.nir", [x])
    assert record.file.decisions > 0
    assert record.file.differ == record.file.classes == 0
    assert record.passed


def louder(graph: Any) -> None:
    graph.nodes["features_0_connection_above"].weight *= 1.05


def higher(graph: Any) -> None:
    graph.nodes["features_0_lif_above"].v_threshold[:] = 1.05


@pytest.mark.parametrize("edit", [louder, higher])
def test_another_file_fails(shipped: Any, edit: Any) -> None:
    network, path, x = shipped
    changed(path, edit)
    record = sf.check(network, path, [x], runtime="spikefold")
    assert not record.passed
    assert record.file.beyond > 0


@pytest.mark.usefixtures("as_user")
def test_bad_input(shipped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, path, x = shipped
    monkeypatch.setitem(sys.modules, "spikingjelly", None)
    for runtime, message in (
        (None, "net.nir: was written for spikingjelly, which is not installed: install it, or"),
        ("norse", "was written for spikingjelly or spikefold, not for norse"),
        ("onnxruntime", "was written for spikingjelly or spikefold, not for onnxruntime"),
        (lambda model: None, "a NIR file is run by the library it was written for"),
    ):
        with pytest.raises(ExportError, match=message):
            sf.check(network, path, [x], runtime=runtime)
    for batches, message in (
        ([], "check got no sample"),
        ([torch.rand(2, 1, 9, 9)], r"takes frames \[T, N, 1, 8, 8\], got \[2, 1, 9, 9\]"),
    ):
        with pytest.raises(ExportError, match=message):
            sf.check(network, path, batches, runtime="spikefold")
    other = nn.Sequential(sf.OverTime(nn.Conv2d(1, 1, 1)), sf.LIF())
    with pytest.raises(ExportError, match="exported from another network"):
        sf.check(other, path, [x.expand(3, *x.shape)], runtime="spikefold")
    changed(path, lambda graph: graph.metadata.clear())
    with pytest.raises(ExportError, match="not exported by spikefold"):
        sf.check(network, path, [x])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FileFormatError, match="not a NIR file, or damaged"):
        sf.check(network, path, [x])


def test_the_command(shipped: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, path, _ = shipped
    file = str(tmp_path / "net.safetensors")
    network.input_spec = sf.InputSpec(1, sf.data.Framing(size=8), tuple("0123456789"))
    sf.save(network, file)
    words = ["check", str(path), file, "--data", "digits", "--samples", "50"]
    assert main([*words, "--runtime", "spikefold", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["runtime"], record["passed"], record["samples"]) == ("spikefold", True, 50)
    changed(path, louder)
    assert main([*words, "--runtime", "spikefold"]) == 1
    assert "FAILED" in capsys.readouterr().out
