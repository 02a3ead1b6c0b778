"""What follows from shapes, strides and dtypes alone, found once for all calls that share them.

Checks and layout in Python take longer than the kernels of a small layer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _arguments, _cpu, _memory, _triton
from spikefold.dynamics._kernels._arguments import TENSORS, Arguments, Tensors
from spikefold.dynamics._kernels._memory import Spec, dense

KERNELS: dict[str, Any] = {"cpu": _cpu, "cuda": _triton}
_MOST = 4096  # plans that are kept

Copies = tuple[tuple[int, Callable[[Any], Any]], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a layer of this geometry is computed; it holds no tensor.

    Attributes:
        kernels: the device's.
        numbers: sizes and constants, packed for the kernels.
        copies: which of the tensors are not dense in the input's format, and what makes them so.
        outputs: see `outputs`.
        gradients: see `gradients`.
        empty: whether there is nothing to compute.
    """

    kernels: Any
    numbers: Any
    copies: Copies
    outputs: tuple[Spec | None, ...]
    gradients: tuple[Spec | None, ...]
    empty: bool

    def arranged(self, arguments: tuple[Any, ...]) -> Tensors:
        """The tensors of the arguments, or copies, as the kernels take them."""
        return _arranged(arguments, self.copies) if self.copies else arguments[:TENSORS]


def _arranged(arguments: tuple[Any, ...], copies: Copies) -> Tensors:
    found = list(arguments[:TENSORS])
    for i, copy in copies:
        found[i] = copy(found[i])
    return tuple(found)


_plans: dict[Any, Plan | str] = {}


def plan_of(a: Arguments) -> Plan | str:
    """How this layer is computed, or why the kernels cannot.

    Raises:
        ShapeError: if shapes do not fit together.
    """
    kernels = KERNELS[a.input.device.type]
    tensors: Any = a[:TENSORS]
    key = (
        kernels,
        a[TENSORS:],
        *[t if t is None else (t.shape, t.stride(), t.dtype, t.device) for t in tensors],
    )
    plan = _plans.get(key)
    if plan is None:
        plan = _arguments.obstacle(a) or _plan(a, kernels)
        if len(_plans) >= _MOST:
            _plans.clear()
        _plans[key] = plan
    return plan


@torch.no_grad()
def _plan(a: Arguments, kernels: Any) -> Plan:
    _arguments.check(a)
    copies = _copies(a)
    return Plan(
        kernels=kernels,
        numbers=kernels.numbers(Arguments._make((*_arranged(a, copies), *a[TENSORS:]))),
        copies=copies,
        outputs=outputs(a),
        gradients=gradients(a),
        empty=not math.prod(a.sequence),
    )


def _copies(a: Arguments) -> Copies:
    channels_last = _memory.is_channels_last(a.input)
    # a gradient is written for every step of the input: they must not share memory
    shared = a.input.shape[0] > 1 and a.input.stride(0) == 0
    ways: dict[str, Callable[[Any], Any]] = {
        "input": partial(_memory.arranged, channels_last=channels_last, steps_dense=shared),
        "shortcut": partial(_memory.arranged, channels_last=channels_last),
        "v": lambda v: _memory.arranged(v[None], channels_last)[0],
        "decays": partial(_memory.by_group, shape=a.parameters, channels_last=channels_last),
    }
    parameter = partial(_memory.parameter, channels_last=channels_last)
    given = [(name, value) for name, value in zip(a._fields, a, strict=True)][:TENSORS]
    return tuple(
        (i, way)
        for i, (name, tensor) in enumerate(given)
        if isinstance(tensor, Tensor)
        and (way := ways.get(name, parameter))(tensor).data_ptr() != tensor.data_ptr()
    )


def outputs(a: Arguments) -> tuple[Spec | None, ...]:
    """Spikes, last potential, means and variances of currents and of potentials.

    The last two are `[2, 1, C]` and `[2, T, *shape]`, or None where no statistics are taken.
    """
    channels_last, device = _memory.is_channels_last(a.input), a.input.device
    steps, batch, *shape = a.sequence
    return (
        dense((steps, batch), shape, channels_last, device, a.input.dtype),
        dense((batch,), shape, channels_last, device),
        dense((2, 1), shape[:1], channels_last, device) if a.observes_current else None,
        dense((2, steps), a.parameters, channels_last, device) if a.observes_potential else None,
    )


def gradients(a: Arguments) -> tuple[Spec | None, ...]:
    """Of the first arguments; the decays' is one a group.

    Without a norm after the connection the shortcut's gradient is the input's.
    """
    channels_last, dtype = _memory.is_channels_last(a.input), a.input.dtype
    make = partial(dense, channels_last=channels_last, device=a.input.device)
    shown, batch, *shape = a.input.shape
    parameters = (a.current_gain, a.current_shift, a.gain, a.shift)
    return (
        make((shown, batch), shape, dtype=dtype),
        None if shares_gradient(a) else make((a.steps, batch), shape, dtype=dtype),
        make((batch,), shape),
        a.decays if a.decays is None else make((), a.parameters),
        *(p if p is None else make(p.shape[:1], p.shape[1:]) for p in parameters),
    )


def shares_gradient(a: Arguments) -> bool:
    """Whether the gradients of input and shortcut are the same."""
    return a.current_eps is None and a.input.shape[0] == a.steps
