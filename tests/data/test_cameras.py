"""Event sets through tonic, and the simulated camera: hand-made files, broken ones, by hand."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spikefold.data import EVENT, Framing, known_shape, load_dataset
from spikefold.data._saccades import CONTRAST, DARK, SACCADE, SENSOR, _view, saccades
from spikefold.errors import DataError
from tests.data.formats import five_bytes

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_tonic = pytest.mark.skipif(
    importlib.util.find_spec("tonic") is None, reason="tonic is not installed"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SPIKEFOLD_DATA", raising=False)


@needs_tonic
def test_dvs_gesture_from_unpacked_files(tmp_path: Path) -> None:
    for part, users in (("Train", (1, 2)), ("Test", (24,))):
        for user in users:
            place = tmp_path / "DVSGesture" / f"ibmGesture{part}" / f"user{user:02}_led"
            place.mkdir(parents=True)
            for label in range(11):
                rows = [(label, user, 1, 0), (127, 127, 1, 40), (label, user, 0, 99)]
                np.save(place / f"{label}.npy", np.array(rows, dtype=float))
    dataset = load_dataset(
        "dvs-gesture", validation=0.5, root=tmp_path, framing=Framing(steps=2, size=64)
    )
    assert dataset.test.shape == known_shape("dvs-gesture", Framing(steps=2, size=64))
    assert dataset.classes == 11
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [11, 11, 11]
    assert dataset.test.labels.tolist() == sorted(range(11), key=lambda n: f"{n}.npy")
    number = dataset.test.labels.tolist().index(9)
    frames = dataset.test.read(torch.tensor([number]))[:, 0]
    assert frames.shape == (2, 2, 64, 64)
    assert frames[0, 1, 24 // 2, 9 // 2] == 1  # row, column of the first event, brighter
    assert frames[0, 1, 63, 63] == 1
    assert frames[1, 0, 24 // 2, 9 // 2] == 1  # the last one, darker
    assert frames.sum() == 3
    assert dataset.notes.startswith("22 of 1,077 training samples and 11 of 264 test samples")
    assert dataset.names[9] == "air guitar"
    place.joinpath("9.npy").unlink()  # its label does not go to the next gesture
    with pytest.raises(DataError, match="test: none of the 10 samples is of class 'air guitar'"):
        load_dataset("dvs-gesture", validation=0.5, root=tmp_path)
    dataset = load_dataset("dvs-gesture", root=tmp_path, only="test")
    assert sorted(dataset.test.labels.tolist()) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
    shutil.rmtree(tmp_path / "DVSGesture" / "ibmGestureTrain")
    assert len(load_dataset("dvs-gesture", root=tmp_path, only="test").test) == 10


@needs_tonic
def test_n_caltech101_from_unpacked_files(tmp_path: Path) -> None:
    for label in ("airplanes", "Motorbikes"):
        place = tmp_path / "NCALTECH101" / "Caltech101" / label
        place.mkdir(parents=True)
        for n in range(20):
            (place / f"image_{n:04}.bin").write_bytes(
                five_bytes((10, 10, 5, 1), (10 + n, 10, 900, 0), (200, 150, 70_000, 1))
            )
    hidden = place.parent / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "image_0000.bin").write_bytes(b"none of the recordings")
    dataset = load_dataset("n-caltech101", root=tmp_path)
    assert dataset.names == ("Motorbikes", "airplanes")
    assert dataset.classes == 2
    assert dataset.test.labels.bincount().tolist() == [2, 2]
    assert dataset.train.shape == (10, 2, 48, 48)
    frames = dataset.train.read(torch.tensor([0]))[:, 0]
    assert frames.sum() == 3
    # where `read_recording` sees them: 10 of 240 columns and 10 of 180 rows from the corner
    assert frames[0, 1, 10 * 48 // 180, 10 * 48 // 240] == 1
    assert "no official test set" in dataset.notes
    (place / "image_0003.bin").write_bytes(b"")
    with pytest.raises(DataError, match=r"image_0003.bin"):
        load_dataset("n-caltech101", root=tmp_path)


@needs_tonic
@pytest.mark.data
def test_cifar10_dvs_reads_aedat4(tmp_path: Path) -> None:
    sample = SHARED / "recordings" / "tonic_sample.aedat4"
    if not sample.is_file():
        pytest.skip(f"{sample} is absent")
    for label in ("airplane", "truck"):
        place = tmp_path / "CIFAR10DVS" / label
        place.mkdir(parents=True)
        for n in range(2):
            shutil.copy(sample, place / f"cifar10_{label}_{n}.aedat4")
    with pytest.raises(DataError, match=r"cifar10_airplane_0.aedat4.*outside the 128x128 sensor"):
        load_dataset("cifar10-dvs", root=tmp_path)  # the sample is of a larger camera
    (tmp_path / "CIFAR10DVS" / "airplane" / "cifar10_airplane_0.aedat4").write_bytes(b"#!AER-DAT4")
    with pytest.raises(DataError, match=r"cifar10_airplane_0.aedat4: .*damaged or cut off"):
        load_dataset("cifar10-dvs", root=tmp_path)


@needs_tonic
def test_strange_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "CIFAR10DVS" / "mine").mkdir(parents=True)
    (tmp_path / "CIFAR10DVS" / "mine" / "0.aedat4").write_bytes(b"")
    with pytest.raises(DataError, match=r"a folder in it is none of CIFAR10DVS's \('mine'\)"):
        load_dataset("cifar10-dvs", root=tmp_path)


@needs_tonic
def test_what_tonic_cannot_fetch_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tonic

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(tonic.datasets.CIFAR10DVS, "url", "http://127.0.0.1:9/CIFAR10DVS.zip")
    with pytest.raises(
        DataError, match=r"CIFAR10DVS cannot be downloaded .*put its unpacked files"
    ):
        load_dataset("cifar10-dvs", root=tmp_path)


def test_the_simulated_camera_sees_what_a_loop_over_pixels_says() -> None:
    """A pixel at a time, from views computed by interpolating by hand."""
    image = np.zeros((4, 4))
    image[1, 2], image[2, 1] = 1.0, 0.6
    events = saccades(image)
    assert events.dtype == EVENT
    assert (np.diff(events["t"]) >= 0).all()
    assert events["t"].max() <= 3 * SACCADE
    # the camera returns: where light ends as it began, brighter and darker events balance
    assert abs(int((events["p"] == 1).sum()) - int((events["p"] == 0).sum())) <= len(events) // 10
    x, y = 11, 13  # one pixel
    corners = np.array([[0, 0], [3.5, 7], [7, 0], [0, 0]])
    level, before, expected = None, 0.0, []
    for view in range(61):
        saccade, part = divmod(view, 20)
        here = corners[saccade] if view == 60 else (
            corners[saccade] + (corners[saccade + 1] - corners[saccade]) * part / 20
        )  # fmt: skip
        row, column = ((p + 0.5 - h) * 4 / 24 - 0.5 for p, h in ((y, here[1]), (x, here[0])))
        light = sum(
            image[r, c] * max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
            for r in range(4)
            for c in range(4)
        )
        value = np.log(DARK + (1 - DARK) * light)
        if level is None:
            level = value
        while abs(value - level) >= CONTRAST:
            sign = np.sign(value - level)
            level += sign * CONTRAST
            share = (level - before) / (value - before)
            expected.append(((view - 1 + share) * SACCADE / 20, sign > 0))
        before = value
    mine = events[(events["x"] == x) & (events["y"] == y)]
    assert len(mine) == len(expected) > 0
    assert (mine["p"] == [p for _, p in expected]).all()
    assert np.abs(mine["t"] - np.array([t for t, _ in expected])).max() <= 1


def test_a_view_moves_with_the_camera() -> None:
    image = np.random.default_rng(0).random((8, 8))
    still, moved = _view(image, 0.0, 0.0), _view(image, 3.0, 5.0)
    assert still.shape == SENSOR[::-1]
    np.testing.assert_allclose(moved[5:, 3:], still[:-5, :-3], atol=1e-12)
    assert not len(saccades(np.zeros((8, 8))))


def test_the_camera_refuses_what_is_no_light() -> None:
    with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
        saccades(np.full((8, 8), 2.0))


def test_framings_are_checked() -> None:
    with pytest.raises(DataError, match=r"size must lie in \[1, 10000\]"):
        Framing(size=0)
