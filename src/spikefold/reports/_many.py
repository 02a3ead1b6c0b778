"""Many runs: their summaries, and a table of means over seeds."""

import csv
import io
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spikefold.errors import DataError
from spikefold.records import SUMMARY
from spikefold.reports._means import COST_HEADER, cost_cells, cost_record
from spikefold.reports._runs import find_runs, read_record, undamaged

HEADER = ("recipe", "data", "model", "norms", "T", "epochs", "n", "validation (%)", "test (%)")
# data sets that are what their folder holds
OWN_DATA = ("folder", "recordings")
# settings that a row has in a column, or that runs of one row may differ in
_IN_COLUMNS = {
    *("data.name", "model.name", "model.current_norm", "model.norm", "model.steps"),
    *("optimizer.epochs", "seed"),
}


def read_summaries(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries of runs: directories of runs, or directories that hold such; each run once.

    Raises:
        DataError: if a directory holds no finished run, or a summary is damaged.
    """
    return [read_summary(directory) for directory in find_runs(paths)]


def read_summary(directory: Path) -> dict[str, Any]:
    """The summary of a run.

    Raises:
        DataError: if it is damaged.
    """
    file = directory / SUMMARY
    summary = read_record(file)
    if summary is None:
        raise DataError(f"{directory}: no finished run ({SUMMARY}) in it")
    with undamaged(file):
        _require_record(summary)
    return summary


def _require_record(summary: dict[str, Any]) -> None:
    """Refuse what has not the numbers that tables are made of.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: whichever it comes upon.
    """
    record = _record([summary])
    accuracies = [record[split]["values"] for split in ("validation", "test") if record[split]]
    counts = [*record["seeds"], *(record["fold"] or {}).values()]
    setting_key(summary)
    counts += [summary["fuse"][key] for key in ("mismatches", "spikes") if "fuse" in summary]
    if bool(record["validation"]) != (summary["validation"] is not None):
        raise ValueError("validation is neither a record nor null")
    if not all(type(value) in (int, float) and 0 <= value <= 1 for (value,) in accuracies):
        raise ValueError("an accuracy is no number in [0, 1]")
    if not all(type(value) is int and value >= 0 for value in counts):
        raise ValueError("a seed or a number of spikes is no whole number")


def accuracy_records(summaries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record a setting: accuracies of all runs (their seeds differ), mean and deviation.

    Arguments:
        summaries: of runs, as `summary.json` has them.

    Returns:
        what names the setting, with the settings that have no column where runs of one recipe
        differ in them; `n`, the number of seeds; "validation" and "test", each `mean`, `deviation`
        (of the sample; None of one run) and `values` in the order of `seeds`, or None where there
        were no samples; "fold", the decisions compared and those that differ over all runs, or None
        where nothing was folded; "cost", of `cost_record`.
    """
    groups = by_setting(summaries)
    settings = _differing([group[0] for group in groups])
    return [
        {**_record(group), "settings": setting}
        for group, setting in zip(groups, settings, strict=True)
    ]


def by_setting(summaries: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Summaries whose settings are the same but for the seed, together.

    Raises:
        DataError: if one stands there twice: it would count as two.
    """
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for summary in summaries:
        group, seed = groups.setdefault(setting_key(summary), {}), summary["experiment"]["seed"]
        if seed in group:
            raise DataError(
                f"two runs of {summary['recipe']} have the same settings and seed {seed}: leave "
                "one out"
            )
        group[seed] = summary
    return [list(group.values()) for group in groups.values()]


def of_setting(summary: dict[str, Any]) -> dict[str, Any]:
    """All that runs of one setting have in common: no seed, and not where they were run."""
    return {k: v for k, v in summary["experiment"].items() if k not in ("seed", "hardware")}


def setting_key(summary: dict[str, Any]) -> str:
    """The same for all runs of one setting."""
    setting = of_setting(summary)
    setting["data"] = {**setting["data"], "root": data_root(setting["data"])}
    return json.dumps([summary["recipe"], setting], sort_keys=True)


def data_root(data: dict[str, Any]) -> str | None:
    """The folder of a run's data; of data of one's own, which are what it holds, absolute."""
    root: str | None = data.get("root")
    return os.path.abspath(root) if root and data["name"] in OWN_DATA else root


def _record(group: list[dict[str, Any]]) -> dict[str, Any]:
    first = group[0]
    experiment = first["experiment"]
    seeds = [summary["experiment"]["seed"] for summary in group]
    validations = [s["validation"] for s in group if s["validation"]]
    folds = [summary["fold"] for summary in group if "fold" in summary]
    return {
        "recipe": first["recipe"],
        "data": experiment["data"]["name"],
        "model": experiment["model"]["name"],
        "current_norm": current_norm(experiment["model"]),
        "norm": experiment["model"]["norm"],
        "steps": experiment["model"]["steps"],
        "epochs": experiment["optimizer"]["epochs"],
        "n": len(seeds),
        "seeds": seeds,
        "validation": _spread(validations) if len(validations) == len(group) else None,
        "test": _spread([summary["test"]["trained"] for summary in group]),
        "fold": {key: sum(fold[key] for fold in folds) for key in ("mismatches", "spikes")}
        if folds
        else None,
        "cost": cost_record(group),
    }


def current_norm(model: dict[str, Any]) -> str:
    """The norm after the connection; older runs, which do not say, had batch norm."""
    return str(model.get("current_norm", "bn"))


def _spread(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample deviation of accuracies."""
    values = [evaluation["accuracy"] for evaluation in evaluations]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "deviation": deviation, "values": values}


def _differing(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each of them, in what it differs from others of its recipe."""
    flat = [flattened(summary["experiment"]) for summary in summaries]
    found = []
    for mine, summary in zip(flat, summaries, strict=True):
        others = [
            other
            for other, theirs in zip(flat, summaries, strict=True)
            if theirs["recipe"] == summary["recipe"]
        ]
        keys = [
            key
            for key, value in mine.items()
            if key not in _IN_COLUMNS
            and not key.startswith("hardware.")
            and any(other.get(key) != value for other in others)
        ]
        found.append({key: mine[key] for key in keys})
    return found


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, dict)
        flat |= flattened(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def accuracy_table(
    records: Sequence[dict[str, Any]], *, costs: bool = False
) -> list[tuple[str, ...]]:
    """A header and one row a record of `accuracy_records`: mean ± deviation, in percent.

    Settings that have no column are named in a last one, where there are any.

    Arguments:
        records: of `accuracy_records`.
        costs: with firing rate, operations, energy, training time and the norms left at inference.
    """
    header = (*HEADER, *(COST_HEADER if costs else ()), "spikes that differ after the fold")
    rows = [_row(record, costs=costs) for record in records]
    if not any(record["settings"] for record in records):
        return [header, *rows]
    named = [", ".join(f"{k}={v}" for k, v in record["settings"].items()) for record in records]
    return [(*header, "settings"), *((*row, name) for row, name in zip(rows, named, strict=True))]


def _row(record: dict[str, Any], *, costs: bool) -> tuple[str, ...]:
    return (
        *(record[key] for key in ("recipe", "data", "model")),
        f"{record['current_norm']} + {record['norm']}",
        *(str(record[key]) for key in ("steps", "epochs", "n")),
        percent(record["validation"]),
        percent(record["test"]),
        *(cost_cells(record["cost"], record["n"]) if costs else ()),
        differ(record["fold"]),
    )


def differ(fold: dict[str, int] | None) -> str:
    """Of how many decisions how many differ after the fold."""
    return f"{fold['mismatches']:,} of {fold['spikes']:,}" if fold else "-"


def percent(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return "-"
    mean = f"{100 * spread['mean']:.2f}"
    return mean if spread["deviation"] is None else f"{mean} ± {100 * spread['deviation']:.2f}"


def to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def to_csv(rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated values; the first row is the header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
