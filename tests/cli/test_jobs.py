"""Runs side by side: each a process, and the death of one is not the others'."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from spikefold.cli import main
from spikefold.cli._jobs import run_jobs
from spikefold.cli._processes import Processes
from spikefold.errors import ConfigError
from spikefold.training import Progress


def job(path: Path, progress: Progress) -> None:
    """Writes what it sees of its process; some end badly."""
    with progress.task("work", 2) as advance:
        advance("half")
        path.write_text(f"{torch.get_num_threads()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        if "killed" in path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "refused" in path.name:
            raise ConfigError("not like this")
        advance()


def test_each_has_its_share_and_the_death_of_one_is_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ["one", "killed", "refused", "two"]
    paths = [tmp_path / name for name in names]
    works = [partial(job, path) for path in paths]
    assert run_jobs(Processes(works, at_once=2, devices=2), names) == [1, 2]
    threads = max(1, (os.cpu_count() or 1) // 2)
    assert [path.read_text() for path in paths] == [f"{threads} {n % 2}" for n in range(4)]
    said = capfd.readouterr().err
    assert "1/4 one: work 2/2" in said
    assert "2/4 killed: ended with status -9" in said
    assert "3/4 refused: failed: not like this; ended with status 1" in said
    assert "4/4 two: done" in said


@pytest.mark.slow
def test_a_sweep_side_by_side_goes_on_where_it_was_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "digits", "--seeds", "0", "1", "--jobs", "2", "--out", str(tmp_path / "s")]
    words += ["--vary", "optimizer.epochs=2", "model.width=0.25", "model.steps=2"]
    command = [sys.executable, "-m", "spikefold.cli", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 900
    while not list((tmp_path / "s").glob("**/last.safetensors")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "s").glob("**/summary.json"))) == 2
    assert main(words) == 0
    assert "train" not in capsys.readouterr().err


def test_an_interrupted_sweep_says_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_then_ctrl_c(planned: Any, progress: Progress) -> None:
        if planned.experiment.seed:
            raise KeyboardInterrupt
        planned.directory.mkdir(parents=True)
        (planned.directory / "summary.json").write_text("{}")

    monkeypatch.setattr("spikefold.cli._sweep.run_planned", one_then_ctrl_c)
    status = main(["sweep", "digits", "--seeds", "0", "1", "2", "--out", str(tmp_path / "s")])
    told = capsys.readouterr().err.splitlines()[-1]
    assert status == 130
    assert told.endswith("interrupted; 1 of 3 runs are finished, the same command goes on")
