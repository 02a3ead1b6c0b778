"""Events: frames against a loop and hand-made events, N-MNIST from hand-made and real files."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikefold.data import EVENT, Framing, frames_of, load_dataset, to_frames
from spikefold.errors import DataError
from tests.data.formats import five_bytes

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SPIKEFOLD_DATA", raising=False)


def made(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(rows), dtype=EVENT)


def test_frames_by_hand() -> None:
    events = made((0, 0, 100, 1), (3, 1, 149, 0), (3, 1, 150, 0), (2, 0, 199, 1), (3, 0, 199, 1))
    frames = to_frames(events, 2, (4, 2), (4, 2))  # duration 100 µs: steps [100, 150), [150, 200)
    assert frames.shape == (2, 2, 2, 4)
    assert frames[0, 1, 0].tolist() == [1, 0, 0, 0]
    assert frames[0, 0, 1].tolist() == [0, 0, 0, 1]
    assert frames[1, 0, 1].tolist() == [0, 0, 0, 1]
    assert frames[1, 1, 0].tolist() == [0, 0, 1, 1]
    assert frames.sum() == 5
    small = to_frames(events, 1, (4, 2), (2, 1))
    assert small[0, 1, 0].tolist() == [1, 2]
    counts = to_frames(events, 5, (4, 2), (4, 2), by="count")
    assert counts.sum((1, 2, 3)).tolist() == [1, 1, 1, 1, 1]


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 10**9), st.integers(0, 1)),
        max_size=60,
    ),
    steps=st.integers(1, 7),
    by=st.sampled_from(["time", "count"]),
)
def test_frames_equal_a_loop_over_events(rows: list, steps: int, by: str) -> None:
    expected = np.zeros((steps, 2, 2, 3), dtype=int)
    ordered = sorted(rows, key=lambda row: row[2])
    for n, (x, y, t, p) in enumerate(ordered):
        first, last = ordered[0][2], ordered[-1][2]
        step = (t - first) * steps // (last - first + 1) if by == "time" else n * steps // len(rows)
        expected[step, p, y * 2 // 5, x * 3 // 7] += 1
    assert np.array_equal(to_frames(made(*rows), steps, (7, 5), (3, 2), by), expected)


def test_counts_saturate() -> None:
    events = made(*[(0, 0, 5, 1)] * 300)
    assert to_frames(events, 1, (1, 1), (1, 1))[0, 1, 0, 0] == 255


def small_nmnist(folder: Path) -> None:
    for part, count in (("Train", 20), ("Test", 3)):
        for digit in range(10):
            (folder / part / str(digit)).mkdir(parents=True)
            for n in range(count):
                data = five_bytes((digit, 0, 0, 0), (33, 33, 300_000, 1), (5, n, 8_000_000, 1))
                (folder / part / str(digit) / f"{n:05}.bin").write_bytes(data)


@pytest.mark.parametrize("zipped", [False, True])
def test_nmnist(tmp_path: Path, zipped: bool) -> None:
    folder = tmp_path / "data"
    small_nmnist(folder)
    if zipped:
        root = tmp_path / "zipped"
        root.mkdir()
        with zipfile.ZipFile(root / "my_nmnist.zip", "w") as archive:
            for path in folder.glob("*/*/*.bin"):
                archive.write(path, path.relative_to(folder))
        folder = root
    dataset = load_dataset("nmnist", root=folder)
    assert dataset.train.shape == (6, 2, 34, 34)
    assert dataset.notes.startswith("200 of 60,000 training samples and 30 of 10,000 test samples")
    frames = dataset.test.read(torch.tensor([4]))  # the second recording of a one
    assert frames.shape == (6, 1, 2, 34, 34)
    assert dataset.test.labels.tolist() == [digit for digit in range(10) for _ in range(3)]
    assert frames.nonzero().tolist() == [[0, 0, 0, 0, 1], [0, 0, 1, 33, 33], [5, 0, 1, 1, 5]]


def test_nmnist_without_its_training_part_and_with_what_systems_leave(tmp_path: Path) -> None:
    small_nmnist(tmp_path)
    for name in ("._00000.bin", ".ipynb_checkpoints/00000.bin", "notes/00000.bin"):
        path = tmp_path / "Test" / "1" / name if name.startswith("._") else tmp_path / "Test" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"none of N-MNIST's")
    shutil.rmtree(tmp_path / "Train")
    dataset = load_dataset("nmnist", root=tmp_path, only="test")
    assert (len(dataset.train), len(dataset.test)) == (0, 30)
    assert dataset.names == tuple("0123456789")
    assert dataset.framing == Framing(steps=6, size=34, by="time", sensor=(34, 34))
    with pytest.raises(DataError, match="no recordings under Train/"):
        load_dataset("nmnist", root=tmp_path)


@pytest.mark.data
def test_real_nmnist() -> None:
    if not (SHARED / "nmnist").is_dir():
        pytest.skip(f"{SHARED / 'nmnist'} is absent: 1,000 recordings of N-MNIST")
    dataset = load_dataset("nmnist", root=SHARED)
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (900, 100)
    frames = dataset.test.read(torch.arange(100))
    # a saccade has some 1,400 events in each third of a recording
    assert 200 < frames.sum((0, 2, 3, 4)).mean() / 3 < 4000


def test_a_framing_with_a_gap_makes_no_frames() -> None:
    events = made((0, 0, 5, 1))
    whole = Framing(steps=1, size=1, by="time", sensor=(1, 1))
    assert frames_of(events, whole, "mine").sum() == 1
    with pytest.raises(DataError, match="mine: steps, size, by and sensor are all needed"):
        frames_of(events, Framing(steps=1, size=1, by="time"), "mine")


def test_broken_recordings_are_named(tmp_path: Path) -> None:
    small_nmnist(tmp_path)
    path = tmp_path / "Train" / "1" / "00003.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"00003.bin: 13 bytes"):
        load_dataset("nmnist", root=tmp_path)
    path.write_bytes(five_bytes((40, 1, 1, 1)))
    with pytest.raises(DataError, match=r"00003.bin: an event at \(40, 1\) lies outside the 34x34"):
        load_dataset("nmnist", root=tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "nmnist.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"nmnist.zip is damaged"):
        load_dataset("nmnist", root=tmp_path / "other")
    with pytest.raises(DataError, match=r"N-MNIST is not in .*download"):
        load_dataset("nmnist", root=tmp_path / "none")
    with pytest.raises(DataError, match="one of time, count"):
        to_frames(made(), 1, (1, 1), (1, 1), by="sum")
