"""The command that puts many runs into a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spikefold.cli._output import print_json
from spikefold.cli._parsing import Json, parse
from spikefold.cli._records import completed, note_unfinished
from spikefold.errors import ConfigError
from spikefold.reports import accuracy_records, accuracy_table, read_summaries, to_csv, to_markdown


@dataclass(frozen=True)
class TableOptions:
    """Mean and deviation of accuracy over the seeds of each setting."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """directories of runs, or that hold runs"""
    format: Literal["markdown", "csv"] = "markdown"
    """of what is printed"""
    json: Json = False


def table_command(words: list[str]) -> None:
    """Put many runs into a table."""
    options = parse(TableOptions, words, "spikefold table")
    if not options.runs:
        raise ConfigError("table: name at least one directory of runs")
    note_unfinished(options.runs)
    records = accuracy_records(completed(read_summaries(options.runs)))
    if options.json:
        print_json(records)
    else:
        rows = accuracy_table(records)
        print((to_csv if options.format == "csv" else to_markdown)(rows), end="")
