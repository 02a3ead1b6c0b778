"""A record as Markdown: the figures to reach, then every number."""

from collections.abc import Iterable
from typing import Any

from benchmarks.figures import (
    REFERENCE,
    TARGETS,
    Contest,
    Record,
    Target,
    lines,
    ratio,
    reached,
    size_of,
    steepest,
)

MIB = 2**20
TITLES = {
    "neuron": "Neuron layer, forward and backward",
    "step": "Training step, resnet20: forward, cross entropy, backward, SGD",
    "inference": "Inference, resnet20",
    "deploy": "Inference, folded and fused",
    "norms": "Norms after the connection: training steps, inference as shipped",
    "memory": "Memory kept for the backward pass, resnet20",
    "scaling": "Cost as work grows",
}


def markdown(record: Record) -> str:
    """The whole report."""
    parts = ["# Benchmark", figures(record)]
    for suite in (suite for suite in TITLES if suite in record):
        parts += [f"## {TITLES[suite]}", measured_on(record[suite]), table_of(suite, record)]
    return "\n\n".join(parts) + "\n"


def table_of(suite: str, record: Record) -> str:
    """All numbers of a suite."""
    contests = record[suite]["contests"]
    if suite == "memory":
        return kept_table(contests)
    return growth_table(record) if suite == "scaling" else times_table(contests)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Cells as a Markdown table, numbers to the right."""
    marks = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, marks, *rows])


def figures(record: Record) -> str:
    """Target and what was reached, in the order of sizes."""
    rows = [row for target in TARGETS if (row := figure(target, record))]
    return table(["figure", "target", "reached", "met"], rows)


def figure(target: Target, record: Record) -> list[str] | None:
    """A row; None where it was not measured."""
    ratios = [found for _, found in reached(target, record)]
    if not ratios:
        return None
    sign = "≥" if target.at == "least" else "≤"
    met = [found is not None and target.met(found) for found in ratios]
    verdict = "yes" if all(met) else f"no ({sum(met)} of {len(met)})"
    return [target.what, f"{sign} {target.bound:g}", ", ".join(map(shown, ratios)), verdict]


def shown(found: float | None) -> str:
    """A ratio; without a passed check there is none."""
    return "check failed" if found is None else f"{found:.2f}"


def measured_on(suite: dict[str, Any]) -> str:
    """Hardware, versions, commit."""
    where = suite["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    hardware = where["gpu"] or f"{where['processor']}, {where['cores']} cores"
    return (
        f"{hardware} ({where['cpu_capability']}); Python {where['python']}, {versions}; "
        f"spikefold's neurons: {where['neurons']}; commit {where['commit']}, {where['when']}."
    )


def times_table(contests: list[Contest]) -> str:
    """Times, ratios to spikefold's, peaks and checks."""
    device = contests[0]["device"]
    work = "GPU, min" if device == "cuda" else "CPU, min"
    head = ["size", "threads", "contestant", f"{work} (ms)", "wall, median (ms)"]
    head += [f"{work} / ours", "wall / ours", "peak (MiB)", "check"]
    return table(head, (row for contest in contests for row in times_rows(contest)))


def times_rows(contest: Contest) -> list[list[str]]:
    """A row a contestant."""
    reference = REFERENCE[contest["kind"]]
    return [
        [
            size_of(contest),
            str(contest["threads"]),
            name,
            f"{1000 * result['work_min']:.3f}",
            f"{1000 * result['wall_median']:.3f}",
            shown(ratio(contest, name, reference, "work_min")),
            shown(ratio(contest, name, reference, "wall_median")),
            mebibytes(result.get("peak_bytes")),
            ("" if result["passed"] else "FAILED: ") + result["check"],
        ]
        for name, result in contest["results"].items()
    ]


def mebibytes(count: int | None) -> str:
    """Bytes in MiB; empty if not measured."""
    return "" if count is None else f"{count / MIB:.1f}"


def kept_table(contests: list[Contest]) -> str:
    """What the graph of a forward pass keeps."""
    head = ["size", "contestant", "saved tensors (MiB)", "allocated and not freed (MiB)", "/ ours"]
    return table(
        head,
        (
            [
                size_of(contest),
                name,
                mebibytes(result["kept_bytes"]),
                mebibytes(result["left_allocated_bytes"]),
                shown(ratio(contest, name, REFERENCE["step"], "kept_bytes")),
            ]
            for contest in contests
            for name, result in contest["results"].items()
        ),
    )


def growth_table(record: Record) -> str:
    """Largest exponent of growth between neighbouring points of each line.

    1: twice the steps or samples cost twice; twice the width costs convolutions 4 times, that is 2.
    """
    rows = [
        [f"{kind}, {axis} {places[0]:g} to {places[-1]:g}", name, f"{exponent:.2f}"]
        for kind, axis, name, places, times in lines(record)
        if (exponent := steepest(places, times)) is not None
    ]
    return table(["line", "contestant", "steepest exponent"], rows)
