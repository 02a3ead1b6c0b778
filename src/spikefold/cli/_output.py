"""Results go to standard output, errors to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from spikefold.records import finite

# Width of output that does not go to a terminal.
UNLIMITED = 1_000_000
# columns that are folded rather than told row by row
FEW = 4


def print_json(record: Any) -> None:
    """One machine-readable object, whole or not at all; a number that is not finite is null."""
    sys.stdout.write(json.dumps(finite(record), indent=2, allow_nan=False) + "\n")


def print_record(title: str, record: Mapping[str, Any]) -> None:
    """A record as a table of names and values."""
    print_rows(title, [(name, shown(value)) for name, value in record.items()])


def shown(value: Any) -> str:
    """A value as a person reads it: four digits of a fraction, thousands set apart."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)


def print_rows(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """A table a person can read; nothing in it is cut.

    One of many columns, whose first row is their header, is told row by row where it is too wide.
    """
    # A file or a pipe has no width to wrap at. Names may hold [what rich takes for markup].
    width = None if sys.stdout.isatty() else UNLIMITED
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    columns = max(map(len, rows), default=0)
    table = Table(title=title, show_header=False, title_justify="left")
    for _ in range(columns):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    free = console.options.update(width=UNLIMITED)
    if columns > FEW and console.measure(table, options=free).maximum > console.width:
        console.print(title)
        (_, *heads), *records = rows
        for name, *values in records:
            told = [f"{head} {value}" for head, value in zip(heads, values, strict=False) if value]
            console.print(Padding(f"{name}: {'; '.join(told)}", (0, 0, 0, 2)))
    else:
        console.print(table)


def print_error(message: str) -> None:
    """One line on standard error."""
    print(f"spikefold: {message}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """What went wrong, and with which file."""
    if not isinstance(error, OSError) or error.strerror is None:
        return " ".join(str(error).split())
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror}"
