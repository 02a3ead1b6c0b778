"""Files that lie, and disks that fail: found in a try of thousands, each kind once."""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from filelock import FileLock

import spikefold as sf
from spikefold.errors import ConfigError, FileFormatError
from spikefold.records import write_json
from spikefold.replacing import remove_unfinished, replacing
from spikefold.saving import locked
from spikefold.saving._file import checksum, read_file
from spikefold.saving._lock import LOCK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small folded network."""
    network = sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2)
    sf.save(sf.fold(network), tmp_path / "n.safetensors")
    return tmp_path / "n.safetensors"


def rewritten(path: Path, text: str | None = None, **tensors: torch.Tensor) -> None:
    """The file with another header or other tensors, and a checksum that fits."""
    with safetensors.safe_open(path, framework="pt") as file:
        plain = json.loads(file.metadata()["spikefold"])
    _, stored = read_file(path)
    stored |= {f"network.{name.replace('__', '.')}": value for name, value in tensors.items()}
    if text is None:
        text = json.dumps(plain | {"checksum": checksum(plain, stored)})
    safetensors.torch.save_file(stored, path, {"spikefold": text})


def header(path: Path) -> dict:
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["spikefold"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 10**8},
        {"width": 1e9},
        {"steps": 10**7},
        {"image_size": 10**5},
        {"num_classes": 10**7, "norm": "mpbn-element", "image_size": 10_000, "width": 1000.0},
    ],
)
def test_claims_take_no_memory(path: Path, arguments: dict) -> None:
    """In a child of 4 GiB, of which torch takes some: the claims are of 10 GB and more."""
    plain = header(path)
    plain["arguments"] |= arguments
    _, stored = read_file(path)
    rewritten(path, json.dumps(plain | {"checksum": checksum(plain, stored)}))
    program = f"""
import resource, spikefold as sf
from spikefold.saving import load
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
try:
    load({str(path)!r})
except sf.FileFormatError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(path) in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arguments", {"width": float("inf")}),
        ("arguments", {"neuron": {"threshold": 10**400}}),
        ("arguments", {"neuron": {"surrogate": "fold"}}),
        ("arguments", {"neuron": {"surrogate": {"name": "tanh", "k": "3"}}}),
        ("arguments", {"neuron": []}),
        ("arguments", {"steps": 1.5}),
        ("arguments", {"steps": True}),
        ("arguments", [1, 2]),
        ("transforms", "fold"),
        ("transforms", [["", "fold", 3]]),
        ("transforms", [["nowhere.at.all", "fold"]]),
        ("transforms", [["", "fold"]] * 3),
        ("extra", [1]),
        ("model", 3),
        ("model", "__init__"),
        ("input", {"channels": 1}),
        ("input", {"channels": 1, "framing": {"size": 10**9}}),
        ("nonsense", 1),
    ],
)
def test_headers_of_other_types(path: Path, key: str, value: object) -> None:
    plain = header(path)
    plain[key] = value
    _, stored = read_file(path)
    rewritten(path, json.dumps(plain | {"checksum": checksum(plain, stored)}))
    with pytest.raises(FileFormatError, match="header does not describe a network") as caught:
        sf.load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_header_nested_too_deep(path: Path) -> None:
    rewritten(path, '{"format": 2, "extra": ' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(FileFormatError, match="header is damaged"):
        sf.load(path)


LAYER, WEIGHT = "features.0.lif", "features.0.connection.weight"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (WEIGHT, lambda v: v.fill_(torch.nan), "is NaN or infinite somewhere"),
        (WEIGHT, lambda v: v.fill_(torch.inf), "is NaN or infinite somewhere"),
        ("features.0.norm.running_var", lambda v: v.fill_(-1), "is not positive somewhere"),
        ("features.0.norm.running_mean", lambda v: v.fill_(torch.inf), "is NaN or infinite"),
        (f"{LAYER}.theta", lambda v: v.fill_(torch.nan), "is NaN somewhere"),
        (f"{LAYER}.polarity", lambda v: v.fill_(0.5), "is neither 1 nor -1 somewhere"),
        (f"{LAYER}.theta", torch.Tensor.double, "was folded for|does not go with"),
        (WEIGHT, torch.Tensor.double, "does not go with weights of torch.float32"),
        (WEIGHT, torch.Tensor.char, "is of torch.int8, where torch.float32 belongs"),
        (WEIGHT, lambda v: v.to(torch.complex64), "is of torch.complex64"),
        (WEIGHT, lambda v: v.to(torch.float8_e5m2), "is of torch.float8_e5m2"),
        ("features.0.norm.num_batches_tracked", torch.Tensor.float, "where torch.int64 belongs"),
    ],
)
def test_values_that_no_network_has(path: Path, name: str, change, message: str) -> None:  # type: ignore[no-untyped-def]
    value = sf.load(path).state_dict()[name]
    rewritten(path, **{name.replace(".", "__"): change(value.clone())})
    with pytest.raises(FileFormatError, match=message):
        sf.load(path)


