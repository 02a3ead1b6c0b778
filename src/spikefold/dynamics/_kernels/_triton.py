"""The kernels on a GPU, in Triton."""

from spikefold.dynamics._kernels._problem import Problem


def missing() -> str | None:
    """Why there are no kernels for the GPU, or None."""
    return "not written yet"


def forward(problem: Problem) -> None:
    """Spikes, last potential and batch statistics."""
    raise NotImplementedError


def backward(problem: Problem) -> None:
    """Gradients."""
    raise NotImplementedError
