"""Ratios out of a record, and the figures to reach."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

REFERENCE = {
    "neuron": "spikefold MPBN",
    "step": "spikefold",
    "inference": "folded",
    "deploy": "prepared",
    "norms": "bn",
    "norms, shipped": "bn, shipped",
}
# A fused layer moves at least x, spikes; spikes, x, gradient in, gradient out: 6 passes over
# memory where the two copies of the floor move 4.
FUSED_PASSES, COPY_PASSES = 6, 4

Record = dict[str, Any]
Contest = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A ratio between two contestants that is to be reached at every size.

    Arguments:
        what: in words.
        suite: whose contests.
        over, under: the contestants, whose numbers are divided.
        bound: the figure.
        at: whether the ratio is to be at "least" or at "most" the bound.
        key: of the numbers.
        device: on which it is to be reached; empty: any.
        scale: factor on the ratio.
    """

    what: str
    suite: str
    over: str
    under: str
    bound: float
    at: Literal["least", "most"]
    key: str = "work_min"
    device: str = ""
    scale: float = 1.0

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches the figure."""
        return ratio >= self.bound if self.at == "least" else ratio <= self.bound


TARGETS = (
    Target("neuron layer: SpikingJelly's MPBN / ours", "neuron",
           "SpikingJelly MPBN", "spikefold MPBN", 15, "least"),
    Target("neuron layer: ours / one nn.BatchNorm2d", "neuron",
           "spikefold MPBN", "nn.BatchNorm2d", 1, "most"),
    Target("neuron layer: share of the copy bandwidth", "neuron",
           "copy", "spikefold MPBN", 0.7, "least",
           device="cuda", scale=FUSED_PASSES / COPY_PASSES),
    Target("training step: ours / its convolutions alone", "step",
           "spikefold", "convolutions", 1.5, "most"),
    Target("training step: SpikingJelly's / ours", "step",
           "SpikingJelly", "spikefold", 2.5, "least"),
    Target("inference: folded / without MPBN", "inference",
           "folded", "without MPBN", 1.03, "most"),
    Target("inference: SpikingJelly's folded / ours", "inference",
           "SpikingJelly, folded", "folded", 2, "least"),
    Target("deployed: prepared / its convolutions alone", "deploy",
           "prepared", "convolutions", 1.4, "most"),
    Target("memory kept for backward: ours / SpikingJelly's", "memory",
           "spikefold", "SpikingJelly", 0.5, "most", key="kept_bytes"),
)  # fmt: skip


def ratio(contest: Contest, over: str, under: str, key: str) -> float | None:
    """One contestant's number over another's; None where one is absent or failed its check."""
    pair = [contest["results"].get(name) for name in (over, under)]
    if not all(result is not None and result["passed"] for result in pair):
        return None
    return pair[0][key] / pair[1][key]


def reached(target: Target, record: Record) -> list[tuple[Contest, float | None]]:
    """The ratio of each contest that a target speaks of, on the fewest threads measured."""
    contests = record.get(target.suite, {"contests": []})["contests"]
    fewest = min((contest["threads"] for contest in contests), default=0)
    return [
        (contest, ratio_of(target, contest))
        for contest in contests
        if contest["threads"] == fewest and target.device in ("", contest["device"])
    ]


def ratio_of(target: Target, contest: Contest) -> float | None:
    """The ratio that a target bounds."""
    found = ratio(contest, target.over, target.under, target.key)
    return None if found is None else found * target.scale


def size_of(contest: Contest) -> str:
    """Shape of a layer; width and batch of a network."""
    size = contest["size"]
    if "shape" in size:
        return str(size["shape"])
    network = f"width {size['width']}, batch {size['batch']}, T {size['steps']}"
    return f"{size['model']}, {network}" if "model" in size else network


def place(contest: Contest) -> float:
    """Where a contest lies on the axis along which its line grows."""
    size = contest["size"]
    if "shape" in size:
        size = dict(zip(("steps", "batch", "width"), size["shape"], strict=False))
    return size[contest["axis"]]


def lines(record: Record) -> Iterator[tuple[str, str, str, list[float], list[float]]]:
    """Of suite 5: kind, axis, contestant, places on the axis, seconds."""
    contests = record.get("scaling", {"contests": []})["contests"]
    groups: dict[tuple[str, str], list[Contest]] = {}
    for contest in contests:
        groups.setdefault((contest["kind"], contest["axis"]), []).append(contest)
    for (kind, axis), group in groups.items():
        for name in group[0]["results"]:
            passed = [contest for contest in group if contest["results"][name]["passed"]]
            times = [contest["results"][name]["work_min"] for contest in passed]
            yield kind, axis, name, [place(contest) for contest in passed], times


def steepest(places: list[float], times: list[float]) -> float | None:
    """Largest exponent of growth between neighbours: 1 where cost grows as the axis does."""
    points = list(zip(places, times, strict=True))
    exponents = [
        math.log(after[1] / before[1]) / math.log(after[0] / before[0])
        for before, after in pairwise(points)
    ]
    return max(exponents, default=None)
