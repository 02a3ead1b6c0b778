"""The command that compares two settings, seed by seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spikefold.cli._output import print_json, print_rows
from spikefold.cli._outputs import require_writable
from spikefold.cli._parsing import Json, parse
from spikefold.cli._records import completed, note_unfinished
from spikefold.reports import pair_runs, pair_table, pair_verdict, plot_pairs


@dataclass(frozen=True)
class CompareOptions:
    """What one setting gains over another, over runs of the same seeds: mean difference, its 95 %
    interval, exact sign-flip test.
    """

    one: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ONE")]
    """directory that holds the runs of a setting"""
    other: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OTHER")]
    """directory that holds those of the other"""
    picture: Path | None = None
    """PNG file for the learning curves of all seeds"""
    json: Json = False


def compare_command(words: list[str]) -> None:
    """Compare two settings."""
    options = parse(CompareOptions, words, "spikefold compare")
    if options.picture is not None:
        require_writable(options.picture, ".png")
    record = pair_runs(options.one, options.other, completed)
    note_unfinished([options.one, options.other])
    if options.picture is not None:
        plot_pairs(options.one, options.other, record["names"], options.picture)
    if options.json:
        print_json(record)
        return
    print_rows(f"one: {options.one}\nother: {options.other}", pair_table(record))
    print(f"settings that differ: {', '.join(record['differ']) or 'none'}")
    for split in ("validation", "test"):
        if split in record:
            print(pair_verdict(record, split))
