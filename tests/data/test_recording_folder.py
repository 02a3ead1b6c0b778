"""Folders of recordings: every format, frames counted by hand; layouts, sensors, broken ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spikefold.data import Framing, frames_of, load_dataset, read_recording
from spikefold.errors import DataError
from tests.data.formats import Row, aedat4, dat, evt2, evt3, five_bytes

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "recordings"
# non-square: 60 wide, 40 high
ROWS: list[Row] = [(59, 0, 0, 1), (0, 39, 400, 0), (30, 20, 999, 1)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SPIKEFOLD_DATA", raising=False)


def npz(path: Path, rows: list[Row]) -> None:
    x, y, t, p = np.array(rows).T
    np.savez(path, x=x, y=y, t=t, p=p)


def write(path: Path, rows: list[Row]) -> None:
    """A recording in the format of its name, which states the sensor where it can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npz":
            npz(path, rows)
        case ".npy":
            np.save(path, np.array([(x, y, p, t / 1000) for x, y, t, p in rows]))
        case ".aedat4":
            path.write_bytes(aedat4(rows, (60, 40)))
        case ".dat":
            path.write_bytes(dat(rows, b"% Height 40\n% Width 60\n"))
        case ".raw" if path.stem.startswith("evt2"):
            path.write_bytes(evt2(rows, b"% evt 2.0\n% geometry 60x40\n"))
        case ".raw":
            path.write_bytes(evt3(rows, b"% evt 3.0\n% geometry 60x40\n"))
        case _:
            path.write_bytes(five_bytes(*rows))


