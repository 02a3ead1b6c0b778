"""Where long work stands: lines and bars, by a clock of our own."""

import io
import pickle
from functools import partial
from types import SimpleNamespace

import pytest
from rich.console import Console

from spikefold.cli import _progress
from spikefold.cli._progress import Bars, Lines, shown_progress
from spikefold.training import Progress


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=clock))
    return clock


def test_lines_tell_time_used_and_left(clock: Clock) -> None:
    said: list[str] = []
    with Lines(said.append).task("train", 5, done=2) as advance:
        clock.now += 60
        advance("loss 1")
        clock.now += 100
        advance("loss 2")
        advance()
    assert said == [
        "train 3/5  loss 1  0:01:00 used, 0:02:00 left",  # the two before took no time of this
        "train 4/5  loss 2  0:02:40 used, 0:01:20 left",
        "train 5/5  0:02:40 used",
    ]


def test_lines_without_notes_come_once_a_minute_and_at_the_end(clock: Clock) -> None:
    said: list[str] = []
    with Lines(said.append).task("verify", 100) as advance:
        for _ in range(100):
            clock.now += 1
            advance()
    assert said == ["verify 61/100  0:01:01 used, 0:00:39 left", "verify 100/100  0:01:40 used"]


def test_a_task_within_a_task_says_nothing_in_lines() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    with lines.task("train", 1) as advance:
        with lines.task("epoch 1", 1) as advance_batch:
            advance_batch("note")
        advance("done")
    with lines.task("verify", 1) as advance:
        advance()
    assert [line.split("  ")[0] for line in said] == ["train 1/1", "verify 1/1"]


def test_bars_within_bars(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Drawn on a terminal; batches are seen while their epoch lasts."""
    out = io.StringIO()
    terminal = partial(Console, file=out, force_terminal=True, width=100)
    monkeypatch.setattr(_progress, "Console", lambda **_: terminal())
    progress = shown_progress()
    assert isinstance(progress, Bars)
    with progress.task("train", 3, done=1) as advance:
        with progress.task("epoch 2", 40) as advance_batch:
            advance_batch()
            assert progress.drawn is not None
            progress.drawn.refresh()
            assert "epoch 2" in out.getvalue()
            assert "1/40" in out.getvalue()
        clock.now += 60
        advance("loss 0.5  validation 50.00%")
        assert len(progress.drawn.tasks) == 1
        progress.drawn.refresh()
    for part in ("2/3", "0:01:00 left", "loss 0.5  validation 50.00%"):
        assert part in out.getvalue()
    with progress.task("verify", 1) as advance:  # one after another
        advance()
    assert "1/1" in out.getvalue()


@pytest.mark.parametrize("progress", [Bars(), Lines(print)])
def test_progress_goes_to_other_processes(progress: Progress) -> None:
    with progress.task("train", 1):
        pass
    assert isinstance(pickle.loads(pickle.dumps(progress)), Progress)
