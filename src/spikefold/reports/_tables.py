"""What a person wants to know of a run, and of many runs, in rows."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikefold.errors import DataError

Row = tuple[str, str]
HEADER = ("recipe", "data", "model", "norm", "T", "epochs", "n", "validation (%)", "test (%)",
          "spikes that differ after the fold")  # fmt: skip


def run_table(summary: dict[str, Any]) -> list[Row]:
    """Rows of label and value from a run's `summary.json`."""
    test = summary["test"]
    rows = [
        ("samples: training / validation / test", _samples(summary["samples"])),
        ("validation accuracy, which chose the epoch", _percent(summary["validation"]))
        if summary["validation"]
        else ("validation", "none: trained on all samples, the last epoch counts"),
        ("test accuracy as trained", _percent(test["trained"])),
    ]
    if summary.get("notes"):
        rows.insert(1, ("note", summary["notes"]))
    if "fold" in summary:
        rows += _fold_rows(summary)
    return rows


def _fold_rows(summary: dict[str, Any]) -> list[Row]:
    test, fold, fuse = summary["test"], summary["fold"], summary["fuse"]
    timing, hardware = summary["timing"], summary["hardware"]
    rows = [
        ("test accuracy folded", _percent(test["folded"])),
        ("test accuracy folded and conv-BN fused", _percent(test["fused"])),
        ("spike decisions compared, MPBN and folded", f"{fold['spikes']:,}"),
        ("... that differ", f"{fold['mismatches']:,}"),
        ("... largest difference of a logit", f"{fold['max_output_difference']:g}"),
        (
            "fused: decisions that differ",
            f"{fuse['mismatches']:,} ({fuse['mismatch_rate']:.2g} of all)",
        ),
    ]
    rows += [
        (f"firing rate of {name}", f"{rate:.3f} spikes per neuron and step")
        for name, rate in summary["firing_rates"].items()
    ]
    rows += [
        (
            f"CPU time per sample, {name}",
            f"{1e6 * record['cpu_seconds']:.0f} µs  ({record['cpu_ratio']:.2f} of without MPBN)",
        )
        for name, record in timing["networks"].items()
    ]
    rows.append(
        (
            "measured on",
            f"{hardware['processor']}, torch {hardware['torch']}; times: "
            f"{timing['threads']} thread, batch {timing['batch']}, minimum of "
            f"{timing['rounds']} turns",
        )
    )
    return rows


def _samples(samples: dict[str, int]) -> str:
    return f"{samples['train']:,} / {samples['validation']:,} / {samples['test']:,}"


def _percent(record: dict[str, Any]) -> str:
    return f"{record['accuracy']:.2%}  ({record['correct']} of {record['samples']})"


def read_summaries(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The summaries of runs: directories of runs, or directories that hold such.

    Raises:
        DataError: if a directory holds no finished run, or a summary is damaged.
    """
    summaries = []
    for path in paths:
        found = sorted(path.glob("**/summary.json"))
        if not found:
            raise DataError(f"{path}: no finished run (summary.json) in it")
        for file in found:
            try:
                summaries.append(json.loads(file.read_text()))
            except ValueError as error:
                raise DataError(f"{file}: damaged: {error}") from error
    return summaries


def accuracy_table(summaries: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A header and one row a setting: mean ± sample deviation over seeds, with their number.

    Settings of one recipe that differ and have no column are named in a last one.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for summary in summaries:
        experiment = {
            k: v for k, v in summary["experiment"].items() if k not in ("seed", "hardware")
        }
        key = json.dumps([summary["recipe"], experiment], sort_keys=True)
        groups.setdefault(key, []).append(summary)
    rows = [_group_row(group) for group in groups.values()]
    settings = _differing([group[0] for group in groups.values()])
    if not any(settings):
        return [HEADER, *rows]
    pairs = zip(rows, settings, strict=True)
    return [(*HEADER, "settings"), *((*row, setting) for row, setting in pairs)]


_IN_COLUMNS = {"data.name", "model.name", "model.norm", "model.steps", "optimizer.epochs", "seed"}


def _differing(summaries: list[dict[str, Any]]) -> list[str]:
    """For each of them, in what it differs from others of its recipe."""
    flat = [_flat(summary["experiment"]) for summary in summaries]
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
        found.append(", ".join(f"{key}={mine[key]}" for key in keys))
    return found


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def _group_row(group: list[dict[str, Any]]) -> tuple[str, ...]:
    first = group[0]
    data, model = first["experiment"]["data"], first["experiment"]["model"]
    folds = [summary["fold"] for summary in group if "fold" in summary]
    return (
        first["recipe"],
        data["name"],
        model["name"],
        model["norm"],
        str(model["steps"]),
        str(first["experiment"]["optimizer"]["epochs"]),
        str(len({summary["experiment"]["seed"] for summary in group})),
        _mean([s["validation"]["accuracy"] for s in group]) if first["validation"] else "-",
        _mean([summary["test"]["trained"]["accuracy"] for summary in group]),
        f"{sum(f['mismatches'] for f in folds)} of {sum(f['spikes'] for f in folds):,}"
        if folds
        else "-",
    )


def _mean(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def to_csv(rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated values; the first row is the header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
