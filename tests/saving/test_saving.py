"""Files: what is written comes back, and what is broken is named in one line."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import spikefold as sf
from spikefold.errors import ConfigError, FileFormatError
from spikefold.saving import read
from spikefold.saving._file import checksum


def trained(norm: sf.models.Norm = "mpbn") -> sf.models.Network:
    """A small network with statistics, and gains of both signs."""
    neuron = sf.Neuron(reset="soft", surrogate=sf.Atan(3.0))
    network = sf.models.small(
        5, norm, in_channels=1, image_size=8, width=0.25, steps=3, neuron=neuron
    )
    for x in torch.rand(20, 4, 1, 8, 8):
        network(x)
    for module in network.modules():
        if isinstance(module, sf.MPBN):
            nn.init.normal_(module.weight)
    return network.eval()


@pytest.mark.parametrize("norm", ["mpbn", "mpbn-element"])
@pytest.mark.parametrize("transforms", [(), ("fold",), ("fuse_conv_bn",), ("fold", "fuse_conv_bn")])
def test_networks_come_back_to_the_bit(
    tmp_path: Path, norm: sf.models.Norm, transforms: tuple[str, ...]
) -> None:
    network = trained(norm)
    for name in transforms:
        network = getattr(sf, name)(network)
    sf.save(
        network, tmp_path / "network.safetensors", extra={"note": [1]}, tensors={"a": torch.ones(2)}
    )
    again = read(tmp_path / "network.safetensors")
    x = torch.rand(6, 1, 8, 8)
    assert torch.equal(network(x), again.network(x))
    assert network(x).abs().sum() > 0
    assert again.network.arguments == network.arguments
    assert again.network.transforms == transforms
    assert again.extra == {"note": [1]}
    assert again.tensors["a"].tolist() == [1, 1]
    assert not again.network.training


def test_a_folded_network_of_positive_polarity_comes_back(tmp_path: Path) -> None:
    network = sf.fold(sf.models.small(in_channels=1))
    sf.save(network, tmp_path / "f.safetensors")
    again = sf.load(tmp_path / "f.safetensors")
    assert again.state_dict().keys() == network.state_dict().keys()
    folded = [module for module in again.modules() if isinstance(module, sf.FoldedLIF)]
    assert folded
    assert all(module.polarity.min() == 1 for module in folded)


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.safetensors"
    sf.save(trained(), path)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(FileFormatError, match="No space left on device"):
        sf.save(trained(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["network.safetensors"]


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileFormatError, match=r"cannot write .*file/network"):
        sf.save(trained(), tmp_path / "file" / "network.safetensors")


def rewrite(path: Path, **changes: object) -> None:
    """Change entries of the JSON header and keep the tensors."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["spikefold"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header |= changes
    header["checksum"] = checksum(header, tensors)
    safetensors.torch.save_file(tensors, path, {"spikefold": json.dumps(header)})


def test_broken_files_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    sf.save(trained(), path)
    whole = path.read_bytes()

    def message() -> str:
        with pytest.raises(FileFormatError) as caught:
            sf.load(path)
        text = str(caught.value)
        assert str(path) in text
        assert "\n" not in text
        return text

    for damaged in (b"", whole[:7], whole[:200], whole[:-1], b"\x80\x04pickle" * 9):
        path.write_bytes(damaged)
        assert "cut off or damaged" in message()
    path.write_bytes(whole)
    rewrite(path, format=99, version="9.0")
    assert "written by spikefold 9.0 in format 99" in message()
    path.write_bytes(whole)
    rewrite(path, model="resnet20")
    assert "do not fit model resnet20" in message()
    rewrite(path, model="transformer")
    assert "unknown model 'transformer'" in message()
    path.write_bytes(whole)
    rewrite(path, arguments={"num_classes": 10, "nonsense": 3})
    assert "header does not describe a network" in message()
    path.write_bytes(whole)
    rewrite(path, transforms=[("", "quantize")])
    assert "quantize" in message()
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    assert "not one that spikefold wrote" in message()
    safetensors.torch.save_file({"a": torch.ones(1)}, path, {"spikefold": "{"})
    assert "header is damaged" in message()
    path.unlink()
    assert "no such file" in message()


@pytest.mark.parametrize("name", ["format1", "format1-folded", "format1-fused"])
def test_files_of_format_1_load_unchanged(name: str) -> None:
    """From before a state dict always held the polarity; one layer has a negative gain."""
    stored = read(Path(__file__).parent / "files" / f"{name}.safetensors")
    x = torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8)
    expected = torch.tensor(stored.extra["logits"])
    torch.testing.assert_close(stored.network(x), expected, rtol=0, atol=1e-6)
    assert stored.network.arguments.neuron == sf.Neuron(reset="soft", surrogate=sf.Atan(1.5))
    if name != "format1":
        negative = [
            int((module.polarity < 0).sum())
            for module in stored.network.modules()
            if isinstance(module, sf.FoldedLIF)
        ]
        assert negative == [0, 1, 0, 0]


def test_loading_searches_no_thresholds_and_draws_no_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = sf.models.small(in_channels=1, steps=2, width=0.25, norm="mpbn-element", image_size=8)
    fused = sf.fuse_conv_bn(sf.fold(network))
    sf.save(fused, tmp_path / "f")
    monkeypatch.setattr("spikefold.folding._threshold.last_silent", None)
    monkeypatch.setattr("spikefold.folding._fold.last_silent", None)
    before = torch.get_rng_state()
    again = sf.load(tmp_path / "f")
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(tensor.is_meta for tensor in again.state_dict().values())
    assert all(p.requires_grad for p in again.parameters())
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(x), fused(x))
    again(x).sum().backward()


@pytest.mark.usefixtures("as_user")
def test_what_is_no_description_of_an_input_is_not_written(tmp_path: Path) -> None:
    network = sf.models.small(width=0.1)
    network.input_spec = "rgb"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r"input_spec must be an sf.InputSpec, got a str"):
        sf.save(network, tmp_path / "a.safetensors")
    assert not os.listdir(tmp_path)
    with pytest.raises(FileFormatError, match="a folder: give the network file in it"):
        sf.load(tmp_path)


def test_keys_of_extra_are_text(tmp_path: Path) -> None:
    extra = {"history": {9: 1, 10: 2}, "pair": (1, 2)}
    sf.save(sf.models.small(width=0.1), tmp_path / "a.safetensors", extra=extra)
    again = read(tmp_path / "a.safetensors").extra
    assert again == {"history": {"9": 1, "10": 2}, "pair": [1, 2]}
