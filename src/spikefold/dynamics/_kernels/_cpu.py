"""The kernels on a CPU: compiled C++ (`csrc`), which may be absent."""

import importlib
from collections.abc import Callable
from struct import Struct
from types import ModuleType

import torch
from torch import Tensor

from spikefold.dynamics._condition import Statistics
from spikefold.dynamics._kernels._arguments import DTYPES, Arguments, Tensors
from spikefold.dynamics._kernels._problem import Norm, problem_of, step_of
from spikefold.dynamics._surrogate import SHAPES

native: ModuleType | None
try:
    native = importlib.import_module("spikefold.dynamics._kernels._native")
except ImportError:
    native = None

# The kernels' struct (`csrc/layer.h`): q is an integer, d a double. Addresses are zero here: they
# come with each call.
_NORM = "qqd" + 4 * "qq" + 3 * "q"
_LAYER = Struct("qqqqqqqqddqqqddd" + 2 * _NORM + 3 * "q" + "qq" + 8 * "q")


def missing() -> str | None:
    """Why there are no kernels for the CPU, or None."""
    return "spikefold was installed without its compiled kernels" if native is None else None


def _places(parameters: Tensors) -> tuple[int, ...]:
    return tuple(part for each in parameters for part in (0, step_of(each)))


def _norm(n: Norm | None) -> tuple[int | float, ...]:
    n, present = (Norm(), 0) if n is None else (n, 1)
    return present, n.batch, n.eps, *_places((n.gain, n.shift, n.mean, n.variance)), 0, 0, 0


def numbers(a: Arguments) -> bytes:
    """Sizes and constants of a layer as the kernels take them, without addresses.

    Arguments:
        a: the arguments, arranged in memory.
    """
    p = problem_of(a)
    shape, scale, height, window = p.form
    return _LAYER.pack(
        *(p.steps, p.rows, p.groups, p.inner, p.input_step, p.shortcut_step),
        *(DTYPES.index(p.input.dtype), 0, p.decay, p.threshold, p.hard, p.detach_reset),
        *(list(SHAPES).index(shape), scale, height, window),
        *_norm(p.current),
        *_norm(p.potential),
        *(0, 0, 0, *_places((p.thresholds,))),
        *(0,) * 8,
    )


def forward(numbers: bytes, tensors: Tensors) -> None:
    """Spikes, last potential and batch statistics, on torch's threads."""
    assert native is not None
    native.forward(numbers, tensors, torch.get_num_threads())


def placed(numbers: bytes, tensors: Tensors) -> Callable[[Tensors], None]:
    """A forward pass to be repeated: only the tensors that a call gives (not None) are replaced."""
    assert native is not None
    forward = native.Placed(numbers, tensors).forward

    def run(changing: Tensors) -> None:
        forward(changing, torch.get_num_threads())

    return run


def backward(numbers: bytes, tensors: Tensors) -> None:
    """Gradients, on torch's threads."""
    assert native is not None
    native.backward(numbers, tensors, torch.get_num_threads())


def observe(x: Tensor, sizes: tuple[int, int, int], mean: Tensor, variance: Tensor) -> None:
    """Mean and biased variance of each step by itself, on torch's threads.

    Arguments:
        x: `[T, N, C, *spatial]`, float32, dense, contiguous or channels last.
        sizes: rows, groups and inner of a step.
        mean, variance: `[T, C]`, float32, contiguous; written.
    """
    assert native is not None
    addresses = [each.data_ptr() for each in (x, mean, variance)]
    native.observe(*addresses, (len(x), *sizes), torch.get_num_threads())


def observe_backward(
    x: Tensor,
    sizes: tuple[int, int, int],
    mean: Tensor,
    gain: Tensor,
    shift: Tensor,
    out: Tensor,
) -> None:
    """(x - mean) · gain + shift, on torch's threads.

    Arguments:
        x, sizes: as for `observe`.
        mean, gain, shift: `[T, C]`, float32, contiguous.
        out: lies as x; written.
    """
    assert native is not None
    addresses = [each.data_ptr() for each in (x, mean, gain, shift, out)]
    native.observe_backward(*addresses, (len(x), *sizes), torch.get_num_threads())


def average(x: Tensor, out: Tensor) -> None:
    """Averages of 2x2 windows, on torch's threads.

    Arguments:
        x: `[..., H, W]`, float32, contiguous.
        out: `[..., H // 2, W // 2]`, likewise.
    """
    assert native is not None
    native.average(x.data_ptr(), out.data_ptr(), *_planes(x), torch.get_num_threads())


def average_backward(grad: Tensor, out: Tensor) -> None:
    """The gradient of such averages, on torch's threads.

    Arguments:
        grad: `[..., H // 2, W // 2]`, float32, contiguous.
        out: `[..., H, W]`, likewise.
    """
    assert native is not None
    native.average_backward(grad.data_ptr(), out.data_ptr(), *_planes(out), torch.get_num_threads())


def _planes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[:-2].numel(), *x.shape[-2:]


def update_running(
    running: Statistics, observed: Statistics, momentum: float, seen: Tensor, unbiased: float
) -> bool:
    """Update running mean, variance and count in place; false if these tensors are not supported.

    Arguments:
        running: one set of statistics, or one a step.
        observed: of each step.
        momentum: weight of an observation.
        seen: observations so far, of all or of each step.
        unbiased: factor on the observed variance.
    """
    # native, because torch's few small operations take three times as long
    count = running.mean.numel()
    steps = observed.mean.numel() // count
    # the native code reads and writes this many values without looking at the tensors' sizes
    expected = (count, count, count * steps, count * steps)
    for tensor, numbers in zip((*running, *observed), expected, strict=True):
        plain = tensor.is_cpu and tensor.is_contiguous() and tensor.dtype == torch.float32
        if not (plain and tensor.numel() == numbers):
            return False
    if native is None or not (seen.is_cpu and seen.is_contiguous() and seen.dtype == torch.int64):
        return False
    tensors = (*running, *observed, seen)
    native.update_running(tensors, count, steps, seen.numel(), momentum, unbiased)
    torch.autograd.graph.increment_version((*running, seen))
    return True
