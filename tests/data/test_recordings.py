"""Recordings: hand-made files of every format, real ones with published counts, broken ones."""

from pathlib import Path

import numpy as np
import pytest

from spikefold.data import EVENT, read_recording
from spikefold.errors import DataError
from tests.data.formats import Row, aedat4, dat, evt2, evt3, five_bytes

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "recordings"
ROWS: list[Row] = [(3, 7, 10, 1), (30, 9, 5000, 0), (0, 0, 70_000, 1)]


def needs_reader(name: str) -> None:
    if name.endswith(".aedat4"):
        pytest.importorskip("aedat")


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
    assert recording.stated == (file_format == "AEDAT 4")
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


@pytest.mark.parametrize(
    ("name", "data", "file_format", "sensor", "stated"),
    [
        ("a.aedat4", aedat4(ROWS, (346, 260)), "AEDAT 4", (346, 260), True),
        ("a.dat", dat(ROWS), "Prophesee DAT", (304, 240), True),
        ("a.dat", dat(ROWS, b""), "Prophesee DAT", (31, 10), False),
        ("a.raw", evt2(ROWS), "EVT 2", (31, 10), False),
        ("a.raw", evt2(ROWS, b"% evt 2.0\n% geometry 640x480\n"), "EVT 2", (640, 480), True),
        ("a.raw", evt3(ROWS), "EVT 3", (31, 10), False),
        ("a.raw", evt3(ROWS, b"% format EVT3;height=720;width=1280\n% end\n"), "EVT 3",
         (1280, 720), True),
        ("a.raw", evt3(ROWS, b"% evt 3.0\n% width 320\n% height 320\n"), "EVT 3", (320, 320), True),
        ("a.bin", five_bytes(*ROWS), "N-MNIST", (34, 34), False),
        ("a.bin", five_bytes(*ROWS, (34, 0, 80_000, 1)), "N-Caltech101", (240, 180), False),
        ("a.bs2", five_bytes(*ROWS), "bs2", (128, 128), False),
        ("a.bs2", five_bytes(*ROWS, (7, 240, 80_000, 1)), "bs2", (31, 241), False),
    ],
)  # fmt: skip
def test_hand_made_files(
    name: str, data: bytes, file_format: str, sensor: tuple[int, int], stated: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    needs_reader(name)
    (tmp_path / name).write_bytes(data)
    recording = read_recording(tmp_path / name)
    read = [(int(e["x"]), int(e["y"]), int(e["t"]), int(e["p"])) for e in recording.events]
    assert read[:3] == ROWS
    assert recording.events.dtype == EVENT
    assert (recording.format, recording.sensor, recording.stated) == (file_format, sensor, stated)


def test_rows_240_of_a_bin_file_tell_that_the_clock_went_round(tmp_path: Path) -> None:
    mark = (9, 240, 8191, 0)
    data = five_bytes((1, 2, 8000, 1), mark, (3, 4, 5, 0), mark, mark, (5, 6, 7, 1))
    (tmp_path / "a.bin").write_bytes(data)
    events = read_recording(tmp_path / "a.bin").events
    assert events["t"].tolist() == [8000, 8192 + 5, 3 * 8192 + 7]
    assert events["x"].tolist() == [1, 3, 5]
    (tmp_path / "a.bin").write_bytes(five_bytes(mark))
    with pytest.raises(DataError, match=r"a.bin: no events in this"):
        read_recording(tmp_path / "a.bin")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "encoding"),
    [("expelliarmus_evt2_sample.raw", "evt2"), ("tonic_sample_ncars.dat", "dat")],
)
def test_real_recordings_equal_what_expelliarmus_reads(name: str, encoding: str) -> None:
    if not (RECORDINGS / name).exists():
        pytest.skip(f"{RECORDINGS / name} is absent: a real recording")
    wizard = pytest.importorskip("expelliarmus").Wizard(encoding=encoding)
    expected = wizard.read(str(RECORDINGS / name))
    events = read_recording(RECORDINGS / name).events
    for field in "txyp":
        assert np.array_equal(events[field], expected[field])


