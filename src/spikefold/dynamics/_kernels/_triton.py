"""The kernels on a GPU, in Triton, which comes with torch where there is one.

`_triton_equations` has the equations, `_triton_kernels` and `_triton_backward` make kernels of
them; on the host, `_triton_tiles` cuts a problem into tiles and `_triton_launches` launches. Triton
is imported when it is first used, for spikefold does without it elsewhere.
"""

import importlib.util
from functools import cache
from typing import Any

from torch import Tensor

from spikefold.dynamics._kernels._arguments import TENSORS, Arguments
from spikefold.dynamics._kernels._problem import Problem, problem_of


@cache
def missing() -> str | None:
    """Why there are no kernels for the GPU, or None."""
    return None if importlib.util.find_spec("triton") else "triton is not installed"


def numbers(a: Arguments) -> tuple[Any, ...]:
    """What the kernels are told of a layer, but for where its tensors lie."""
    return a[TENSORS:]


def _problem(numbers: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> Problem:
    return problem_of(Arguments._make((*tensors[:TENSORS], *numbers)), tensors[TENSORS:])


def forward(numbers: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> None:
    """Spikes, last potential and batch statistics."""
    from spikefold.dynamics._kernels import _triton_launches

    _triton_launches.forward(_problem(numbers, tensors))


def backward(numbers: tuple[Any, ...], tensors: tuple[Tensor | None, ...]) -> None:
    """Gradients."""
    for grad in tensors[-5:]:  # of parameters: added to
        if grad is not None:
            grad.zero_()
    from spikefold.dynamics._kernels import _triton_launches

    _triton_launches.backward(_problem(numbers, tensors))
