"""The command that puts many runs into a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spikefold.cli._output import print_json
from spikefold.cli._parsing import NEEDED, Json, parse
from spikefold.cli._records import load_runs
from spikefold.reports import accuracy_records, accuracy_table, to_csv, to_markdown


@dataclass(frozen=True)
class TableOptions:
    """Mean and deviation of accuracy over the seeds of each setting."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ..."), NEEDED
    ]
    """directories of runs, or that hold runs"""
    format: Literal["markdown", "csv"] = "markdown"
    """of what is printed"""
    costs: bool = False
    """also firing rates, operations, energy, training time and the norms left at inference, which
    --json always has"""
    json: Json = False


def table_command(words: list[str]) -> None:
    """Put many runs into a table."""
    options = parse(TableOptions, words, "spikefold table")
    records = accuracy_records(run.summary for run in load_runs("table", options.runs))
    if options.json:
        print_json(records)
    else:
        rows = accuracy_table(records, costs=options.costs)
        print((to_csv if options.format == "csv" else to_markdown)(rows), end="")
