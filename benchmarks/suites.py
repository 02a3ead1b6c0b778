"""The suites, each a list of contests."""

from typing import Any, Literal

from benchmarks.contest import Axis, Contest

Suite = Literal["neuron", "step", "inference", "deploy", "norms", "memory", "scaling"]

SHAPES = ([4, 8, 16, 7, 7], [4, 32, 64, 16, 16], [4, 32, 64, 32, 32], [4, 32, 128, 32, 32])
WIDTHS = (0.25, 0.5)
AXES: dict[Axis, list[float]] = {"steps": [1, 2, 4, 8, 16], "batch": [1, 2, 8, 32, 128]}
CHANNELS = [8, 16, 32, 64, 128]
NETWORK_WIDTHS = [0.0625, 0.125, 0.25, 0.5]
GROWING_LAYERS = [
    "spikefold MPBN", "spikefold LIF", "SpikingJelly MPBN", "SpikingJelly LIF", "snnTorch Leaky",
    "Norse LIFBox", "nn.BatchNorm2d",
]  # fmt: skip
GROWING_NETWORKS = ["spikefold", "SpikingJelly", "convolutions"]


def plan(suite: Suite, threads: list[int], device: str, quick: bool) -> list[Contest]:
    """The contests of a suite.

    Arguments:
        suite: which.
        threads: numbers of threads; what grows and what memory it takes is seen at the first.
        device: "cpu" or "cuda".
        quick: the smallest sizes and few rounds, to see that it works.
    """
    contests = {
        "neuron": _neuron, "step": _step, "inference": _inference, "deploy": _deploy,
        "norms": _norms, "memory": _memory, "scaling": _scaling,
    }[suite](threads, device)  # fmt: skip
    if not quick:
        return contests
    return [contest.quick() for contest in contests[: 2 if suite == "scaling" else 1]]


def _neuron(threads: list[int], device: str) -> list[Contest]:
    largest = SHAPES[-1]
    return [
        Contest("neuron", {"shape": shape}, count, device,
                measure=_first(count, threads) if shape == largest else "time")
        for count in threads
        for shape in SHAPES
    ]  # fmt: skip


def _step(threads: list[int], device: str) -> list[Contest]:
    return [
        Contest("step", _network(width), count, device, 40, measure=_first(count, threads))
        for count in threads
        for width in WIDTHS
    ]


def _inference(threads: list[int], device: str) -> list[Contest]:
    return [
        Contest("inference", _network(WIDTHS[0], batch), count, device, 20)
        for count in threads
        for batch in (1, 32)
    ]


def _deploy(threads: list[int], device: str) -> list[Contest]:
    return [
        Contest("deploy", {"model": model, "width": width, "batch": batch, "steps": steps},
                threads[0], device)
        for model, width, steps in (("small", 1.0, 4), ("resnet20", 0.125, 2), ("compact", 1.0, 6))
        for batch in (1, 32)
    ]  # fmt: skip


def _norms(threads: list[int], device: str) -> list[Contest]:
    sizes = [
        {"model": "resnet20", "width": 0.125, "batch": 64, "steps": 2},
        {"model": "compact", "width": 1.0, "batch": 32, "steps": 6},
    ]
    return [
        contest
        for size in sizes
        for contest in (
            Contest("norms", size, threads[0], device, 60),
            Contest("norms, shipped", size, threads[0], device),
        )
    ]


def _memory(threads: list[int], device: str) -> list[Contest]:
    names = ["spikefold", "spikefold, reference", "SpikingJelly"]
    return [
        Contest("step", _network(width), threads[0], device, names=names, measure="kept")
        for width in WIDTHS
    ]


def _scaling(threads: list[int], device: str) -> list[Contest]:
    layer = {"steps": 4, "batch": 16, "width": 32}
    network = {"steps": 4, "batch": 16, "width": 0.125}
    layers = [
        Contest("neuron", _shape(**{**layer, axis: value}), threads[0], device, 2.5,
                GROWING_LAYERS, axis=axis)
        for axis, values in {**AXES, "width": CHANNELS}.items()
        for value in values
    ]  # fmt: skip
    networks = [
        Contest("step", {**network, axis: value}, threads[0], device, 6,
                GROWING_NETWORKS, axis=axis)
        for axis, values in {**AXES, "width": NETWORK_WIDTHS}.items()
        for value in values
    ]  # fmt: skip
    return layers + networks


def _network(width: float, batch: int = 32) -> dict[str, Any]:
    return {"width": width, "batch": batch, "steps": 4}


def _shape(steps: int, batch: int, width: int) -> dict[str, Any]:
    return {"shape": [steps, batch, width, 16, 16]}


def _first(count: int, threads: list[int]) -> Literal["time", "time+peak"]:
    """Peaks do not depend on threads: they are measured once."""
    return "time+peak" if count == threads[0] else "time"
