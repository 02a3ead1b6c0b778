"""The C++ kernel of the neuron, compiled here, against the reference. Nothing calls it yet."""

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spikefold import dynamics

SOURCE = Path(__file__).parents[2] / "src/spikefold/dynamics/csrc/neuron.cpp"
FLAGS = "-std=c++17 -O3 -fPIC -shared -ffp-contract=off -fno-math-errno -fno-trapping-math"


class Neuron(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_float) for name in ("decay", "threshold", "a", "factor")),
        *((name, ctypes.c_int32) for name in ("surrogate", "hard", "detach")),
    ]


class Forward(ctypes.Structure):
    _fields_ = [
        ("neuron", Neuron),
        ("eps", ctypes.c_float),
        ("dtype", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("steps", "rows", "parameters", "space", "step")),
        *((name, ctypes.c_void_p) for name in ("x", "spikes", "v_first", "mean", "gain", "shift")),
        *((name, ctypes.c_void_p) for name in ("threshold", "v_last", "means", "variances")),
    ]


class Backward(ctypes.Structure):
    _fields_ = [
        ("forward", Forward),
        *((name, ctypes.c_void_p) for name in ("grad_spikes", "grad_x", "grad_v_last")),
        *((name, ctypes.c_void_p) for name in ("grad_v_first", "grad_gain", "grad_shift")),
    ]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path_factory.mktemp("kernel") / "neuron.so"
    flags = [*FLAGS.split(), "-fopenmp-simd"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(path), "-ldl"], check=True)
    library = ctypes.CDLL(str(path))
    library.spikefold_layout.restype = ctypes.c_int64
    assert library.spikefold_layout() == ctypes.sizeof(Forward) << 32 | ctypes.sizeof(Backward)
    return library


def call(
    kernel: ctypes.CDLL,
    x: Tensor,
    gain: Tensor,
    shift: Tensor,
    grad: Tensor,
    hard: bool,
    last: bool,
) -> list[Tensor]:
    """Spikes, last potential, gradients of x, gain and shift; x is [T, N, C, S]."""
    steps, batch, channels, space = x.shape
    if last:  # channels last in memory
        x, grad = (a.movedim(2, -1).contiguous() for a in (x, grad))
    spikes, grad_x = torch.full_like(x, math.nan), torch.full_like(x, math.nan)
    v = torch.full_like(x[0], math.nan)
    means, variances = torch.empty(2, steps, channels)
    threshold = torch.full((channels,), 0.5)
    grad_gain, grad_shift = torch.zeros(2, channels, dtype=torch.float64)
    constants = Neuron(0.25, 0.5, 3, 4 * 3 / (2 * math.tanh(1.5)), 0, hard, 0)
    sizes = (steps, batch * space if last else batch, channels, 1 if last else space, x[0].numel())
    tensors = (x, spikes, None, None, gain, shift, threshold, v, means, variances)
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    forward = Forward(constants, 1e-5, 0, *sizes, *pointers)
    assert kernel.spikefold_forward(ctypes.byref(forward), 2) == 0
    gradients = (grad_gain.data_ptr(), grad_shift.data_ptr())
    backward = Backward(forward, grad.data_ptr(), grad_x.data_ptr(), None, None, *gradients)
    assert kernel.spikefold_backward(ctypes.byref(backward), 2) == 0
    if last:
        spikes, v, grad_x = (a.movedim(-1, -2) for a in (spikes, v, grad_x))
    return [spikes, v, grad_x, grad_gain, grad_shift]


# the last two: more than one block of columns, more than one chunk of a sum
SHAPES = [(1, 2, 1, 2), (3, 5, 7, 9), (4, 8, 17, 49), (2, 20, 300, 5), (2, 30, 3, 50)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("instructions", [0, 1, 2])
def test_the_kernel_fires_and_learns_as_the_reference(
    kernel: ctypes.CDLL, shape: tuple[int, ...], hard: bool, last: bool, instructions: int
) -> None:
    kernel.spikefold_instruction_set(instructions)
    x, grad = torch.randn(shape), torch.randn(shape)
    gain, shift = torch.randn(shape[2]), torch.randn(shape[2]) * 0.2
    leaves = [a.clone().requires_grad_() for a in (x, gain, shift)]
    neuron = dynamics.Neuron(reset="hard" if hard else "soft")
    leaf_x, leaf_gain, leaf_shift = leaves
    spikes, v, _, _ = dynamics.mpbn_lif_train(leaf_x, leaf_gain, leaf_shift, 1e-5, neuron)
    spikes.backward(grad)

    found = call(kernel, x, gain, shift, grad, hard, last)

    assert torch.equal(found[0], spikes.detach())
    torch.testing.assert_close(found[1], v.detach(), rtol=0, atol=0)
    for gradient, leaf in zip(found[2:], leaves, strict=True):
        torch.testing.assert_close(gradient.float(), leaf.grad, rtol=1e-3, atol=1e-3)
