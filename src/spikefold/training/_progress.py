"""How long work reports its progress; the command line draws it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


@runtime_checkable
class Advance(Protocol):
    """Called when one more piece of a task is done."""

    def __call__(self, note: str = "") -> None:
        """Arguments: note: shown beside the bar from now on."""


@runtime_checkable
class Progress(Protocol):
    """Shows tasks."""

    def task(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """A task of so many pieces, while the context lasts; it may be a part of another's piece.

        Arguments:
            name: of the task.
            total: its pieces.
            done: pieces that were done before, which say nothing of the pace.
        """


class Silent:
    """Shows nothing."""

    def task(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """A task nobody sees."""

        def advance(note: str = "") -> None:
            pass

        return nullcontext(advance)
