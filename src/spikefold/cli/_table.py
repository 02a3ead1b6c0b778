"""The command that puts many runs into a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spikefold.cli._output import print_json
from spikefold.errors import ConfigError
from spikefold.reports import accuracy_records, accuracy_table, read_summaries, to_csv, to_markdown


@dataclass(frozen=True)
class TableOptions:
    """Mean and deviation of accuracy over the seeds of each setting."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """directories of runs, or that hold runs"""
    format: Literal["markdown", "csv"] = "markdown"
    """of what is printed"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


def table_command(words: list[str]) -> None:
    """Put many runs into a table."""
    options = tyro.cli(TableOptions, args=words, prog="spikefold table")
    if not options.runs:
        raise ConfigError("table: name at least one directory of runs")
    records = accuracy_records(_completed(read_summaries(options.runs)))
    if options.json:
        print_json(records)
    else:
        rows = accuracy_table(records)
        print((to_csv if options.format == "csv" else to_markdown)(rows), end="")


def _completed(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of several versions with the same settings: what an older one had not is default."""
    if len({str(_names(summary["experiment"])) for summary in summaries}) < 2:
        return summaries
    # Here, because it imports torch, which tables seldom need.
    from spikefold.plain import from_plain, to_plain
    from spikefold.training import Experiment

    def complete(summary: dict[str, Any]) -> dict[str, Any]:
        try:
            experiment = from_plain(summary["experiment"], Experiment, "experiment")
        except ConfigError:
            # of a model, or of settings, that this version does not know
            return summary
        return {**summary, "experiment": to_plain(experiment)}

    return [complete(summary) for summary in summaries]


def _names(settings: Any) -> Any:
    """The names of nested settings."""
    if not isinstance(settings, dict):
        return None
    return {key: _names(settings[key]) for key in sorted(settings)}
