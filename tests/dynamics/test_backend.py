"""Which implementation runs, and what is said about it."""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import _backend, _kernels
from spikefold.dynamics._kernels import _cpu
from spikefold.errors import ConfigError

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(_cpu.native is None, reason="installed without kernels")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the implementations that ran, in order."""
    names: list[str] = []

    def noted(name: str, layer: object) -> object:
        def run(*arguments: object) -> object:
            found = layer(*arguments)  # type: ignore[operator]
            if not isinstance(found, str):  # why it did not
                names.append(name)
            return found

        return run

    monkeypatch.setattr(_kernels, "simulate_fused", noted("fused", _kernels.simulate_fused))
    monkeypatch.setattr(
        _backend, "simulate_reference", noted("reference", _backend.simulate_reference)
    )
    return names


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_cpu, "native", None)
    _backend._say_once.cache_clear()
    yield
    _backend._say_once.cache_clear()


@needs_kernels
def test_a_backend_holds_inside_and_ends_with_an_error_too(ran: list[str]) -> None:
    lif, x = sf.LIF(), torch.randn(2, 3, 4)
    lif(x)
    with sf.backend("reference"):
        lif(x)
        with sf.backend("fused"):
            lif(x)
        lif(x)
    with pytest.raises(ZeroDivisionError), sf.backend("reference"):
        raise ZeroDivisionError
    lif(x)
    assert ran == ["fused", "reference", "fused", "reference", "fused"]


@pytest.mark.usefixtures("as_user")
def test_an_unknown_backend_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="reference, fused, got 'fast'"),
        sf.backend("fast"),  # type: ignore[arg-type]
    ):
        pass


@needs_kernels
def test_a_surrogate_of_ones_own_runs_on_the_reference(ran: list[str]) -> None:
    class Mine(sf.Sigmoid):
        def derivative(self, z: torch.Tensor) -> torch.Tensor:
            return super().derivative(z)

    class Formed(sf.Sigmoid):
        pass

    x = torch.randn(2, 3, 4, requires_grad=True)
    sf.LIF(surrogate=Mine())(x).sum().backward()
    assert ran == ["reference"]
    expected = x.grad.clone()
    for surrogate in (sf.Sigmoid(), Formed()):  # a form is all that kernels need
        x.grad = None
        sf.LIF(surrogate=surrogate)(x).sum().backward()
        torch.testing.assert_close(x.grad, expected)
    assert ran == ["reference", "fused", "fused"]


@pytest.mark.usefixtures("without_kernels")
def test_missing_kernels_are_said_once(ran: list[str], recwarn: pytest.WarningsRecorder) -> None:
    lif, x = sf.LIF(sf.MPBN(4)), torch.randn(2, 3, 4)
    for _ in range(3):
        lif(x)
    assert ran == ["reference"] * 3
    (warning,) = recwarn.list
    assert "installed without its compiled kernels" in str(warning.message)
    with pytest.raises(ConfigError, match="without its compiled kernels"), sf.backend("fused"):
        lif(x)


@pytest.mark.usefixtures("without_kernels")
def test_nothing_is_said_where_kernels_would_not_run_anyway(
    recwarn: pytest.WarningsRecorder,
) -> None:
    sf.LIF()(torch.randn(2, 3, 4, dtype=torch.float64))
    with sf.backend("reference"):
        sf.LIF()(torch.randn(2, 3, 4))
    assert not recwarn.list


@pytest.mark.slow
def test_without_a_compiler_it_installs_and_works(tmp_path: Path) -> None:
    for module in ("scikit_build_core", "nanobind"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    environment = {**os.environ, "CXX": str(tmp_path / "no-compiler")}
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    options = ["-C", f"build-dir={tmp_path / 'build'}", "-w", str(tmp_path), str(ROOT)]
    build = subprocess.run([*pip, *options], env=environment, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "native" in name or "csrc" in name]
        archive.extractall(tmp_path / "installed")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "sys.meta_path = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__];"
        "import torch, spikefold as sf;"
        "assert sf.__file__.startswith(sys.argv[1]), sf.__file__;"
        "print(sf.LIF(sf.MPBN(4))(torch.randn(2, 3, 4)).shape)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "installed")], capture_output=True, text=True
    )
    assert "[2, 3, 4]" in run.stdout, run.stderr
    assert run.stderr.count("installed without its compiled kernels") == 1


@needs_kernels
def test_currents_may_come_computed_or_not() -> None:
    x = torch.randn(3, 4, 5, 6, 6)
    norm = dynamics.Normalization(torch.rand(1, 5), torch.randn(1, 5), 1e-5)
    currents = dynamics.Currents(x, 3, norm, torch.randn(3, 4, 5, 6, 6))
    computed, observed = dynamics.compute(currents)
    at_once = dynamics.simulate(currents, dynamics.PLAIN, dynamics.Neuron())
    apart = dynamics.simulate(dynamics.Currents.of(computed), dynamics.PLAIN, dynamics.Neuron())
    assert torch.equal(at_once.spikes, apart.spikes)
    for ours, theirs in zip(at_once.current_statistics, observed, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")
def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """A broken build falls back to the reference, and all tests of kernels would skip."""
    assert _cpu.missing() is None


# ------------------------------------------------------------------ threads


def test_threads_that_enter_and_leave_in_turn_leave_nothing_behind() -> None:
    """Each exit removes its own entry, in whatever order they come."""
    for first, second in itertools.permutations(range(2)):
        contexts = [sf.backend("reference"), sf.backend("reference")]
        threads = [Turn(context) for context in contexts]
        for turn in threads:
            turn.enter()
        assert _backend._chosen == "reference"
        threads[first].leave()
        assert _backend._chosen == "reference"
        threads[second].leave()
        assert _backend._chosen is None


def test_another_thread_cannot_ask_for_another_backend() -> None:
    turn = Turn(sf.backend("reference"))
    turn.enter()
    with (
        pytest.raises(ConfigError, match=r"another thread is inside backend\('reference'\)"),
        sf.backend("fused"),
    ):
        pass
    with sf.backend("reference"):
        assert _backend._chosen == "reference"
    assert _backend._chosen == "reference"
    turn.leave()
    with sf.backend("fused"):
        assert _backend._chosen == "fused"
    assert _backend._chosen is None


class Turn:
    """A context entered and left in a thread of its own, when told so."""

    def __init__(self, context: AbstractContextManager[None]) -> None:
        self.context = context
        self.executor = ThreadPoolExecutor(1)

    def enter(self) -> None:
        self.executor.submit(self.context.__enter__).result()

    def leave(self) -> None:
        self.executor.submit(self.context.__exit__, None, None, None).result()
        self.executor.shutdown()


def test_contexts_left_out_of_order_leave_what_is_still_inside() -> None:
    """As generators that are closed late do."""
    outer, inner = sf.backend("reference"), sf.backend("fused")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert _backend._chosen == "fused"
    inner.__exit__(None, None, None)
    assert _backend._chosen is None