def test_polarity_is_asked_for(path: Path) -> None:
    _, stored = read_file(path)
    del stored[f"network.{LAYER}.polarity"]
    plain = header(path)
    text = json.dumps(plain | {"checksum": checksum(plain, stored)})
    safetensors.torch.save_file(stored, path, {"spikefold": text})
    with pytest.raises(FileFormatError, match="polarity"):
        sf.load(path)


def test_infinite_thresholds_are_thresholds(path: Path) -> None:
    network = sf.load(path)
    network.get_submodule(LAYER).theta[0] = torch.inf  # type: ignore[index, union-attr]
    sf.save(network, path)
    assert sf.load(path).get_submodule(LAYER).theta[0] == torch.inf  # type: ignore[index, union-attr]


def test_a_flipped_bit_anywhere_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    start = 8 + struct.unpack("<Q", whole[:8])[0]
    at = [whole.index(b"arguments") + 60, start + 40, len(whole) - 3]
    for place in at:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(FileFormatError, match="damaged"):
            sf.load(path)


@pytest.mark.usefixtures("as_user")
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    network = sf.models.small(in_channels=1, image_size=8, steps=2)
    network.features[0].connection.weight.data[0] = torch.nan  # type: ignore[index, union-attr]
    with pytest.raises(ConfigError, match=r"features.0.connection.weight is NaN"):
        sf.save(network, tmp_path / "n.safetensors")
    network = sf.models.small(in_channels=1, image_size=8, steps=2)
    network.features[0].connection.double()  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"does not go with weights of torch.float32"):
        sf.save(network, tmp_path / "n.safetensors")
    network = sf.models.small(in_channels=1, image_size=8, steps=2)
    for extra in ({"a": print}, {"a": {1, 2}}):
        with pytest.raises(FileFormatError, match="extra is not plain data"):
            sf.save(network, tmp_path / "n.safetensors", extra=extra)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_line_and_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    program = f"""
import resource, spikefold as sf
network = sf.models.small(in_channels=1, image_size=8, steps=2)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    sf.save(network, {str(path)!r})
except sf.FileFormatError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"cannot write {path}")
    assert len(done.stdout.splitlines()) == 1
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    network = sf.models.small(in_channels=1, image_size=8, width=0.1, steps=2)
    sf.save(network, link)
    assert link.is_symlink()
    assert torch.equal(sf.load(path).classifier.weight, network.classifier.weight)


def test_long_names(path: Path, tmp_path: Path) -> None:
    longest = tmp_path / ("n" * 255)
    sf.save(sf.load(path), longest)
    assert sf.load(longest)
    with pytest.raises(FileFormatError, match=r"cannot write .*: File name too long"):
        sf.save(sf.load(path), tmp_path / ("n" * 256))


def test_a_loop_of_links_is_told(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(FileFormatError, match="cannot write "), replacing(tmp_path / "one"):
        raise AssertionError


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_who_may_read_a_file_is_what_the_umask_says(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_of_another_file_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.json"):
        (tmp_path / "none").read_text()
    assert not os.listdir(tmp_path)


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": math.nan, "by": [math.inf, (1.5, -math.inf)]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"loss": None, "by": [None, [1.5, None]]}


def test_a_folder_is_removed_while_its_lock_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = FileLock.release

    def enter(lock: FileLock, force: bool = False) -> None:
        release(lock, force)
        (tmp_path / "run").mkdir()  # by the next process, at once
        (tmp_path / "run" / LOCK).write_text("")

    monkeypatch.setattr(FileLock, "release", enter)
    with locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / LOCK).exists()


def test_what_a_kill_left_behind_is_removed(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from spikefold.replacing import replacing
with replacing(Path({str(tmp_path / "a.json")!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program])
    (tmp_path / ".mine").write_text("")
    assert len(os.listdir(tmp_path)) == 2
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == [".mine"]
    with replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a.json").read_text() == "whole"
