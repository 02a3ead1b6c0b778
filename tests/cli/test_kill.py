"""Runs that are ended at random moments: whole files, one line, the same bits after resuming."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spikefold.cli import main
from spikefold.saving import load, read

TINY = ["--data.train-fraction", "0.1", "--model.width", "0.1", "--optimizer.epochs", "6"]
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "spikefold.cli", "train", "digits", "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that was left alone, and the seconds it took."""
    out, started = tmp_path_factory.mktemp("whole") / "run", time.monotonic()
    subprocess.run(command(out, *TINY), check=True, capture_output=True)
    return out, time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_a_run_that_is_ended_goes_on_to_the_same_bits(
    number: int, whole: tuple[Path, float], tmp_path: Path
) -> None:
    chance, out = random.Random(number), tmp_path / "run"
    for _ in range(2):
        words = ["--resume"] if (out / "last.safetensors").exists() else TINY
        process = subprocess.Popen(
            command(out, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # a job in the background of a shell would ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        # the interpreter itself takes a moment to start, and is no affair of ours
        time.sleep(0.3 + chance.random() * whole[1])
        kind = NUMBERS[number]
        process.send_signal(kind)
        _, error = process.communicate(timeout=900)
        assert process.returncode in (0, -kind, 128 + kind), error
        assert "Traceback" not in error
        for path in out.glob("*.safetensors"):
            read(path)
        for path in out.glob("*.json"):
            json.loads(path.read_text())
    words = ["--resume"] if (out / "last.safetensors").exists() else TINY
    subprocess.run(command(out, *words), check=True, capture_output=True)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole[0]))
    expected, found = (load(place / "best.safetensors").state_dict() for place in (whole[0], out))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.slow
def test_two_processes_on_one_run(
    whole: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    first = subprocess.Popen(
        command(out, *TINY[:-1], "100000"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (out / "metrics.jsonl").exists():
            time.sleep(0.05)
            assert first.poll() is None
        for more in (["--resume"], ["--overwrite", *TINY]):
            assert main(["train", "digits", "--out", str(out), *more]) == 1
            error = capsys.readouterr().err
            assert "another process is working on this run" in error
            assert "Traceback" not in error
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    # the lock dies with its process
    words = ["train", "digits", *TINY[:-1], "1", "--overwrite", "--out"]
    assert main([*words, str(out)]) == 0
    # and --overwrite goes through a link to the folder that it leads to
    (tmp_path / "link").symlink_to(out)
    assert main([*words, str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole[0]))


@pytest.mark.slow
def test_metrics_that_a_kill_cut_off_are_whole_again(
    whole: tuple[Path, float], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    metrics = out / "metrics.jsonl"
    before = metrics.read_text()
    metrics.write_text(before[:-30])
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert metrics.read_text() == before
