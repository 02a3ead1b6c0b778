"""Records of several versions side by side."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikefold.cli._output import print_error
from spikefold.errors import ConfigError
from spikefold.reports import unfinished_runs


def note_unfinished(paths: Sequence[Path]) -> None:
    """Say which runs are left out."""
    for directory in unfinished_runs(paths):
        print_error(
            f"note: {directory} has no results yet, and is left out "
            f"(spikefold run --resume {shlex.quote(str(directory))} goes on with it)"
        )


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
