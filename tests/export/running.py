"""Exported files run by others, and the network beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikefold as sf

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime")

Outputs = dict[str, np.ndarray]


def trained(network: nn.Module, *inputs: Tensor) -> nn.Module:
    """With statistics of data, gains of both signs; in evaluation."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | sf.MPBN) and module.weight.ndim:
            with torch.no_grad():
                module.weight.uniform_(-1.0, 1.5, generator=generator)
                module.bias.uniform_(0.0, 0.5, generator=generator)
    with torch.no_grad():
        for x in inputs:
            network.train()(x)
    return network.eval()


def neurons(network: nn.Module) -> list[str]:
    return [name for name, m in network.named_modules() if isinstance(m, sf.SpikingNeuron)]


def eager(network: nn.Module, x: Tensor) -> Outputs:
    """Logits, and the spikes of every layer."""
    with torch.no_grad():
        logits, spikes = sf.with_spikes(network)(x)
    return {"logits": logits.numpy(), **{name: value.numpy() for name, value in spikes.items()}}


def onnxruntime_of(path: Path) -> Callable[[Outputs], Outputs]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


def reference_of(path: Path) -> Callable[[Outputs], Outputs]:
    evaluator = reference.ReferenceEvaluator(str(path))
    return lambda feed: dict(zip(evaluator.output_names, evaluator.run(None, feed), strict=True))


def run(path: Path, x: Tensor, steps: int, runtime: Any = onnxruntime_of) -> Outputs:
    """All outputs of a file of any layout, for an input as the network takes it."""
    model = onnx.load(path)
    call, inputs = runtime(path), {i.name: i for i in model.graph.input}
    frames = x if x.ndim != 4 else x.expand(steps, *x.shape)
    wanted = len(inputs["x"].type.tensor_type.shape.dim)
    states = {
        name: np.zeros((frames.shape[1], *[d.dim_value for d in i.type.tensor_type.shape.dim[1:]]),
                       np.float32)
        for name, i in inputs.items() if name.endswith(".v")
    }  # fmt: skip
    if not states:
        return call({"x": (frames if wanted == frames.ndim else x).numpy()})
    made: list[Outputs] = []
    for t in range(steps):
        now = {"t": np.array(t)} if "t" in inputs else {}
        made.append(call({"x": frames[t].numpy(), **states, **now}))
        states = {name: made[-1][f"{name}.next"] for name in states}
    stacked = {name: np.stack([step[name] for step in made]) for name in made[0]}
    return stacked | {"logits": stacked["logits"].mean(0)}
