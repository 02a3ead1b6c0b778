"""CIFAR and Fashion-MNIST: hand-made files, real ones, and broken ones."""

import gzip
import hashlib
import io
import lzma
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spikefold.data import Framing, known_shape, load_dataset
from spikefold.data._cifar import TRAIN10
from spikefold.data._fashion_mnist import FILES
from spikefold.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or the user's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SPIKEFOLD_DATA", raising=False)


def cifar_batch(seed: int, label_bytes: int = 1, records: int = 200) -> np.ndarray:
    """Records of random pixels; classes in turn: 10, or 100 fine ones after a coarse one."""
    rows = np.random.default_rng(seed).integers(0, 256, (records, label_bytes + 3072))
    rows[:, label_bytes - 1] = np.arange(records) % 10**label_bytes
    return rows.astype(np.uint8)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("with_test", [False, True])
def test_cifar10(tmp_path: Path, packed: bool, with_test: bool) -> None:
    folder = tmp_path / "cifar10"
    folder.mkdir()
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"] * with_test
    for seed, name in enumerate(names):
        data = cifar_batch(seed).tobytes()
        (folder / (f"{name}.xz" if packed else name)).write_bytes(
            lzma.compress(data) if packed else data
        )
    dataset = load_dataset("cifar10", validation=0.1, root=tmp_path)
    assert dataset.test.shape == known_shape("cifar10", Framing())
    sizes = [len(s) for s in (dataset.train, dataset.validation, dataset.test)]
    assert sizes == ([900, 100, 200] if with_test else [810, 90, 100])
    note = "1,000 of 50,000 training samples and 200 of 10,000 test" if with_test else "no official"
    assert dataset.notes.startswith(note)
    assert dataset.test.labels.bincount().tolist() == [len(dataset.test) // 10] * 10
    if with_test:
        expected = cifar_batch(5)
        images = dataset.test.read(torch.arange(200))
        # pixel (row 2, column 3) of the green plane is byte 1024 + 2 · 32 + 3 after the label
        np.testing.assert_allclose(images[7, 1, 2, 3], expected[7, 1 + 1024 + 67] / 255, rtol=1e-6)
        assert dataset.test.labels.tolist() == expected[:, 0].tolist()
    # the second time it comes from the cache, and is the same
    again = load_dataset("cifar10", validation=0.1, root=tmp_path)
    places = torch.arange(5)
    assert torch.equal(again.train.read(places), dataset.train.read(places))


def test_cifar10_is_read_again_when_a_file_or_the_cache_changes(tmp_path: Path) -> None:
    for n in range(1, 6):
        (tmp_path / f"data_batch_{n}.bin").write_bytes(cifar_batch(n).tobytes())
    first = load_dataset("cifar10", root=tmp_path).train.read(torch.arange(3))
    (cache,) = (tmp_path / "cache").glob("**/*.npz")
    cache.write_bytes(cache.read_bytes()[:1000])
    assert torch.equal(load_dataset("cifar10", root=tmp_path).train.read(torch.arange(3)), first)
    (tmp_path / "data_batch_1.bin").write_bytes(cifar_batch(99, records=300).tobytes())
    dataset = load_dataset("cifar10", root=tmp_path)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 1100


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    for seed, name in enumerate(("train.bin", "test.bin")):
        (tmp_path / name).write_bytes(cifar_batch(seed, label_bytes=2, records=500).tobytes())
    dataset = load_dataset("cifar100", validation=0.2, root=tmp_path)
    assert dataset.test.shape == known_shape("cifar100", Framing())
    assert dataset.test.labels.tolist() == cifar_batch(1, 2, 500)[:, 1].tolist()
    assert "500 of 50,000 training samples" in dataset.notes


@pytest.mark.data
@pytest.mark.slow
def test_real_cifar10_is_the_official_training_set(tmp_path: Path) -> None:
    folder = SHARED / "cifar10"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: CIFAR-10's training batches")
    data = lzma.decompress((folder / "data_batch_1.bin.xz").read_bytes())
    assert hashlib.md5(data).hexdigest() == "5dd7e06a14cb22eb9f671a540d1b7c25"
    dataset = load_dataset("cifar10", root=SHARED)
    assert [len(dataset.split(s)) for s in ("train", "validation", "test")] == [40500, 4500, 5000]
    assert dataset.train.labels.bincount().tolist() == [4050] * 10
    first = np.frombuffer(data, np.uint8, count=3073)
    assert first[0] == 6  # a frog
    splits = [dataset.train, dataset.validation, dataset.test]
    frogs = [s.read((s.labels == 6).nonzero().flatten()) for s in splits]
    pixels = np.concatenate([np.rint(255 * f.double().numpy()).reshape(len(f), -1) for f in frogs])
    assert np.abs(pixels / 255 - np.concatenate([f.flatten(1).numpy() for f in frogs])).max() < 1e-7
    assert (pixels == first[1:]).all(1).sum() == 1


def test_cifar_test_sets_need_no_training_set(tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes(cifar_batch(0).tobytes())
    dataset = load_dataset("cifar10", root=tmp_path, only="test")
    assert (len(dataset.train), len(dataset.test)) == (0, 200)
    assert dataset.names[6] == "frog"
    assert dataset.notes == "200 of 10,000 test samples: a part of the data set"
    with pytest.raises(DataError, match=r"data_batch_1.bin is missing"):
        load_dataset("cifar10", root=tmp_path)
    fine = tmp_path / "fine"
    fine.mkdir()
    (fine / "test.bin").write_bytes(cifar_batch(0, label_bytes=2).tobytes())
    dataset = load_dataset("cifar100", root=fine, only="test")
    assert dataset.names[int(dataset.test.labels[42])] == "leopard"
    with pytest.raises(DataError, match=r"train.bin is missing"):
        load_dataset("cifar100", root=fine)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    batch = cifar_batch(0)
    batch[7, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(batch.tobytes())
    with pytest.raises(DataError, match="test: labels from 0 to 10, but there are 10 classes"):
        load_dataset("cifar10", root=tmp_path, only="test")


def fashion(folder: Path) -> None:
    """Four small idx files."""
    folder.mkdir(exist_ok=True)
    for name in FILES:
        count = 100 if name.startswith("train") else 20
        if "images" in name:
            body = np.arange(count * 784).astype(np.uint8).tobytes()
            header = b"\0\0\x08\x03" + np.array([count, 28, 28], dtype=">u4").tobytes()
        else:
            body = (np.arange(count) % 10).astype(np.uint8).tobytes()
            header = b"\0\0\x08\x01" + np.array([count], dtype=">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(header + body))


def test_fashion_mnist_from_a_folder(tmp_path: Path) -> None:
    fashion(tmp_path)
    dataset = load_dataset("fashion-mnist", root=tmp_path)
    assert dataset.test.shape == known_shape("fashion-mnist", Framing())
    assert dataset.train.shape == (1, 28, 28)
    assert dataset.test.labels.tolist() == [n % 10 for n in range(20)]
    assert (dataset.names[0], dataset.names[9]) == ("T-shirt/top", "Ankle boot")
    image = dataset.test.read(torch.tensor([3]))
    assert image[0, 0, 1, 2] == pytest.approx(((3 * 784 + 30) % 256) / 255)
    for name in FILES:
        if name.startswith("train"):
            (tmp_path / name).unlink()
    assert len(load_dataset("fashion-mnist", root=tmp_path, only="test").test) == 20
    short = b"\0\0\x08\x01" + np.array([3], dtype=">u4").tobytes() + bytes(3)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(short))
    with pytest.raises(DataError, match=r"20 images, but 3 labels in t10k-\*.gz"):
        load_dataset("fashion-mnist", root=tmp_path, only="test")


@pytest.mark.data
def test_real_fashion_mnist() -> None:
    if not DEBIAN.is_dir():
        pytest.skip(f"{DEBIAN} is absent: Debian's package dataset-fashion-mnist")
    dataset = load_dataset("fashion-mnist")
    assert [len(dataset.split(s)) for s in ("train", "validation", "test")] == [54000, 6000, 10000]
    assert dataset.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("name", "file", "data", "message"),
    [
        ("cifar10", "data_batch_3.bin", b"\0" * 5000, "data_batch_3.bin is cut off"),
        ("cifar10", "data_batch_3.bin", b"", "data_batch_3.bin is cut off"),
        ("fashion-mnist", "t10k-labels-idx1-ubyte.gz", b"no gzip", "labels.* is damaged"),
        ("fashion-mnist", "t10k-labels-idx1-ubyte.gz",
         gzip.compress(b"\1\2\3\4", mtime=0), "not an idx file"),
        ("fashion-mnist", "t10k-labels-idx1-ubyte.gz",
         gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc", mtime=0), "cut off: 3 bytes"),
    ],
)  # fmt: skip
def test_broken_files_are_named(
    name: str, file: str, data: bytes, message: str, tmp_path: Path
) -> None:
    fashion(tmp_path)
    for n in range(1, 6):
        (tmp_path / f"data_batch_{n}.bin").write_bytes(cifar_batch(n).tobytes())
    (tmp_path / file).write_bytes(data)
    with pytest.raises(DataError, match=message):
        load_dataset(name, root=tmp_path)


def test_packed_cifar_that_is_cut_off_is_named(tmp_path: Path) -> None:
    for n in range(1, 6):
        data = lzma.compress(cifar_batch(n).tobytes())
        (tmp_path / f"data_batch_{n}.bin.xz").write_bytes(data[: -100 if n == 4 else None])
    with pytest.raises(DataError, match=r"data_batch_4.bin.xz is damaged"):
        load_dataset("cifar10", root=tmp_path)


@pytest.mark.usefixtures("as_user")
def test_what_cannot_be_downloaded_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("spikefold.data._cifar.URL10", "http://127.0.0.1:9/cifar-10.tar.gz")
    with pytest.raises(DataError, match=r"cannot be downloaded .*put cifar-10.tar.gz into"):
        load_dataset("cifar10", root=tmp_path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server of this machine offers its files."""
    monkeypatch.setenv("NO_PROXY", "*")
    offered = tmp_path / "offered"
    offered.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(offered))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield offered, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_downloads_are_checked_unpacked_and_kept(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered, address = server
    archive = offered / "cifar-10-binary.tar.gz"
    batches = {name: cifar_batch(n) for n, name in enumerate([*TRAIN10, "test_batch.bin"])}
    with tarfile.open(archive, "w:gz") as tar:
        for name, batch in batches.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = batch.nbytes
            tar.addfile(entry, io.BytesIO(batch.tobytes()))
    monkeypatch.setattr("spikefold.data._cifar.URL10", f"{address}/{archive.name}")
    root = tmp_path / "root"
    with pytest.raises(DataError, match=r"checksum is wrong: try again, or put cifar-10-binary"):
        load_dataset("cifar10", root=root)
    monkeypatch.setattr(
        "spikefold.data._cifar.MD5_10", hashlib.md5(archive.read_bytes()).hexdigest()
    )
    dataset = load_dataset("cifar10", root=root)
    assert dataset.test.labels.tolist() == batches["test_batch.bin"][:, 0].tolist()
    # a part is there
    (root / "cifar-10-batches-bin" / TRAIN10[0]).unlink()
    (root / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    assert load_dataset("cifar10", root=root).notes == dataset.notes
    # killed while it is unpacked
    shutil.rmtree(root / "cifar-10-batches-bin")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "_extract_one", killed)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("cifar10", root=root)
    assert os.listdir(root) == [archive.name]
    load_dataset("cifar10", root=root)
    archive.unlink()  # the second time nothing is fetched
    again = load_dataset("cifar10", root=root)
    assert torch.equal(again.train.labels, dataset.train.labels)


def test_a_file_the_server_does_not_have_is_named(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikefold.data._cifar.URL10", f"{server[1]}/gone.tar.gz")
    with pytest.raises(DataError, match=r"cannot be downloaded \(HTTPError\): put gone.tar.gz"):
        load_dataset("cifar10", root=tmp_path / "root")
