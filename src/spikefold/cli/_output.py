"""Results go to standard output, progress and errors to standard error."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from spikefold.training import Advance


class ShownProgress:
    """Progress bars on standard error; on a file, one line whenever something new is noted."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Advance]:
        """A task of so many pieces, while the context lasts."""
        console = Console(stderr=True)  # here, for this object goes to other processes
        if not console.is_terminal:
            with self._lines(name, total) as advance:
                yield advance
            return
        columns = (
            TextColumn("{task.description:14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=console) as bars:
            task = bars.add_task(name, total=total, note="")

            def advance(note: str = "") -> None:
                bars.advance(task)
                if note:
                    bars.update(task, note=note)

            yield advance

    @contextmanager
    def _lines(self, name: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(note: str = "") -> None:
            nonlocal done
            done += 1
            if note or done == total:
                print(f"{name} {done}/{total}  {note}".rstrip(), file=sys.stderr, flush=True)

        yield advance


def print_json(record: Any) -> None:
    """One machine-readable object."""
    json.dump(record, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_rows(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """A table a person can read."""
    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to wrap at
        console = Console(width=200)
    console.print(table)


def print_error(message: str) -> None:
    """One line on standard error."""
    print(f"spikefold: {message}", file=sys.stderr)
