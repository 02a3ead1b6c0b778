"""`spikefold predict`: against the network called by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import spikefold as sf
from spikefold.cli import main


def recording(path: Path) -> None:
    """60 events of N-MNIST's format on a diagonal, over 60 ms."""
    rows = [
        bytes([n % 34, n % 34]) + ((n % 2) << 23 | n * 1000).to_bytes(3, "big") for n in range(60)
    ]
    path.write_bytes(b"".join(rows))


def trained(channels: int, size: int) -> sf.models.Network:
    network = sf.models.compact(4, in_channels=channels, image_size=size, steps=3, width=0.25)
    for _ in range(10):
        network(torch.rand(3, 8, channels, size, size))
    return network.eval()


def test_an_event_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = trained(2, 34)
    sf.save(sf.fold(network), tmp_path / "n.safetensors")
    recording(tmp_path / "r.bin")
    words = ["predict", str(tmp_path / "n.safetensors"), str(tmp_path / "r.bin")]
    assert main([*words, "--picture", str(tmp_path / "p.png"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    frames = torch.zeros(3, 1, 2, 34, 34)
    for n in range(60):
        frames[n * 1000 * 3 // 59_001, 0, n % 2, n % 34, n % 34] += 1
    confidence = network(frames).softmax(1)[0]
    assert record["label"] == int(confidence.argmax())
    assert record["confidence"] == pytest.approx(confidence.max().item(), rel=1e-5)
    assert len(record["runners_up"]) == 2
    assert list(record["spikes"]) == [f"features.{n}.lif" for n in (0, 2, 4, 6)]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert main(words) == 0
    assert "60 events, 34x34" in capsys.readouterr().out


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image(channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = trained(channels, 32)
    sf.save(network, tmp_path / "n.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    image.save(tmp_path / "image.png")
    words = ["predict", str(tmp_path / "n.safetensors"), str(tmp_path / "image.png")]
    assert main([*words, "--picture", str(tmp_path / "p.png"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    x = torch.from_numpy(np.array(image).reshape(32, 32, channels)).permute(2, 0, 1)[None] / 255
    confidence = network(x).softmax(1)[0]
    assert record["confidence"] == pytest.approx(confidence.max().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("channels", "file", "message"),
    [
        (2, "image.png", "not a known format of recordings"),
        (3, "r.bin", "not a readable image"),
        (3, "none.png", "no such file"),
        (2, "none.bin", "no such file"),
    ],
)
def test_mistakes(
    channels: int, file: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording(tmp_path / "r.bin")
    Image.new("RGB", (4, 4)).save(tmp_path / "image.png")
    sf.save(trained(channels, 32), tmp_path / "n.safetensors")
    assert main(["predict", str(tmp_path / "n.safetensors"), str(tmp_path / file)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
