"""The kernels on a CPU: compiled C++ (`csrc`), which may be absent."""

import importlib
from struct import Struct
from types import ModuleType

import torch
from torch import Tensor

from spikefold.dynamics._kernels._problem import Norm, Problem, step_of

native: ModuleType | None
try:
    native = importlib.import_module("spikefold.dynamics._kernels._native")
except ImportError:
    native = None

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SHAPES = {"logistic": 0, "box": 1, "triangle": 2, "rational": 3}
# A struct of the kernels (`csrc/layer.h`) in one call: integers and addresses q, numbers d.
_NORM = "qqd" + 10 * "q"
_LAYER = Struct("qqqqqqqqddqqqddd" + 2 * _NORM + 13 * "q")


def missing() -> str | None:
    """Why there are no kernels for the CPU, or None."""
    return "spikefold was installed without its compiled kernels" if native is None else None


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


_ABSENT = (0, 0, 0.0, *(0,) * 10)


def _norm(n: Norm | None) -> tuple[int | float, ...]:
    if n is None:
        return _ABSENT
    return (
        *(1, n.batch, n.eps),
        *(_at(n.gain), step_of(n.gain), _at(n.shift), step_of(n.shift)),
        *(_at(n.mean), step_of(n.mean), _at(n.variance), step_of(n.variance)),
        *(_at(n.grad_gain), _at(n.grad_shift)),
    )


def _layer(p: Problem) -> bytes:
    shape, scale, height, window = p.form
    return _LAYER.pack(
        *(p.steps, p.rows, p.groups, p.inner, p.input_step, p.shortcut_step),
        *(_DTYPES[p.input.dtype], _at(p.decays), p.decay, p.threshold, p.hard, p.detach_reset),
        *(_SHAPES[shape], scale, height, window),
        *_norm(p.current),
        *_norm(p.potential),
        *(_at(p.input), _at(p.shortcut), _at(p.v), _at(p.thresholds), step_of(p.thresholds)),
        *(_at(p.spikes), _at(p.v_last), _at(p.grad_spikes), _at(p.grad_v_last)),
        *(_at(p.grad_input), _at(p.grad_shortcut), _at(p.grad_v), _at(p.grad_decay)),
    )


def forward(problem: Problem) -> None:
    """Spikes, last potential and batch statistics, on torch's threads."""
    assert native is not None
    native.forward(_layer(problem), torch.get_num_threads())


def backward(problem: Problem) -> None:
    """Gradients, on torch's threads."""
    assert native is not None
    native.backward(_layer(problem), torch.get_num_threads())


def update_running(
    running: Tensor, observed: Tensor, steps: int, momentum: float, unbiased: float
) -> bool:
    """A running statistic by `steps` observations, in place; whether this can do it.

    Arguments:
        running: `[1, *shape]`, or `[T, *shape]` with steps = 1.
        observed: `[T, *shape]`.
        steps: observations of each value.
        momentum: weight of an observation.
        unbiased: factor on observations.
    """
    fits = native is not None and running.dtype == observed.dtype == torch.float32
    plain = running.is_contiguous() and observed.is_contiguous() and running.device.type == "cpu"
    if not (fits and plain and running.numel() * steps == observed.numel()):
        return False
    assert native is not None
    places = (running.data_ptr(), observed.data_ptr(), running.numel())
    native.update_running(*places, steps, momentum, unbiased)
    torch.autograd.graph.increment_version(running)
    return True
