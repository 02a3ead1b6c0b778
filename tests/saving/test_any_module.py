"""Modules of one's own come back as they were; what could not be read back is not written."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ConfigError, FileFormatError
from spikefold.saving import read


class Mine(nn.Module):
    """Units, attributes, a tied weight, a buffer that is not saved."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.layer = sf.SpikingLayer(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), sf.LIF(sf.MPBN(4))
        )
        self.lif = sf.PLIF(sf.MPBN((4, 8, 8)), channels=4)
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.readout = nn.Linear(4, classes)
        self.register_buffer("temporary", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif(self.layer(x)).mean((0, 3, 4))
        return self.readout(self.second(self.first(x)))


X = torch.rand(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def trained(network: nn.Module) -> nn.Module:
    for _ in range(3):
        network(X)
    for module in network.modules():
        if isinstance(module, sf.MPBN):
            nn.init.normal_(module.weight)
    return network.eval()


@pytest.mark.parametrize("transforms", [(), ("fold",), ("fold", "fuse_conv_bn")])
def test_it_comes_back_with_what_was_done_to_it(tmp_path: Path, transforms: tuple[str]) -> None:
    network = trained(Mine())
    for name in transforms:
        network = getattr(sf, name)(network)
    sf.save(network, tmp_path / "mine.safetensors", extra={"a": 1})
    fresh = Mine()
    before = copy.deepcopy(fresh.state_dict())
    again = sf.load(tmp_path / "mine.safetensors", into=fresh)
    assert type(again) is Mine
    assert torch.equal(again(X), network(X))
    assert not again.training
    assert again.second.weight is again.first.weight  # one tensor, as before
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())
    assert repr(again) == repr(network)
    assert read(tmp_path / "mine.safetensors", Mine()).extra == {"a": 1}
    sf.save(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").stat().st_size > 0
    assert torch.equal(sf.load(tmp_path / "again.safetensors", into=Mine())(X), network(X))


@pytest.mark.parametrize("folded_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_come_back(tmp_path: Path, dtype: torch.dtype, folded_first: bool) -> None:
    network = trained(Mine())
    if dtype == torch.float64 and not folded_first:
        network = sf.fold(network.to(dtype))
    else:
        network = sf.fold(network).to(dtype)
    network.readout.float()  # mixed
    sf.save(network, tmp_path / "mine.safetensors")
    again = sf.load(tmp_path / "mine.safetensors", into=Mine())
    expected = {key: (value.dtype, value) for key, value in network.state_dict().items()}
    assert again.state_dict().keys() == expected.keys()
    for key, value in again.state_dict().items():
        assert value.dtype == expected[key][0], key
        assert torch.equal(value, expected[key][1]), key
    half = trained(sf.models.small(in_channels=1, steps=3)).to(dtype)
    sf.save(half, tmp_path / "half.safetensors")
    assert {v.dtype for v in sf.load(tmp_path / "half.safetensors").parameters()} == {dtype}


def test_one_folded_layer_comes_back(tmp_path: Path) -> None:
    for network in (trained(sf.models.small(in_channels=1, steps=3)), trained(Mine())):
        path = tmp_path / "part.safetensors"
        place = network.features[1] if isinstance(network, sf.models.Network) else network.layer
        place.lif = sf.fold(place.lif)
        sf.save(network, path)
        again = (
            sf.load(path)
            if isinstance(network, sf.models.Network)
            else sf.load(path, into=type(network)())
        )
        assert torch.equal(again(X), network(X))
        whole = sf.fold(network)
        sf.save(whole, path)
        into = None if isinstance(network, sf.models.Network) else Mine()
        assert torch.equal((sf.load(path) if into is None else sf.load(path, into))(X), whole(X))


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_wrapped_modules_come_back_unwrapped(tmp_path: Path, wrap) -> None:  # type: ignore[no-untyped-def]
    for network in (trained(Mine()), trained(sf.models.small(in_channels=1, steps=3))):
        sf.save(wrap(network), tmp_path / "wrapped.safetensors")
        again = sf.load(tmp_path / "wrapped.safetensors", into=wrap(copy.deepcopy(network)))
        assert type(again) is type(network)
        assert torch.equal(again(X), network(X))
    network.features[0] = torch.compile(network.features[0])  # a part
    sf.save(network, tmp_path / "part.safetensors")
    assert sf.load(tmp_path / "part.safetensors").state_dict().keys() == again.state_dict().keys()


def test_a_converted_network_comes_back(tmp_path: Path) -> None:
    cnn = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    )
    network = sf.convert(cnn, steps=3)
    folded = sf.fold(trained(network))
    sf.save(folded, tmp_path / "converted.safetensors")
    again = sf.load(tmp_path / "converted.safetensors", into=sf.convert(cnn, steps=3))
    assert torch.equal(again(X), folded(X))


def small() -> sf.models.Network:
    return sf.models.small(in_channels=1, steps=2)


def readout(network: sf.models.Network) -> None:
    network.classifier = nn.Linear(network.classifier.in_features, 7)


def pool(network: sf.models.Network) -> None:
    network.features[2][0] = nn.MaxPool2d(2)


def tied(network: sf.models.Network) -> None:
    network.features[4].connection.weight = network.features[3].connection.weight


def other_neuron(network: sf.models.Network) -> None:
    network.features[0].lif = sf.LIF(sf.MPBN(64), decay=0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (readout, "is .*out_features=7.*where model 'small' is .*out_features=10"),
        (pool, "is .*MaxPool2d.*where model 'small' is .*AvgPool2d"),
        (other_neuron, "decay=0.9.*where model 'small' is .*decay=0.25"),
    ],
)
def test_a_model_that_could_not_be_rebuilt_is_not_written(tmp_path: Path, change, message) -> None:  # type: ignore[no-untyped-def]
    network = small()
    change(network)
    with pytest.raises(ConfigError, match=message) as caught:
        sf.save(network, tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_tied_weights_of_a_model_are_not_written(tmp_path: Path) -> None:
    network = sf.models.resnet20(width=0.0625, steps=2)
    network.features[1].connection.weight = network.features[2].connection.weight
    with pytest.raises(ConfigError, match=r"shares .*features\.1\.connection\.weight"):
        sf.save(network, tmp_path / "x.safetensors")


def test_what_does_not_fit_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    sf.save(sf.fold(trained(Mine())), path)
    with pytest.raises(
        FileFormatError, match=r"holds a Mine, which is not a model .*into="
    ) as caught:
        sf.load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(FileFormatError, match=r"do not fit Mine: size mismatch for readout.weight"):
        sf.load(path, into=Mine(classes=3))
    with pytest.raises(FileFormatError, match="nothing to fold"):
        sf.load(path, into=nn.Linear(2, 2))
    sf.save(nn.Linear(2, 2), path)
    with pytest.raises(FileFormatError, match="do not fit Mine"):
        sf.load(path, into=Mine())
    part = Mine().eval()
    part.lif = sf.fold(part.lif)
    sf.save(part, path)
    with pytest.raises(FileFormatError, match=r"Linear is not what the Mine was when .*lif"):
        sf.load(path, into=nn.Linear(2, 2))


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    sf.save(trained(Mine()), path)
    whole = bytearray(path.read_bytes())
    whole[-9] ^= 4
    path.write_bytes(whole)
    with pytest.raises(FileFormatError, match="damaged: its checksum differs"):
        sf.load(path, into=Mine())
