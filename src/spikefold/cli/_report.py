"""The command that makes a page of runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spikefold.cli._output import print_json
from spikefold.cli._outputs import require_writable
from spikefold.cli._parsing import NEEDED, Json, parse
from spikefold.cli._progress import shown_progress
from spikefold.cli._records import load_runs
from spikefold.reports import write_page


@dataclass(frozen=True)
class ReportOptions:
    """One page about runs on one data set, with tables and pictures; seeds are taken together."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ..."), NEEDED
    ]
    """directories of runs, or that hold runs"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """HTML file to write"""
    json: Json = False


def report_command(words: list[str]) -> None:
    """Make a page of runs."""
    options = parse(ReportOptions, words, "spikefold report")
    require_writable(options.output, ".html")
    runs = load_runs("report", options.runs)
    with shown_progress().task("report", len(runs)) as advance:
        write_page(runs, options.output, advance)
    if options.json:
        print_json({"report": str(options.output), "runs": [str(run.directory) for run in runs]})
    else:
        print(f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {options.output}")
