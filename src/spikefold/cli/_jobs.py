"""Runs side by side: started, watched and told of, wherever an engine has them run."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from spikefold.cli._output import one_line
from spikefold.cli._progress import Lines
from spikefold.errors import SpikefoldError
from spikefold.training import Progress

DONE, FAILED = "done", "failed"
Work = Callable[[Progress], None]  # one run; can be pickled


@runtime_checkable
class Running(Protocol):
    """A run that was started."""

    def news(self) -> Iterable[str]:
        """The lines it has said since it was last asked."""

    def ended(self) -> str | None:
        """None while it goes on; then `DONE`, or how it ended otherwise."""


RunningT = TypeVar("RunningT", bound=Running)


@runtime_checkable
class Engine(Protocol[RunningT]):
    """Where runs are worked on.

    Attributes:
        at_once: so many of them at a time.
        pause: seconds between two looks at them.
    """

    at_once: int
    pause: float

    def start(self, numbers: Sequence[int]) -> Iterable[RunningT]:
        """Start the runs of these numbers; each as it is taken."""

    def leave(self, running: Sequence[RunningT]) -> str:
        """Leave runs before they ended; what becomes of them, if they go on."""


class _Shown:
    """One line a run, on standard error."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.latest: dict[int, str] = {}
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> "_Shown":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def say(self, number: int, line: str) -> None:
        """What a run says."""
        self.latest[number] = line
        if not self.console.is_terminal:
            print(self._text(number), file=sys.stderr, flush=True)
            return
        shown = Text("\n".join(map(self._text, sorted(self.latest))))
        self.live.update(shown, refresh=True)

    def end(self, number: int, how: str) -> None:
        """How a run ended, beside why, where it has said that."""
        said = self.latest.get(number, "")
        self.say(number, f"{said}; {how}" if said.startswith(FAILED) else how)

    def _text(self, number: int) -> str:
        return f"{number + 1}/{len(self.names)} {self.names[number]}: {self.latest[number]}"


def work_telling(work: Work, say: Callable[[str], None], threads: int) -> None:
    """Do a run in a process of its own.

    Arguments:
        work: the run.
        say: gets its lines; a user's mistake is the last.
        threads: of torch.

    Raises:
        SpikefoldError: a user's mistake, or an OSError, once it is told.
    """
    import torch

    torch.set_num_threads(threads)
    try:
        work(Lines(say))
    except (SpikefoldError, OSError) as error:
        say(f"{FAILED}: {one_line(error)}")
        raise


def run_jobs(engine: Engine[RunningT], names: Sequence[str]) -> list[int]:
    """Run jobs, so many at once; if one dies, the others go on.

    Arguments:
        engine: starts them.
        names: of the jobs, for their lines.

    Returns:
        the places of those that did not end well.

    Raises:
        KeyboardInterrupt: when interrupted; with what becomes of those that were running.
    """
    waiting, failed = list(range(len(names))), []
    running: dict[int, RunningT] = {}
    with _Shown(names) as shown:
        try:
            while waiting or running:
                room = max(0, engine.at_once - len(running))
                numbers, waiting = waiting[:room], waiting[room:]
                for number, run in zip(numbers, engine.start(numbers), strict=True):
                    running[number] = run
                time.sleep(engine.pause)
                for number, run in list(running.items()):
                    how = run.ended()  # before its news: what it said last comes first
                    for line in run.news():
                        shown.say(number, line)
                    if how is not None:
                        shown.end(number, how)
                        del running[number]
                        failed += [number] if how != DONE else []
        except BaseException as error:
            left = engine.leave(list(running.values()))
            if isinstance(error, KeyboardInterrupt):
                raise type(error)(left) from error
            raise
    return sorted(failed)
