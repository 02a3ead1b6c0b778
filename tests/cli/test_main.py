"""The program as a process: what it imports, how it ends."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import spikefold as sf
from spikefold import names
from spikefold.cli import main
from spikefold.cli._main import COMMANDS, find_command
from spikefold.cli._output import print_rows, shown
from spikefold.cli._signals import Terminated, terminable

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "lightning_fabric")


def imported(code: str) -> set[str]:
    """Which of the heavy packages a process has imported that ran this."""
    code += f"\nimport sys\nprint(*(set(sys.modules) & set({HEAVY})), file=sys.stderr)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=900
    )
    return set(process.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_the_first_help_imports_nothing_heavy(words: list[str]) -> None:
    assert imported(f"from spikefold.cli import main; main({words})") == set()


def test_the_first_help_lists_what_is_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    def of_ours(registry: Iterable[str], place: Callable[[str], Any]) -> set[str]:
        return {name for name in registry if place(name).__module__.startswith("spikefold.")}

    models = of_ours(sf.models.MODELS, sf.models.MODELS.__getitem__)
    data_sets = of_ours(sf.data.DATASETS, lambda name: sf.data.DATASETS[name].load)
    assert set(names.MODELS) == models
    assert set(names.DATASETS) == data_sets
    assert main(["--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert models | data_sets <= set(words)


def test_tables_need_no_torch(tmp_path: Path) -> None:
    assert "torch" not in imported(f"from spikefold.cli import main; main(['table', '{tmp_path}'])")


def test_what_trains_nothing_does_not_wait_for_what_trains() -> None:
    """Lightning brings torch's compiler along, which takes nearly as long as torch."""
    code = "from spikefold.cli import main; main(['fold', 'missing.safetensors', '-o', 'f'])"
    assert imported(code) & set(HEAVY) == {"torch", "numpy"}


def test_public_names_come_when_asked_for() -> None:
    code = "import sys, spikefold as sf; assert 'torch' not in sys.modules\n"
    code += "assert sf.nn.LIF is sf.LIF and sf.training.train\n"
    code += "from spikefold import *; from spikefold import fold as other; assert fold is other\n"
    code += "assert not hasattr(sf, 'no_such_name') and {'fold', 'models'} <= set(dir(sf))"
    assert "torch" in imported(code)
    with pytest.raises(AttributeError, match="module 'spikefold' has no attribute 'unknown'"):
        sf.unknown  # type: ignore[attr-defined]  # noqa: B018


def test_every_command_is_where_it_is_looked_for() -> None:
    assert all(callable(find_command(name)) for name in COMMANDS)


@pytest.mark.parametrize("words", [["recipes"], ["--help"], ["show", "--help"]])
def test_a_full_disk_behind_the_output_is_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noticed when the buffer is emptied, and not once more when the interpreter ends."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "spikefold.cli", *words],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=900,
        )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr == "spikefold: No space left on device\n"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    sf.save(sf.models.small(in_channels=1, steps=1, width=0.1), tmp_path / "n.safetensors")
    (tmp_path / "out").mkdir()
    process = subprocess.run(
        [sys.executable, "-m", "spikefold.cli", "fold", "n.safetensors", "-o", "out/f"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr.startswith("spikefold: cannot write out/f: ")
    assert process.stderr.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_sigterm_is_an_interrupt_inside_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as interrupt, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert interrupt.type is Terminated
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_sigterm_ends_all_processes_of_a_training(tmp_path: Path) -> None:
    words = ["train", "digits", "--hardware.devices", "2", "--optimizer.epochs", "1000"]
    words += ["--model.width", "0.25", "--model.steps", "1", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "spikefold.cli", *words], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
    process.terminate()
    try:
        _, err = process.communicate(timeout=900)  # until the last of them has closed it
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert "--resume" in err.splitlines()[-1]
    assert not list((tmp_path / "run").glob(".spikefold-*"))  # no file half-written


def test_values_are_shown_as_a_person_reads_them() -> None:
    values = {0.123456789: "0.1235", 1e-9: "1e-09", 1234567: "1,234,567", None: "-", "a": "a"}
    assert {value: shown(value) for value in values} == values
    assert shown(True) == "True"
    assert shown({"accuracy": 1 / 3, "samples": 3}) == "accuracy 0.3333, samples 3"


def test_a_table_too_wide_for_a_terminal_is_told_row_by_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows = [("layer", *(f"head {n}" for n in range(6))), ("first", *"12345", "")]
    monkeypatch.setenv("COLUMNS", "80")
    print_rows("title", rows)
    assert "│ first │ 1 " in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "40")
    print_rows("title", rows)
    told = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert told == ["title", "  first: head 0 1; head 1 2; head 2 3;", "  head 3 4; head 4 5"]


def test_nothing_is_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("runs/[red]", [("[/]", ":smile:"), ("x" * 500, "[bold]y")])
    text = capsys.readouterr().out
    for part in ("runs/[red]", "[/]", ":smile:", "x" * 500, "[bold]y"):
        assert part in text


def test_ctrl_c_before_anything_of_ours_runs_is_silent() -> None:
    code = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "spikefold.cli._main":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.meta_path.insert(0, Interrupting())
import spikefold.cli
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (-signal.SIGINT, "")
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import spikefold.cli
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "True\n"
