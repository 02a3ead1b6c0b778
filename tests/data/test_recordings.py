"""Recordings: real files with published counts, hand-made ones, broken ones."""

from pathlib import Path

import numpy as np
import pytest

from spikefold.data import read_recording
from spikefold.errors import DataError

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "recordings"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file_format", "count", "sensor"),
    [
        ("tonic_sample.aedat4", "AEDAT 4", 111_954, (320, 240)),
        ("expelliarmus_evt2_sample.raw", "EVT 2", 539_481, None),
        ("expelliarmus_evt3_sample.raw", "EVT 3", 219_596, (1280, 720)),
        ("tonic_sample_ncars.dat", "Prophesee DAT", 2_009, None),
    ],
)
def test_real_recordings(
    name: str, file_format: str, count: int, sensor: tuple[int, int] | None, tmp_path: Path
) -> None:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"{path} is absent: a real recording")
    recording = read_recording(path)
    assert (recording.format, len(recording.events)) == (file_format, count)
    if sensor:
        assert recording.sensor == sensor
    assert recording.events["x"].max() < recording.sensor[0]
    assert recording.events["y"].max() < recording.sensor[1]
    assert set(np.unique(recording.events["p"])) == {0, 1}
    # its content, not its name, tells the format
    copy = tmp_path / "recording"
    copy.write_bytes(path.read_bytes())
    assert np.array_equal(read_recording(copy).events, recording.events)
    (tmp_path / "cut").write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="cut"):
        read_recording(tmp_path / "cut")


def dat(*events: tuple[int, int, int, int]) -> bytes:
    """A Prophesee .dat file of t, x, y, p: 14 bits x, 14 bits y, polarity above them."""
    header = b"% Data file containing CD events.\n% Version 2\n% Height 240\n% Width 304\n\x0c\x08"
    words = [[t, x | (y << 14) | (p << 28)] for t, x, y, p in events]
    return header + np.array(words, dtype="<u4").tobytes()


def test_hand_made_dat(tmp_path: Path) -> None:
    pytest.importorskip("expelliarmus")
    rows = [(10, 3, 7, 1), (25, 300, 239, 0), (31, 0, 0, 1)]
    (tmp_path / "a.dat").write_bytes(dat(*rows))
    recording = read_recording(tmp_path / "a.dat")
    read = [(int(e["t"]), int(e["x"]), int(e["y"]), int(e["p"])) for e in recording.events]
    assert read == rows
    assert recording.sensor == (304, 240)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty", b"", "no recording that is known"),
        ("text.raw", b"hello", "no recording that is known"),
        ("a.bin", b"1234567", "7 bytes are no whole number"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n", "damaged or cut off"),
    ],
)
def test_foreign_files_are_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_recording(tmp_path / name)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.raw: cannot be read"):
        read_recording(tmp_path / "none.raw")
