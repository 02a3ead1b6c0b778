"""The kernels on a GPU, in Triton, which comes with torch where there is one.

`_triton_equations` has the equations, `_triton_kernels` and `_triton_backward` make kernels of
them; on the host, `_triton_tiles` cuts a problem into tiles and `_triton_launches` launches. Triton
is imported when it is first used, for spikefold does without it elsewhere.
"""

import importlib.util
from functools import cache

from spikefold.dynamics._kernels._problem import Problem


@cache
def missing() -> str | None:
    """Why there are no kernels for the GPU, or None."""
    return None if importlib.util.find_spec("triton") else "triton is not installed"


def forward(problem: Problem) -> None:
    """Spikes, last potential and batch statistics."""
    from spikefold.dynamics._kernels import _triton_launches

    _triton_launches.forward(problem)


def backward(problem: Problem) -> None:
    """Gradients."""
    from spikefold.dynamics._kernels import _triton_launches

    _triton_launches.backward(problem)
