"""Means over the runs of a setting: what they cost."""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

MISSING = "not recorded"
COST_HEADER = ("firing rate", "ACs", "MACs", "energy (µJ)", "of an ANN's", "training (min)",
               "norms left at inference")  # fmt: skip
# what is shown of a figure of `cost_record`: how many of one unit there are in another, the form
_SHOWN = {
    "firing_rate": (1.0, ".3f"),
    "acs": (1.0, ",.0f"),
    "macs": (1.0, ",.0f"),
    "picojoules": (1e6, ",.3g"),
    "of_ann": (1.0, ".2f"),
    "seconds": (60.0, ",.1f"),
}


def cost_record(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What runs of one setting cost, a mean each.

    Arguments:
        summaries: of runs, as `summary.json` has them.

    Returns:
        of the network as it would ship, a sample: "firing_rate", "acs", "macs", "picojoules" and
        "of_ann" (the energy by that of an ANN of its shape), each `mean` and `n`, the number of
        runs that recorded it, or None where none did; "norms_left", the `names` of norms that
        remain at inference and their `operations`, or None; "seconds", of the epochs on the wall.
    """
    costs = [_cost(summary) for summary in summaries]

    def of(figure: Callable[[dict[str, Any]], float | None]) -> dict[str, Any] | None:
        return _mean([None if cost is None else figure(cost) for cost in costs])

    return {
        "firing_rate": _mean(_firing_rates(summaries)),
        "acs": of(lambda cost: cost["acs"]),
        "macs": of(lambda cost: cost["macs"]),
        "picojoules": of(lambda cost: cost["picojoules"]),
        "of_ann": of(_of_ann),
        "seconds": _mean([summary.get("seconds") for summary in summaries]),
        "norms_left": _norms_left([cost for cost in costs if cost is not None]),
    }


def cost_cells(record: dict[str, Any], n: int) -> tuple[str, ...]:
    """Of a row under `COST_HEADER`.

    Arguments:
        record: of `cost_record`.
        n: how many runs it is of; that fewer recorded a figure is said.
    """
    left = record["norms_left"]
    if left is None:
        norms = MISSING
    else:
        operations = f": {left['operations']:,.0f} operations"
        norms = ", ".join(left["names"]) + operations if left["names"] else "none"
    return (*(_cell(record[key], n, *shown) for key, shown in _SHOWN.items()), norms)


def _cell(figure: dict[str, Any] | None, n: int, unit: float, form: str) -> str:
    if figure is None:
        return MISSING
    of = "" if figure["n"] == n else f" (of {figure['n']})"
    return f"{format(figure['mean'] / unit, form)}{of}"


def _mean(values: Sequence[float | None]) -> dict[str, Any] | None:
    found = [value for value in values if value is not None]
    return {"mean": mean(found), "n": len(found)} if found else None


def _cost(summary: dict[str, Any]) -> dict[str, Any] | None:
    """Of a run; None where it was not recorded or not known."""
    cost: dict[str, Any] | None = summary.get("cost")
    return None if cost is None or "not_counted" in cost else cost


def _of_ann(cost: dict[str, Any]) -> float | None:
    ann = cost["ann_picojoules"]
    return cost["picojoules"] / ann if ann else None


def _norms_left(costs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    if not costs:
        return None
    # all runs' names: an older version fused fewer norms
    names = sorted({name for cost in costs for layer in cost["layers"] for name in layer["norms"]})
    return {"names": names, "operations": mean(cost["norm_operations"] for cost in costs)}


def layer_rates(summary: dict[str, Any]) -> dict[str, float]:
    """Firing rates by layer: over the samples of the cost, or in older runs of the fold."""
    cost = summary.get("cost") or {}
    rates = {
        layer["name"]: layer["firing_rate"]
        for layer in cost.get("layers", [])
        if layer["firing_rate"] is not None
    }
    return rates or {
        name.removesuffix(".lif"): rate for name, rate in summary.get("firing_rates", {}).items()
    }


def _firing_rates(summaries: Sequence[dict[str, Any]]) -> list[float | None]:
    """Of all neurons of each run; or of its layers alike, where of a run only these are known."""
    costs = [_cost(summary) for summary in summaries]
    known = [None if cost is None else cost.get("firing_rate") for cost in costs]
    if None not in known:
        return known
    rates = [list(layer_rates(summary).values()) for summary in summaries]
    return [mean(of) if of else None for of in rates]
