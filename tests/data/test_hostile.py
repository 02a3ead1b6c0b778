"""Files that lie, hang, or unpack to more than there is: each kind once."""

import gzip
import lzma
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikefold.data import Framing, load_dataset, read_image, read_recording, to_frames
from spikefold.data._cifar import _records
from spikefold.data._fashion_mnist import read_idx
from spikefold.data._frames import EVENT
from spikefold.data._sources import cached
from spikefold.errors import DataError
from tests.data.formats import aedat4, five_bytes

ROWS = [(n % 30, n * 7 % 30, 100 * n, n % 2) for n in range(40)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def nmnist_zip(path: Path, data: bytes = five_bytes(*ROWS)) -> None:
    """Two recordings a digit and part."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("Train", "Test"):
            for n in range(20):
                archive.writestr(f"{part}/{n % 10}/{n}.bin", data)


@pytest.mark.parametrize("name", ["r.bin", "r.npz", "r.raw", "i.png"])
def test_pipes_devices_and_links_to_nothing(tmp_path: Path, name: str) -> None:
    def look(path: Path) -> None:
        if path.suffix == ".png":
            read_image(path, 8, 1.0)
        else:
            read_recording(path)

    path = tmp_path / name
    for make in (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(tmp_path / "nothing"),
        path.mkdir,
    ):
        make()
        with pytest.raises(DataError, match=f"{name}: not a regular file"):
            look(path)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        look(path)


def test_pipes_in_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("a", "b", "__MACOSX"):
        (tmp_path / name).mkdir()
        for n in range(12):
            Image.new("RGB", (9, 9)).save(tmp_path / name / f"{n}.png")
    assert load_dataset("folder", root=tmp_path).names == ("a", "b")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: not a regular file"):
        load_dataset("folder", root=tmp_path)


def test_label_folders_that_are_no_digits(tmp_path: Path) -> None:
    for part in ("Train", "Test"):
        for name in (*"0123456789", "10", "99999999999999999999", "-1", "__MACOSX", "³"):
            (tmp_path / part / name).mkdir(parents=True)
            for n in range(3):
                (tmp_path / part / name / f"{n}.bin").write_bytes(five_bytes(*ROWS))
    dataset = load_dataset("nmnist", validation=0.0, root=tmp_path)
    assert len(dataset.train) == len(dataset.test) == 30


def test_a_zip_of_an_unknown_compression(tmp_path: Path) -> None:
    path = tmp_path / "nmnist.zip"
    nmnist_zip(path)
    data = bytearray(path.read_bytes())
    # the method stands in each member's header, and again in the directory
    for signature, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset : place + offset + 2] = struct.pack("<H", 97)
            place = data.find(signature, place + 1)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"nmnist.zip is damaged or cut off \(.*compression"):
        load_dataset("nmnist", root=tmp_path)


def test_a_zip_with_damaged_contents(tmp_path: Path) -> None:
    path = tmp_path / "nmnist.zip"
    nmnist_zip(path)
    data = bytearray(path.read_bytes())
    data[45:60] = b"\xff" * 15  # in the first member: zlib.error
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"nmnist.zip is damaged or cut off"):
        load_dataset("nmnist", root=tmp_path)


def test_bombs(tmp_path: Path) -> None:
    """200 MB of nothing in 200 kB, in each packing: not unpacked, or no further than is honest."""
    much = bytes(200_000_000)
    nmnist_zip(tmp_path / "nmnist.zip", much[:20_000_000])
    with pytest.raises(DataError, match=r"would unpack to 800,000,000: not opened"):
        load_dataset("nmnist", root=tmp_path)
    np.savez_compressed(tmp_path / "r.npz", t=np.frombuffer(much, np.int64), x=0, y=0, p=0)
    with pytest.raises(DataError, match="not opened"):
        read_recording(tmp_path / "r.npz")
    idx = b"\0\0\x08\3" + np.array([255_102, 28, 28], ">u4").tobytes()
    (tmp_path / "i.gz").write_bytes(gzip.compress(idx + much[: 255_102 * 28 * 28]))
    with pytest.raises(DataError, match=r"holds more than the 47,040,016 bytes that it may"):
        read_idx(tmp_path / "i.gz")
    (tmp_path / "c.bin.xz").write_bytes(lzma.compress(much, preset=0))
    with pytest.raises(DataError, match=r"holds more than the 153,650,000 bytes"):
        _records(tmp_path / "c.bin.xz", 3073)


def test_an_idx_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    for shape in ([2**31, 2**31, 4], [60_000, 28, 28], [3, 28, 28]):
        idx = b"\0\0\x08\3" + np.array(shape, ">u4").tobytes() + bytes(2 * 28 * 28)
        (tmp_path / "i.gz").write_bytes(gzip.compress(idx))
        with pytest.raises(DataError, match="is cut off: 1,568 bytes for shape"):
            read_idx(tmp_path / "i.gz")
    (tmp_path / "i.gz").write_bytes(gzip.compress(b"\0\0\x08\3\0\0\0"))
    with pytest.raises(DataError, match="cut off in its header"):
        read_idx(tmp_path / "i.gz")


def test_an_image_that_scaling_would_blow_up(tmp_path: Path) -> None:
    Image.new("1", (1, 60_000)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 300
    with pytest.raises(DataError, match="1x60000 would be scaled to 256x15360000: too far from"):
        read_image(tmp_path / "a.png", 224, 256 / 224)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "b.png")  # Pillow's bomb
    with pytest.raises(DataError, match="damaged, or not a readable image"):
        read_image(tmp_path / "b.png", 224, 256 / 224)


def test_times_that_span_ages() -> None:
    for times in ([-(2**62), 2**62], [0, 2**63 - 1], [-(2**63), 2**63 - 1], [0, 2**49]):
        events = np.zeros(2, dtype=EVENT)
        events["t"] = times
        with pytest.raises(DataError, match=r"times span [\d,]+ microseconds, over 17 years"):
            to_frames(events, 3, (4, 4), (4, 4))
        assert to_frames(events, 2, (4, 4), (4, 4), "count").sum() == 2
    events["t"] = [2**62, 2**62 + 2**49 - 1]  # whatever the clock's beginning
    assert to_frames(events, 10_000, (4, 4), (4, 4))[[0, 9_999], 0, 0, 0].tolist() == [1, 1]


def test_aedat4_that_takes_its_reader_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aedat")
    (tmp_path / "good.aedat4").write_bytes(aedat4(ROWS, (40, 40)))
    program = tmp_path / "aborts.py"
    program.write_text("import os, sys\nsys.stdin.readline()\nos.abort()\n")
    monkeypatch.setattr("spikefold.data._aedat4.PROGRAM", program)
    with pytest.raises(DataError, match=r"good.aedat4: .*damaged or cut off: its reader crashed"):
        read_recording(tmp_path / "good.aedat4")


def test_aedat4_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that believes a damaged size; its process gets no such memory."""
    pytest.importorskip("aedat")
    (tmp_path / "bomb.aedat4").write_bytes(aedat4(ROWS, (40, 40)))
    code = "def Decoder(path):\n    bytearray(20 << 30)\n    raise ValueError('it was given')\n"
    (tmp_path / "aedat.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DataError, match=r"bomb.aedat4: .*damaged or cut off \(''\)"):
        read_recording(tmp_path / "bomb.aedat4")
    monkeypatch.delenv("PYTHONPATH")
    assert len(read_recording(tmp_path / "bomb.aedat4").events) == len(ROWS)


def test_a_cache_that_cannot_be_written_or_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(3)}

    assert cached("k", [file], compute)["a"].tolist() == [0, 1, 2]
    cache = next(Path(os.environ["XDG_CACHE_HOME"]).rglob("k-*.npz"))
    assert cached("k", [file], compute)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    for damaged in (b"", b"PK\3\4", cache.read_bytes()[:-40], b"x" * 300):
        cache.write_bytes(damaged)
        with pytest.warns(UserWarning, match="is damaged .*: computed again"):
            assert cached("k", [file], compute)["a"].tolist() == [0, 1, 2]
    folder = cache.parent
    cache.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written .*: what was decoded is not kept"):
        assert cached("k", [file], compute)["a"].tolist() == [0, 1, 2]


def test_reading_is_bounded_in_memory(tmp_path: Path) -> None:
    """What claims 1 GB and more, in a child of 2 GiB of which torch takes most."""
    Image.new("1", (3, 60_000)).save(tmp_path / "a.png")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"\0\0\x08\1" + bytes(2**31), compresslevel=1))
    program = f"""
import resource
from pathlib import Path
from spikefold.data import read_image
from spikefold.data._fashion_mnist import read_idx
from spikefold.errors import DataError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
for read in (lambda: read_image(Path({str(tmp_path)!r}) / "a.png", 224, 1.1),
             lambda: read_idx(Path({str(tmp_path)!r}) / "a.gz")):
    try:
        read()
    except DataError as error:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["refused", "refused"], done.stderr[-2000:]


def test_a_framing_beyond_memory() -> None:
    for framing in ({"steps": 10**6}, {"size": 10**5}, {"steps": 10_000, "size": 10_000}):
        with pytest.raises(DataError, match=r"must lie in|more than the 134,217,728 pixels"):
            Framing(**framing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 4), }", "damaged or cut"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1, 4), }", "damaged or cut off"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (8,), }", r"this one is float64 \[8\]"),
        ("{'descr': '<c16', 'fortran_order': False, 'shape': (1, 4), }", "this one is complex128"),
    ],
)
def test_npy_files_of_other_things(tmp_path: Path, header: str, message: str) -> None:
    """What claims 320 GB in 64 bytes; Python objects, to be unpickled; no rows of events."""
    text = header.ljust(117).encode() + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    (tmp_path / "a.npy").write_bytes(start + bytes(64))
    with pytest.raises(DataError, match=rf"a.npy.*{message}"):
        read_recording(tmp_path / "a.npy")