def one_word_after_another(data: bytes) -> list[Row]:
    """EVT 3 by its specification, in a loop."""
    rows: list[Row] = []
    high = low = y = polarity = x = 0
    for n in range(0, len(data), 2):
        word = data[n] | data[n + 1] << 8
        kind, content = word >> 12, word & 0xFFF
        if kind == 8:
            high = content
        elif kind == 6:
            low = content
        elif kind == 0:
            y = content & 0x7FF
        elif kind == 2:
            rows.append((content & 0x7FF, y, (high << 12) | low, content >> 11))
        elif kind == 3:
            polarity, x = content >> 11, content & 0x7FF
        else:
            assert kind in (4, 5)
            for bit in range(12 if kind == 4 else 8):
                if content >> bit & 1:
                    rows.append((x, y, (high << 12) | low, polarity))
                x += 1
    return rows


@pytest.mark.data
def test_a_real_evt3_recording_equals_a_loop_over_its_words() -> None:
    path = RECORDINGS / "expelliarmus_evt3_sample.raw"
    if not path.exists():
        pytest.skip(f"{path} is absent: a real recording")
    data = path.read_bytes()
    start = data.index(b"\n", data.index(b"system_ID")) + 1
    events = read_recording(path).events
    expected = one_word_after_another(data[start:])
    assert [
        tuple(row) for row in zip(*(events[n].tolist() for n in "xytp"), strict=True)
    ] == expected
    # its words tell three values of the upper half of the time: less than 3 times 4,096 µs
    assert events["t"][-1] - events["t"][0] == 8801


def words(*parts: int) -> bytes:
    return b"".join(part.to_bytes(2, "little") for part in parts)


def test_evt3_vectors_states_and_the_end_of_the_counter(tmp_path: Path) -> None:
    data = b"% evt 3.0\n" + words(
        0x0005, 0x2001,  # y = 5, an event at x = 1: no time was told yet
        0x8FFF, 0x6FF0,  # 2^24 - 16 µs
        0x3800 | 100, 0x4801, 0x5F82, 0x2000 | 7, 0x4001,  # brighter from x = 100 on, 7 darker
        0x8000, 0x6003, 0x0006, 0x7123, 0xA001,  # 3 µs after the end of 24 bits; y = 6; others
        0x3000 | 50, 0x50FF,
    )  # fmt: skip
    (tmp_path / "a.raw").write_bytes(data)
    events = read_recording(tmp_path / "a.raw").events
    first, second = 2**24 - 16, 2**24 + 3
    assert [tuple(int(e[n]) for n in "xytp") for e in events] == [
        (100, 5, first, 1), (111, 5, first, 1), (113, 5, first, 1), (119, 5, first, 1),
        (7, 5, first, 0), (120, 5, first, 1), *((x, 6, second, 0) for x in range(50, 58)),
    ]  # fmt: skip


@pytest.mark.parametrize("header", [b"% evt 2.0\n", b"% evt 2.0\r\n% end\r\n"])
def test_events_may_look_like_a_header(header: bytes, tmp_path: Path) -> None:
    looks = b"% \n" if b"end" in header else b"%\n\n"
    time = int.from_bytes(looks + b"\x80", "little") & 0xFFFFFFF  # told by a word of these bytes
    data = evt2([(1, 2, time << 6, 1)], header)
    assert data[len(header) :].startswith(looks)
    (tmp_path / "a.raw").write_bytes(data)
    assert read_recording(tmp_path / "a.raw").events.tolist() == [(1, 2, time << 6, 1)]


def test_evt2_events_before_the_first_time_are_left_out(tmp_path: Path) -> None:
    whole = evt2([(1, 2, 70, 1), (3, 4, 71, 0)])
    early = whole.replace(b"% evt 2.0\n", b"% evt 2.0\n" + evt2([(5, 6, 7, 1)], b"")[4:])
    (tmp_path / "a.raw").write_bytes(early)
    assert read_recording(tmp_path / "a.raw").events["x"].tolist() == [1, 3]


