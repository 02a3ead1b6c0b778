"""What Triton makes of the kernels without a GPU, and what is imported when."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed (there is none for this platform)")

from spikefold.dynamics._kernels import _triton


def python(code: str, **environment: str) -> str:
    """What a new process prints."""
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=clean, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_spikefold_does_not_import_triton() -> None:
    assert python("import sys, spikefold; print('triton' in sys.modules)") == "False\n"


def test_what_is_missing_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _triton.missing.__wrapped__() == "triton is not installed"


# Compiles, for an H100 that is not there, what forward and backward would launch, and prints the
# assembly. Triton brings the compiler; only a driver has to be pretended.
COMPILE = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Driver:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)

driver.set_active(Driver())
run = JITFunction.run

def compile_only(self, *arguments, grid, warmup, **options):
    print("KERNEL", self.__name__)
    print(run(self, *arguments, grid=grid, warmup=True, **options).asm["ptx"])

JITFunction.run = compile_only

from spikefold.dynamics._kernels import _operators, _triton
from tests.dynamics.cases import simulate_fused
from spikefold.dynamics import Condition, Currents, Neuron, Normalization

_operators.KERNELS["cpu"] = _triton
norm = [Normalization(*torch.ones(2, 1, 16, requires_grad=True), 1e-5) for _ in range(2)]
x = torch.zeros(2, 12, 16, 28, 28, dtype=torch.bfloat16, requires_grad=True)
for size in (5, 28):  # all steps in one launch, a launch for each step
    part = x[..., :size, :size].contiguous()
    fired = simulate_fused(Currents(part, 2, norm[0], part), Condition(norm[1]), Neuron())
    fired.spikes.sum().backward()
"""


def test_compiled_for_a_gpu_every_operation_rounds_once(tmp_path: Path) -> None:
    assembly = python(COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    kernels = {part.split()[0]: part for part in assembly.split("KERNEL ")[1:]}
    assert set(kernels) == {
        *("observe", "merge", "forward", "forward_step"),
        *("recompute", "backward", "backward_step", "finish_input"),
    }
    for name, text in kernels.items():
        assert "fma." not in text, name
        assert ".ftz" not in text, name
    for name in ("forward", "forward_step", "recompute"):
        assert "sqrt.rn.f64" in kernels[name]
        assert "div.rn.f64" in kernels[name]
        assert "0d3EE4F8B588E368F1" in kernels[name]  # eps = 1e-5, not rounded to float32 before


def test_no_function_of_the_kernels_returns_none() -> None:
    """Triton before 3.7 cannot compile it; the interpreter and later ones can."""
    for module in (_triton._equations(), _triton._kernels()):
        tree = ast.parse(Path(module.__file__).read_text())
        values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
        assert not [
            v for v in values if v is None or (isinstance(v, ast.Constant) and v.value is None)
        ]
