"""Where long work stands, on standard error: bars on a terminal, lines of text elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Drawn

from spikefold.training import Advance, Progress

# Seconds after which a task without notes prints a line.
SILENCE = 60


def shown_progress() -> Progress:
    """Progress as standard error can show it."""
    return Bars() if Console(stderr=True).is_terminal else Lines(_print)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Clock:
    """The pieces of a task that are done, the time they took, and the time left at their pace."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.before = total, done, done
        self.started = time.monotonic()

    def tick(self) -> None:
        """One more is done."""
        self.done += 1

    @property
    def used(self) -> str:
        """Since the task began."""
        return _span(time.monotonic() - self.started)

    @property
    def left(self) -> str:
        """What remains, if anything."""
        if self.done >= self.total:
            return ""
        pace = (time.monotonic() - self.started) / (self.done - self.before)
        return f"{_span(pace * (self.total - self.done))} left"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class Lines:
    """Progress as lines of text: at each note, at the end, and else once a minute.

    A task within a task says nothing.

    Arguments:
        say: gets the lines; can be pickled where the work goes to other processes.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.inside = False

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """A task of so many pieces, while the context lasts."""
        if self.inside:
            yield _nothing
            return
        clock, said = _Clock(total, done), time.monotonic()

        def advance(note: str = "") -> None:
            nonlocal said
            clock.tick()
            if note or clock.done == total or time.monotonic() - said > SILENCE:
                said = time.monotonic()
                times = ", ".join(filter(None, (f"{clock.used} used", clock.left)))
                self.say("  ".join(filter(None, (f"{name} {clock.done}/{total}", note, times))))

        self.inside = True
        try:
            yield advance
        finally:
            self.inside = False


def _nothing(note: str = "") -> None:
    pass


class Bars:
    """Progress as bars; a task within a task has one below, while it lasts."""

    def __init__(self) -> None:
        # Made by the outermost task: this object goes to other processes, a display cannot.
        self.drawn: Drawn | None = None

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        """A task of so many pieces, while the context lasts."""
        with ExitStack() as stack:
            drawn, indent = self.drawn, "  "
            if drawn is None:
                drawn, indent = stack.enter_context(_display()), ""
                self.drawn = drawn
                stack.callback(setattr, self, "drawn", None)
            bar = drawn.add_task(indent + name, total=total, completed=done, note="", left="")
            if indent:
                stack.callback(drawn.remove_task, bar)
            clock, shown = _Clock(total, done), ""

            def advance(note: str = "") -> None:
                nonlocal shown
                shown = note or shown
                clock.tick()
                drawn.update(bar, advance=1, left=clock.left, note=shown)

            yield advance


def _display() -> Drawn:
    return Drawn(
        TextColumn("{task.description:14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
