"""The command that lists data sets."""

from dataclasses import dataclass
from pathlib import Path

from spikefold.cli._output import print_json, print_rows
from spikefold.cli._parsing import Json, parse
from spikefold.data import DATASETS


@dataclass(frozen=True)
class DatasetsOptions:
    """List the data sets: what, size, licence, where from, and whether they are there."""

    root: Path | None = None
    """folder to look in; default: $SPIKEFOLD_DATA, or the cache of downloads"""
    json: Json = False


def datasets_command(words: list[str]) -> None:
    """List the data sets."""
    options = parse(DatasetsOptions, words, "spikefold datasets")
    found = {name: info.find(options.root) for name, info in DATASETS.items()}
    if options.json:
        print_json(
            {
                name: {
                    "summary": info.summary,
                    "size": info.size,
                    "licence": info.licence,
                    "origin": info.origin,
                    "present": None if found[name] is None else str(found[name]),
                }
                for name, info in DATASETS.items()
            }
        )
        return
    rows = [("name", "what", "size", "licence", "from", "present")]
    rows += [
        (name, info.summary, info.size, info.licence, info.origin, str(found[name] or "no"))
        for name, info in DATASETS.items()
    ]
    print_rows("data sets", rows)
