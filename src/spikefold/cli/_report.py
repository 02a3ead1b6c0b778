"""The command that makes a page of runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spikefold.cli._output import print_json
from spikefold.cli._parsing import Json, parse
from spikefold.cli._records import completed, note_unfinished
from spikefold.errors import ConfigError
from spikefold.reports import Run, find_runs, read_summary, write_page


@dataclass(frozen=True)
class ReportOptions:
    """One page about runs on one data set, with tables and pictures; seeds are taken together."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """directories of runs, or that hold runs"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """HTML file to write"""
    json: Json = False


def report_command(words: list[str]) -> None:
    """Make a page of runs."""
    options = parse(ReportOptions, words, "spikefold report")
    if not options.runs:
        raise ConfigError("report: name at least one directory of runs")
    directories = find_runs(options.runs)
    note_unfinished(options.runs)
    summaries = completed([read_summary(directory) for directory in directories])
    runs = [Run(*pair) for pair in zip(directories, summaries, strict=True)]
    write_page(runs, options.output)
    if options.json:
        print_json({"report": str(options.output), "runs": [str(path) for path in directories]})
    else:
        print(f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {options.output}")