def test_counters_of_evt2_and_dat_go_on_after_their_end(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(evt2([(1, 2, 2**34 - 1, 0), (3, 4, 2**34 - 64, 1)]))
    end = evt2([(5, 6, 9, 1)], header=b"")
    (tmp_path / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes() + end)
    events = read_recording(tmp_path / "a.raw").events
    assert events["t"].tolist() == [2**34 - 1, 2**34 - 64, 2**34 + 9]
    (tmp_path / "a.dat").write_bytes(dat([(1, 2, 2**32 - 1, 0), (3, 4, 5, 1)]))
    assert read_recording(tmp_path / "a.dat").events["t"].tolist() == [2**32 - 1, 2**32 + 5]


def test_a_first_event_may_look_like_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(five_bytes((ord("P"), ord("K"), 9, 1)))
    assert read_recording(tmp_path / "a.bin").format == "N-Caltech101"


def columns(**changes: object) -> dict[str, np.ndarray]:
    arrays = {name: np.array([row["xytp".index(name)] for row in ROWS]) for name in "xytp"}
    return arrays | {name: np.asarray(value) for name, value in changes.items()}


@pytest.mark.parametrize(
    "arrays",
    [
        columns(),
        columns(p=[True, False, True]),
        columns(p=[1, -1, 1]),
        columns(t=[10.0, 5000.0, 70_000.0], x=np.array([3, 30, 0], np.uint8), label=4),
        {"events": np.array([(t, x, y, p) for x, y, t, p in ROWS],
                            dtype=[("t", "<u8"), ("x", "<i2"), ("y", "<i2"), ("p", "?")])},
    ],
)  # fmt: skip
def test_npz_files_hold_columns_or_one_structured_array(
    arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    recording = read_recording(tmp_path / "a.npz")
    assert [tuple(int(e[n]) for n in "xytp") for e in recording.events] == ROWS
    assert (recording.format, recording.sensor, recording.stated) == ("npz", (31, 10), False)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frames": np.zeros(3)}, r"arrays t, x, y and p, or `events` .* this one has frames"),
        ({"events": np.zeros((3, 4))}, "this one has events"),
        ({}, "this one has none"),
        (columns(x=[1, 2]), r"the same length, got t \[3\], x \[2\], y \[3\], p \[3\]"),
        (columns(t=[0.01, 0.5, 0.7]), "t must hold whole microseconds"),
        (columns(t=[0, np.nan, 1]), "t must hold whole microseconds"),
        (columns(x=[-1, 0, 1]), r"x must hold whole numbers in \[0, 65536\)"),
        (columns(y=[0, 0, 70_000]), "y must hold whole numbers"),
        (columns(p=[0, 1, 2]), r"p must hold whole numbers in \[-1, 2\)"),
        (columns(p=["a", "b", "c"]), "p must hold whole numbers"),
        (columns(x=[], y=[], t=[], p=[]), "no events in this npz file"),
    ],
)
def test_npz_files_of_something_else_are_refused(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"a.npz: .*{message}"):
        read_recording(tmp_path / "a.npz")


def test_npz_files_run_no_code_and_say_where_they_are_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.array([print], dtype=object))
    with pytest.raises(DataError, match=r"a.npz: this npz file is damaged .*allow_pickle"):
        read_recording(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **columns())  # type: ignore[arg-type]
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"a.npz is damaged or cut off"):
        read_recording(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty", b"", "not a known format of recordings"),
        ("text.raw", b"hello", "not a known format of recordings"),
        ("a.raw", b"% evt 2.1\n" + bytes(64), "not a known format of recordings"),
        ("a.bin", b"1234567", "7 bytes are not a whole number"),
        ("a.bs2", b"1234567", "7 bytes are not a whole number"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n", "damaged or cut off"),
        ("b.aedat4", aedat4(ROWS, (128, 128))[:-30], "damaged or cut off"),
        ("c.aedat4", aedat4([], (128, 128)), "no events"),
        ("a.dat", dat(ROWS)[:-3], "is cut off: 5 of 8 bytes at its end"),
        ("b.raw", evt2(ROWS)[:-3], "is cut off: 1 of 4 bytes at its end"),
        ("c.raw", evt3(ROWS)[:-1], "is cut off: 1 of 2 bytes at its end"),
        ("d.raw", b"% evt 3.0\n% Date 2020", "cut off in its header"),
        ("e.raw", evt2([(1, 1, 1, 1)])[:14], "no events"),
        ("f.raw", b"% evt 2.0\n" + bytes([0, 0, 0, 0x50]), "unknown type 5"),
        ("g.raw", b"% evt 3.0\n" + bytes([0, 0x90]), "word 0 is of the unknown type 9"),
        ("b.dat", dat(ROWS).replace(b"\x0c\x08", b"\x0e\x08"), r"size \[14, 8\]"),
        ("c.dat", b"% Data file\n", r"size \[\]"),
    ],
)
def test_foreign_and_broken_files_are_named(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    needs_reader(name)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_recording(tmp_path / name)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.raw: no such file"):
        read_recording(tmp_path / "none.raw")
    with pytest.raises(DataError, match="not a regular file: a folder"):
        read_recording(tmp_path)