NAMES = ["a.aedat4", "a.dat", "evt2.raw", "evt3.raw", "a.npz", "a.npy", "a.bin", "a.bs2"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_becomes_the_same_frames(name: str, tmp_path: Path) -> None:
    if name.endswith(".aedat4"):
        pytest.importorskip("aedat")
    for part in ("train", "test"):
        for label in ("left", "right"):
            write(tmp_path / part / label / name, ROWS)
    framing = Framing(steps=2, size=4, by="time", sensor=(60, 40))
    dataset = load_dataset("recordings", validation=0.0, root=tmp_path, framing=framing)
    assert dataset.names == ("left", "right")
    assert dataset.framing == framing
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == [0, 1]
    assert len(dataset.validation) == 0
    assert dataset.notes == ""
    frames = dataset.test.read(torch.tensor([1]))
    assert frames.shape == (2, 1, 2, 4, 4)
    # step, sample, polarity, row, column: each side is scaled on its own
    assert frames.nonzero().tolist() == [[0, 0, 0, 3, 0], [0, 0, 1, 0, 3], [1, 0, 1, 2, 2]]
    assert frames.sum() == 3


def test_formats_may_be_mixed_and_the_stated_sensor_holds_for_all(tmp_path: Path) -> None:
    for n in range(10):
        write(tmp_path / "one" / f"{n}.dat", ROWS)
        write(tmp_path / "two" / f"{n}.npz", [(1, 1, 0, 1), (2, 2, 5, 0)])
        (tmp_path / "two" / f".{n}.npz").write_bytes(b"a hidden companion")
    (tmp_path / "two" / "notes.txt").write_text("not a recording")
    write(tmp_path / ".ipynb_checkpoints" / "0.npz", ROWS)
    (tmp_path / ".git").mkdir()
    dataset = load_dataset("recordings", root=tmp_path)
    assert dataset.names == ("one", "two")
    assert dataset.framing == Framing(steps=10, size=48, by="time", sensor=(60, 40))
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [16, 2, 2]
    assert dataset.notes.startswith("no official test set: a tenth of each class (seed 0)")
    again = load_dataset("recordings", root=tmp_path)  # from the cache, and the same split
    places = torch.arange(2)
    assert torch.equal(dataset.test.read(places), again.test.read(places))


def test_where_no_file_states_the_sensor_the_smallest_holds_training_and_test(
    tmp_path: Path,
) -> None:
    write(tmp_path / "train" / "a" / "0.npz", [(9, 2, 0, 1)])
    write(tmp_path / "test" / "a" / "0.npz", [(4, 19, 0, 1)])
    dataset = load_dataset("recordings", validation=0.0, root=tmp_path)
    assert dataset.framing is not None
    assert dataset.framing.sensor == (10, 20)
    assert "no file states its sensor: taken to be 10x20" in dataset.notes
    write(tmp_path / "train" / "a" / "0.bs2", [(9, 2, 0, 1)])
    dataset = load_dataset("recordings", validation=0.0, root=tmp_path)
    assert dataset.framing is not None
    assert dataset.framing.sensor == (128, 128)


def test_a_test_part_needs_no_training_part(tmp_path: Path) -> None:
    write(tmp_path / "val" / "a" / "0.npz", ROWS)
    write(tmp_path / "val" / "b" / "0.npz", ROWS)
    dataset = load_dataset("recordings", root=tmp_path, only="test")
    assert dataset.names == ("a", "b")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [0, 0, 2]
    assert dataset.train.shape == (10, 2, 48, 48)
    with pytest.raises(DataError, match=r"no train/ with a folder per class next to the test part"):
        load_dataset("recordings", root=tmp_path)


@pytest.mark.usefixtures("as_user")
def test_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names the folder of recordings: there is no"):
        load_dataset("recordings")
    with pytest.raises(DataError, match=r"no recordings in folders of their classes \(CLASS/\*.a"):
        load_dataset("recordings", root=tmp_path)
    for n in range(2):
        write(tmp_path / "a" / f"{n}.dat", ROWS)
        write(tmp_path / "b" / f"{n}.dat", ROWS)
    with pytest.raises(
        DataError, match=r"test: 0.1 of the 2 training samples of class 'a' \(and of 1 more\) is 0"
    ):
        load_dataset("recordings", root=tmp_path)
    (tmp_path / "b" / "1.dat").write_bytes(dat(ROWS, b"% Height 480\n% Width 640\n"))
    with pytest.raises(
        DataError, match=r"different sensors: .*a/0.dat is 60x40, .*b/1.dat is 640x480"
    ):
        load_dataset("recordings", root=tmp_path)
    with pytest.raises(DataError, match=r"0.dat: an event at \(59, 39\) lies outside the 50x50"):
        load_dataset("recordings", root=tmp_path, framing=Framing(sensor=(50, 50)))
    (tmp_path / "b" / "1.dat").write_bytes(b"% Data file")
    with pytest.raises(DataError, match=r"b/1.dat: this Prophesee DAT file is cut off in its hea"):
        load_dataset("recordings", root=tmp_path)
    with pytest.raises(DataError, match="sensor must be of"):
        Framing(sensor=(0, 4))


def test_named_sets_have_the_sensor_they_have(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nmnist: its sensor is 34x34"):
        load_dataset("nmnist", root=tmp_path, framing=Framing(sensor=(128, 128)))
    for framing in (Framing(by="count"), Framing(sensor=(3, 4)), Framing(steps=2)):
        with pytest.raises(DataError, match="folder holds images, not recordings: only a size"):
            load_dataset("folder", root=tmp_path, framing=framing)


@pytest.mark.data
def test_real_recordings_in_a_folder(tmp_path: Path) -> None:
    if not RECORDINGS.is_dir():
        pytest.skip(f"{RECORDINGS} is absent: real recordings")
    pytest.importorskip("aedat")
    for path in RECORDINGS.iterdir():
        for part in ("train", "test"):
            place = tmp_path / part / path.stem
            place.mkdir(parents=True)
            shutil.copy(path, place)
    framing = Framing(steps=3, size=16, by="count", sensor=(1280, 720))
    dataset = load_dataset("recordings", validation=0.0, root=tmp_path, framing=framing)
    assert dataset.names == tuple(sorted(path.stem for path in RECORDINGS.iterdir()))
    for label, path in enumerate(sorted(RECORDINGS.iterdir(), key=lambda path: path.stem)):
        events = read_recording(path).events
        frames = dataset.test.read(torch.tensor([label]))[:, 0].numpy()
        assert np.array_equal(frames, frames_of(events, framing, "by hand"))
        assert (frames.sum((1, 2, 3)) > 0).all()
