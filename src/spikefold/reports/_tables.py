"""What a person wants to know of a run, in rows."""

from pathlib import Path
from typing import Any

from spikefold.reports._many import OWN_DATA, current_norm

Row = tuple[str, str]
COUNTED = "operations and energy at 45 nm, a sample"


def run_title(summary: dict[str, Any]) -> str:
    """What was trained on what, from a run's `summary.json`; a recipe may have been changed."""
    data, model = summary["experiment"]["data"], summary["experiment"]["model"]
    norms = f"{current_norm(model)} + {model['norm']}"
    return f"{model['name']} on {data_name(data)}, norms {norms}, T = {model['steps']}"


def data_name(data: dict[str, Any]) -> str:
    """What a person calls the data of a run; of data of one's own the folder, without its place."""
    return Path(data["root"]).name if data["name"] in OWN_DATA and data["root"] else data["name"]


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
    if "fuse" in summary:
        rows += _fuse_rows(summary)
    if "not_fused" in summary:
        rows.append(("not fused", summary["not_fused"]))
    rows += _rate_rows(summary.get("firing_rates", {}))
    rows += _cost_rows(summary.get("cost"))  # older runs have none
    if "timing" in summary:
        rows += _time_rows(summary["timing"], summary["hardware"])
    return rows


def _cost_rows(cost: dict[str, Any] | None) -> list[Row]:
    if cost is None:
        return []
    if "not_counted" in cost:
        return [("cost", cost["not_counted"])]
    rows = [(COUNTED + mean_of(cost), energy(cost))]
    gone = removed(cost)
    return [*rows, ("norms that fold and fusion removed", gone)] if gone else rows


def mean_of(cost: dict[str, Any]) -> str:
    """Over how many samples a record of `cost` was taken; "" where an older run does not say."""
    return f", mean of {cost['samples']:,.0f}" if "samples" in cost else ""


def energy(cost: dict[str, Any]) -> str:
    """A record of `cost` in a line."""
    used, ann = cost["picojoules"], cost["ann_picojoules"]
    beside = f" ({used / ann:.2f} of the {ann / 1e6:,.3g} µJ of an ANN of its shape)" if ann else ""
    without = f"; not counted: {', '.join(cost['uncounted'])}" if cost.get("uncounted") else ""
    counts = f"{cost['macs']:,.0f} MACs and {cost['acs']:,.0f} ACs"
    return f"{counts}, {used / 1e6:,.3g} µJ{beside}{without}"


def removed(cost: dict[str, Any]) -> str:
    """What fold and fusion removed, by a record of `cost`; "" if nothing, or not recorded."""
    gone = ", ".join(
        f"{name} of {row['layers']:,.0f} layers ({row['operations']:,.0f} operations a sample)"
        for name, row in (cost.get("removed") or {}).items()
    )
    left = cost["norm_operations"]
    return f"{gone}; left: {left:,.0f} operations" if gone and left else gone


def cost_table(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header, a row a layer, and one of all.

    Arguments:
        record: of `cost`.
    """
    head = (
        *("layer", "input", "norms left", "MACs", "ACs", "ANN's MACs", "firing rate"),
        *("updates", "parameters", "weights, bytes", "thresholds, bytes"),
    )
    layers = [
        (layer["name"], _input(layer), _norms_left(layer), *_cost_cells(layer))
        for layer in record["layers"]
    ]
    return [head, *layers, ("all", "", "", *_cost_cells(record))]


def _input(layer: dict[str, Any]) -> str:
    if layer["source"] is None:
        return ""
    return f"{'spikes' if layer['spikes'] else 'values'} of {layer['source']}"


def _norms_left(layer: dict[str, Any]) -> str:
    return ", ".join(f"{name} {operations}" for name, operations in layer["norms"].items())


def _cost_cells(figures: dict[str, Any]) -> list[str]:
    rate = figures["firing_rate"]
    return [
        *(f"{figures[key]:,.0f}" for key in ("macs", "acs", "ann")),
        "" if rate is None else f"{rate:.3f}",
        *(
            f"{figures[key]:,.0f}"
            for key in ("updates", "parameters", "weight_bytes", "threshold_bytes")
        ),
    ]


def _fold_rows(summary: dict[str, Any]) -> list[Row]:
    fold = summary["fold"]
    return [
        ("test accuracy folded", _percent(summary["test"]["folded"])),
        ("spike decisions compared, MPBN and folded", f"{fold['spikes']:,}"),
        ("... that differ", f"{fold['mismatches']:,}"),
        ("... largest difference of a logit", f"{fold['max_output_difference']:g}"),
    ]


def _fuse_rows(summary: dict[str, Any]) -> list[Row]:
    fuse = summary["fuse"]
    differ = f"{fuse['mismatches']:,} of {fuse['spikes']:,} ({fuse['mismatch_rate']:.2g})"
    folded = "folded and " if "fold" in summary else ""
    return [
        (f"test accuracy {folded}fused", _percent(summary["test"]["fused"])),
        ("fused: decisions that differ", differ),
    ]


def _rate_rows(rates: dict[str, float]) -> list[Row]:
    return [
        (f"firing rate of {name}", f"{rate:.3f} spikes per neuron and step")
        for name, rate in rates.items()
    ]


def _time_rows(timing: dict[str, Any], hardware: dict[str, Any]) -> list[Row]:
    """CPU time on a CPU; wall time on a GPU, which works in parallel to the CPU."""
    if timing.get("device", "cpu") == "cpu":
        what, seconds, ratio = "CPU time", "cpu_seconds", "cpu_ratio"
        where, threads, least = hardware["processor"], f"{timing['threads']} thread, ", "minimum"
    else:
        what, seconds, ratio = "time", "wall_seconds", "wall_ratio"
        where, threads, least = hardware["gpu"], "", "median"
    rows = [
        (
            f"{what} per sample, {name}",
            f"{1e6 * record[seconds]:.0f} µs  ({record[ratio]:.2f} of without MPBN)",
        )
        for name, record in timing["networks"].items()
    ]
    times = f"{threads}batch {timing['batch']}, {least} of {timing['rounds']} turns"
    return [*rows, ("measured on", f"{where}, torch {hardware['torch']}; times: {times}")]


def _samples(samples: dict[str, int]) -> str:
    return f"{samples['train']:,} / {samples['validation']:,} / {samples['test']:,}"


def _percent(record: dict[str, Any]) -> str:
    return f"{record['accuracy']:.2%}  ({record['correct']} of {record['samples']})"
