"""Runs that commands are told of, those of several versions side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikefold.cli._output import print_error
from spikefold.errors import ConfigError
from spikefold.reports import Run, find_runs, read_summary, require_each_once, unfinished_runs


def load_runs(command: str, paths: Sequence[Path]) -> list[Run]:
    """Finished runs that are named or lie in folders, as of this version; says what is left out.

    Raises:
        ConfigError: if none is named.
        DataError: if a folder holds none, one is there twice, or a summary is damaged.
    """
    if not paths:
        raise ConfigError(f"{command}: name at least one directory of runs")
    directories = find_runs(paths)
    note_unfinished(paths)
    summaries = completed([read_summary(directory) for directory in directories])
    runs = [Run(*pair) for pair in zip(directories, summaries, strict=True)]
    require_each_once(runs)
    return runs


def note_unfinished(paths: Sequence[Path]) -> None:
    """Say which runs are left out."""
    for directory, what in unfinished_runs(paths):
        print_error(f"note: {directory} has no results yet, and is left out ({what})")


def completed(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
