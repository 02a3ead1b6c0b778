"""Runs as jobs of a cluster: submitit runs them here, or hands them to stand-ins of Slurm."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from spikefold.cli import main
from spikefold.cli._cluster import TRIES, Cluster, Job, JobOptions, Run, Slurm, Submitted
from spikefold.cli._jobs import run_jobs
from spikefold.errors import ConfigError
from spikefold.training import Progress

submitit = pytest.importorskip("submitit")


def work(folder: Path, progress: Progress) -> None:
    """Writes its results; some end badly, one is cut off when half is done."""
    with progress.task("work", 2) as advance:
        if "killed" in folder.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "refused" in folder.name:
            raise ConfigError("not like this")
        if "cut" in folder.name and not (folder / "half").exists():
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGUSR2)  # as a cluster does before the time limit
            time.sleep(60)
        advance()
    (folder / "results").touch()


def runs(folder: Path, *names: str) -> list[Run]:
    for name in names:
        (folder / name).mkdir()
    return [
        Run(name, partial(work, folder / name), folder / name / "half", folder / name / "results")
        for name in names
    ]


def test_jobs_are_told_of_queued_again_and_named_with_their_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    names = ["one", "killed", "refused", "cut"]
    engine = Cluster(runs(tmp_path, *names), tmp_path / "jobs", JobOptions(cpus=1), at_once=2)
    assert run_jobs(engine, names) == [1, 2]
    said = capfd.readouterr().err
    assert "1/4 one: done" in said
    assert "2/4 killed: ended (finished) without results, log: " in said
    assert "3/4 refused: failed: not like this\n" in said
    assert "4/4 cut: cut off: queued again, to go on from the last epoch" in said
    assert "4/4 cut: done" in said
    _, _, log = said.partition("3/4 refused: failed: not like this; ")[2].partition("log: ")
    assert "ConfigError: not like this" in Path(log.splitlines()[0]).read_text()


def test_a_job_that_gets_nowhere_is_not_queued_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(lambda progress: None, tmp_path / "last", 1)
    for cut in range(2 * TRIES):
        job()
        if cut < TRIES:  # an epoch was done, each time
            (tmp_path / "last").touch()
            os.utime(tmp_path / "last", (cut, cut))
        again = job.checkpoint()
        assert (again is None) == (cut == 2 * TRIES - 1)
    assert "failed: cut off 3 times in a row before an epoch was done" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_sweep_of_local_jobs_ends_them_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "digits", "--seeds", "0", "1", "--on", "local", "--out", str(tmp_path / "s")]
    words += ["--vary", "optimizer.epochs=2", "model.width=0.25", "model.steps=2"]
    command = [sys.executable, "-m", "spikefold.cli", *words, "--cluster.cpus", "1"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 900
    while not list((tmp_path / "s").glob("**/last.safetensors")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C on a terminal
    _, said = process.communicate(timeout=900)
    assert process.returncode == 130, said
    assert "interrupted; 0 of 2 runs are finished, the same command goes on" in said
    assert "Traceback" not in said
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "s").glob("**/summary.json"))) == 2
    assert main(command[3:]) == 0
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------ Slurm


class Queue:
    """Slurm's programs, as far as submitit calls them; jobs do not run."""

    def __init__(self, folder: Path) -> None:
        self.submitted, self.table = folder / "submitted", folder / "table"
        self.submitted.touch()
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.states()
        self._program("srun", "")
        self._program("sacct", f"cat {self.table}")
        self.takes()

    def _program(self, name: str, body: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def takes(self) -> None:
        """Takes jobs: 11, 12, ..."""
        number = f"$((10 + $(wc -l < {self.submitted})))"
        self._program("sbatch", f'echo "$1" >> {self.submitted}; echo Submitted batch job {number}')

    def refuses(self, why: str) -> None:
        self._program("sbatch", f"echo '{why}' >&2; exit 1")

    def states(self, **states: str) -> None:
        """What accounting knows of jobs: `job_11_0="RUNNING"`."""
        rows = [f"{job.removeprefix('job_')}|{state}|" for job, state in states.items()]
        self.table.write_text("\n".join(["JobID|State|NodeList", *rows]))
        submitit.SlurmJob.watcher.clear()

    def count(self) -> int:
        return len(self.submitted.read_text().splitlines())


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    made = Queue(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    monkeypatch.setattr(Slurm, "pause", 0.0)
    monkeypatch.setattr(Slurm, "lag", 0.0)
    yield made
    submitit.SlurmJob.watcher.clear()


def slurm(folder: Path, *names: str, **options: Any) -> Slurm:
    return Slurm(runs(folder, *names), folder / "jobs", JobOptions(**options), at_once=len(names))


def ids(jobs: list[Submitted]) -> list[str]:
    return [submitted.job.job_id for submitted in jobs]


@pytest.mark.usefixtures("queue")
def test_what_sbatch_is_asked_for(tmp_path: Path) -> None:
    more = ("account=lab", "array_parallelism=1", 'setup=["module load cuda"]')
    engine = slurm(
        tmp_path, "a", "b", partition="long", minutes=90, cpus=3, gpus=2, memory=1.5, set=more
    )
    assert ids(list(engine.start([0, 1]))) == ["11_0", "11_1"]
    lines = (tmp_path / "jobs" / "11_submission.sh").read_text().splitlines()
    for line in (
        "#SBATCH --partition=long",
        "#SBATCH --time=90",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --mem=1536MB",
        "#SBATCH --account=lab",
        "#SBATCH --array=0-1%1",
        "module load cuda",
    ):
        assert line in lines


def test_jobs_of_an_earlier_sweep_are_watched_and_not_submitted_twice(
    queue: Queue, tmp_path: Path
) -> None:
    engine = slurm(tmp_path, "queued", "at work", "dead", "forgotten")
    assert ids(list(engine.start(range(4)))) == ["11_0", "11_1", "11_2", "11_3"]
    queue.states(job_11_0="PENDING", job_11_1="RUNNING", job_11_2="NODE_FAIL")
    again = Slurm(engine.runs, tmp_path / "jobs", JobOptions(), at_once=4)
    assert ids(list(again.start(range(4)))) == ["11_0", "11_1", "12_0", "12_1"]
    queue.states(**{f"job_{job}": "RUNNING" for job in ("11_0", "11_1", "12_0", "12_1")})
    for number, job in ((3, "12_1"), (0, "11_0"), (1, "11_1")):
        assert ids(list(again.start([number]))) == [job]
    assert queue.count() == 2


def test_a_job_that_slurm_ended_is_named_with_its_log(
    queue: Queue, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = slurm(tmp_path, "good", "bad")
    queue.states(job_11_0="COMPLETED", job_11_1="OUT_OF_MEMORY")
    (tmp_path / "good" / "results").touch()
    assert run_jobs(engine, ["good", "bad"]) == [1]
    log = tmp_path / "jobs" / "11_1_0_log.err"
    said = capfd.readouterr().err.splitlines()
    assert said == ["1/2 good: done", f"2/2 bad: ended (out_of_memory) without results, log: {log}"]


def test_an_interrupted_sweep_leaves_jobs_in_the_queue(
    queue: Queue, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.states(job_11_0="PENDING", job_11_1="RUNNING")

    def ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spikefold.cli._jobs.time.sleep", ctrl_c)
    out = tmp_path / "s"
    assert main(["sweep", "digits", "--seeds", "0", "1", "--on", "slurm", "--out", str(out)]) == 130
    assert capfd.readouterr().err.splitlines()[-1] == (
        "spikefold: interrupted; 0 of 2 runs are finished, jobs 11_0 11_1 go on in the queue "
        "(scancel 11_0 11_1 ends them), the same command goes on"
    )
    listed = json.loads((out / "jobs" / "jobs.json").read_text())
    assert listed == {"digits/default/seed-0": "11_0", "digits/default/seed-1": "11_1"}


def refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line about a mistake."""
    assert main(["sweep", "digits", "--seeds", "0", *words]) == 1
    return capfd.readouterr().err.splitlines()[-1]


def test_what_slurm_refuses_is_told(
    queue: Queue, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    queue.refuses("sbatch: error: invalid partition specified: nope")
    words = ["--out", str(tmp_path / "s"), "--on", "slurm", "--cluster.partition", "nope"]
    assert refused(words, capfd) == (
        "spikefold: sweep: Slurm refuses the jobs: sbatch: error: invalid partition specified: nope"
    )
    queue.takes()
    for damaged in ('{"digits/default/seed-0": "3"', '{"digits/default/seed-0": "--help"}', "[3]"):
        (tmp_path / "s" / "jobs" / "jobs.json").write_text(damaged)
        assert "jobs.json: damaged: remove it" in refused(words, capfd)
    assert queue.count() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cluster.gpus", "1"], "--cluster.gpus and the like are for jobs: add --on slurm"),
        (["--on", "slurm"], 'sweep: --on slurm: Could not detect "srun"'),
        (
            ["--on", "local", "--cluster.set", "account"],
            "--cluster.set account: expected KEY=VALUE",
        ),
        (
            ["--on", "local", "--cluster.set", "acount=lab"],
            "--on local acount=lab: Unknown argument 'acount' for executor 'slurm'",
        ),
        (["--on", "local", "--jobs", "0"], "--jobs must be at least 1"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert message in refused([*words, "--out", str(tmp_path / "s")], capfd)


def test_submitit_is_an_extra(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    said = refused(["--on", "slurm", "--out", str(tmp_path / "s")], capfd)
    assert said == "spikefold: sweep: --on slurm needs submitit: pip install 'spikefold[cluster]'"
