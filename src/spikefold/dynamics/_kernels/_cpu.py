"""The kernels on a CPU: compiled C++ (`csrc`), which may be absent."""

import importlib
from types import ModuleType

import torch
from torch import Tensor

from spikefold.dynamics._kernels._problem import Norm, Problem
from spikefold.dynamics._surrogate import slope

native: ModuleType | None
try:
    native = importlib.import_module("spikefold.dynamics._kernels._native")
except ImportError:
    native = None

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SURROGATES = {"tanh": 0, "rectangle": 1, "triangle": 2, "sigmoid": 3, "atan": 4}


def missing() -> str | None:
    """Why there are no kernels for the CPU, or None."""
    return "spikefold was installed without its compiled kernels" if native is None else None


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _norm(norm: Norm | None) -> object:
    assert native is not None
    ours = native.Norm()
    if norm is None:
        return ours
    ours.present = True
    ours.batch = norm.batch
    ours.eps = norm.eps
    for name in ("gain", "shift", "mean", "variance", "grad_gain", "grad_shift"):
        setattr(ours, name, _address(getattr(norm, name)))
    return ours


_TENSORS = (
    *("input", "shortcut", "v", "thresholds", "spikes", "v_last", "grad_spikes", "grad_v_last"),
    *("grad_input", "grad_shortcut", "grad_v"),
)


def _layer(problem: Problem) -> object:
    assert native is not None
    neuron, layer = problem.neuron, native.Layer()
    for name in ("steps", "rows", "groups", "inner", "input_step", "shortcut_step"):
        setattr(layer, name, getattr(problem, name))
    for name in _TENSORS:
        setattr(layer, name, _address(getattr(problem, name)))
    layer.dtype = _DTYPES[problem.input.dtype]
    layer.decay = neuron.decay
    layer.threshold = neuron.threshold
    layer.hard = neuron.reset == "hard"
    layer.detach_reset = neuron.detach_reset
    layer.surrogate = _SURROGATES[neuron.surrogate.name]
    layer.slope = slope(neuron.surrogate)
    layer.current = _norm(problem.current)
    layer.potential = _norm(problem.potential)
    return layer


def forward(problem: Problem) -> None:
    """Spikes, last potential and batch statistics, on torch's threads."""
    assert native is not None
    native.forward(_layer(problem), torch.get_num_threads())


def backward(problem: Problem) -> None:
    """Gradients, on torch's threads."""
    assert native is not None
    native.backward(_layer(problem), torch.get_num_threads())
