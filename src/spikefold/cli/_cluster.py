"""Runs as jobs of a cluster: submitit submits them, watches them, and queues them again.

A job reads its run from a pickle that this process wrote beside its log; nothing is unpickled here.
"""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from spikefold.cli._jobs import DONE, FAILED, Work, work_telling
from spikefold.cli._output import one_line
from spikefold.cli._parsing import NONE_GIVEN
from spikefold.errors import ConfigError
from spikefold.ranges import require_within
from spikefold.records import write_json
from spikefold.saving import locked

# What begins a run's lines in the log of its job.
MARK = "spikefold: "
# Jobs in a row that may be cut off before an epoch is done.
TRIES = 3
# State of a job that Slurm does not know of yet, or any more.
UNKNOWN = "UNKNOWN"
# Of a job, or of one in an array.
_ID = re.compile(r"\d+(_\d+)?")
# Seconds that local jobs have to end.
PATIENCE = 10


@dataclass(frozen=True)
class JobOptions:
    """What each job asks of the cluster; one job is one run."""

    partition: str | None = None
    """queue"""
    minutes: int = 240
    """time limit; a run that is cut off goes on from its last epoch, queued again by itself"""
    cpus: int = 4
    """cores"""
    gpus: int = 0
    """GPUs"""
    memory: float | None = None
    """GB"""
    set: Annotated[tuple[str, ...], NONE_GIVEN] = ()
    """more parameters of submitit's Slurm executor, KEY=VALUE: account=lab, qos=high,
    array_parallelism=8, setup='["module load cuda"]'; for what it does not know
    additional_parameters='{"gres-flags": "enforce-binding"}'"""

    def __post_init__(self) -> None:
        require_within(
            "sweep: --cluster",
            self,
            minutes="[5, 1000000]",  # submitit's signal comes 90 seconds, and up to a minute, early
            cpus="[1, 10000]",
            gpus="[0, 10000]",
            memory="(0, 1000000]",
        )

    def parameters(self) -> dict[str, Any]:
        """The same as submitit's `AutoExecutor` takes it."""
        return {
            "name": "spikefold",
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory,
            "slurm_partition": self.partition,
            **dict(map(_parameter, self.set)),
        }


def _parameter(word: str) -> tuple[str, Any]:
    """`KEY=VALUE`; a value that is no JSON is text."""
    key, equals, value = word.partition("=")
    if not (key and equals and value):
        raise ConfigError(f"sweep: --cluster.set {word}: expected KEY=VALUE")
    try:
        return f"slurm_{key}", json.loads(value)
    except ValueError:
        return f"slurm_{key}", value


@dataclass
class Job:
    """What a job does; cut off before its time limit, or preempted, it is queued again.

    Attributes:
        work: the run.
        checkpoint_file: that it goes on from.
        threads: of torch.
        before: what that file was when the job began.
        fruitless: jobs in a row that were cut off before that file changed.
    """

    work: Work
    checkpoint_file: Path
    threads: int
    before: float | None = None
    fruitless: int = 0

    def __call__(self) -> None:
        self.before = self._written()
        _say(f"begins on {socket.gethostname()}")
        work_telling(self.work, _say, self.threads)

    def checkpoint(self) -> Any:
        """Called by submitit when the job is about to be cut off: what is queued in its place."""
        from submitit.helpers import DelayedSubmission

        self.fruitless = self.fruitless + 1 if self._written() == self.before else 0
        if self.fruitless == TRIES:
            _say(f"{FAILED}: cut off {TRIES} times in a row before an epoch was done")
            return None
        _say("cut off: queued again, to go on from the last epoch")
        return DelayedSubmission(self)

    def _written(self) -> float | None:
        return self.checkpoint_file.stat().st_mtime if self.checkpoint_file.exists() else None


def _say(line: str) -> None:
    print(f"{MARK}{line}", flush=True)


class Run(NamedTuple):
    """One run, as a cluster needs to know it.

    Attributes:
        name: in the list of jobs.
        work: what a job does.
        checkpoint: file that it goes on from.
        results: file that is there at its end.
    """

    name: str
    work: Work
    checkpoint: Path
    results: Path


class Submitted:
    """A run's job.

    Arguments:
        job: submitit's.
        results: file that is there if it ended well.
        lag: seconds until that is seen from here.
    """

    def __init__(self, job: Any, results: Path, lag: float) -> None:
        self.job, self.results, self.lag = job, results, lag
        self.state, self.read = "", 0
        self.over: float | None = None

    def news(self) -> Iterator[str]:
        """Its state, where that is new, and the lines it has said since it was last asked."""
        if not self.job.done() and self.job.state != self.state:
            self.state = self.job.state
            shown = "submitted" if self.state == UNKNOWN else self.state.lower()
            yield f"{shown}, job {self.job.job_id}"
        log = self.job.paths.stdout
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(self.read)
            *lines, _ = file.read().split(b"\n")
        self.read += sum(len(line) + 1 for line in lines)
        for line in lines:
            text = line.decode(errors="replace")
            if text.startswith(MARK):
                yield text.removeprefix(MARK)

    def ended(self) -> str | None:
        """None while it goes on; then `DONE`, or its state and log."""
        if not self.job.done():
            return None
        if self.results.exists():
            return DONE
        self.over = self.over or time.monotonic()
        if time.monotonic() - self.over < self.lag:
            return None
        return f"ended ({self.job.state.lower()}) without results, log: {self.job.paths.stderr}"


class Cluster:
    """Starts runs as submitit's local jobs: on this machine, as a cluster would elsewhere.

    Arguments:
        runs: all.
        folder: of logs, and pickles for the jobs.
        options: what each job asks for.
        at_once: jobs at a time.

    Raises:
        ConfigError: if submitit, the cluster or a parameter is not there.
    """

    name, pause, lag = "local", 0.5, 0.0

    def __init__(
        self, runs: Sequence[Run], folder: Path, options: JobOptions, at_once: int
    ) -> None:
        self.runs, self.options, self.at_once = runs, options, at_once
        self.executor = _executor(self.name, folder, options)
        self.folder: Path = self.executor.folder

    def start(self, numbers: Sequence[int]) -> Iterator[Submitted]:
        """Submit the runs of these numbers."""
        jobs = self.jobs(numbers) if numbers else []
        for number, job in zip(numbers, jobs, strict=True):
            yield Submitted(job, self.runs[number].results, self.lag)

    def jobs(self, numbers: Sequence[int]) -> Sequence[Any]:
        """Submitit's jobs of these runs."""
        with _stderr_to(self.folder / "controllers.err"):
            return self.submit(numbers)

    def submit(self, numbers: Sequence[int]) -> Sequence[Any]:
        """New jobs, together."""
        runs = [self.runs[number] for number in numbers]
        jobs = [Job(run.work, run.checkpoint, self.options.cpus) for run in runs]
        submitted: list[Any] = self.executor.submit_array(jobs)
        return submitted

    def leave(self, running: Sequence[Submitted]) -> str:
        """End them."""
        for run in running:
            run.job.cancel()
        end = time.monotonic() + PATIENCE
        while not all(run.job.done() for run in running) and time.monotonic() < end:
            time.sleep(0.1)
        return ""


class Slurm(Cluster):
    """Starts runs as jobs of Slurm, and goes on watching those of an earlier sweep."""

    name, pause, lag = "slurm", 2.0, 15.0

    def jobs(self, numbers: Sequence[int]) -> Sequence[Any]:
        """Jobs that are queued or at work already; new ones for the other runs, in one array.

        Raises:
            ConfigError: if Slurm refuses them.
        """
        names = [self.runs[number].name for number in numbers]
        with locked(self.folder):
            listed = self._listed()
            jobs = self._alive({name: listed[name] for name in names if name in listed})
            new = [number for number in numbers if self.runs[number].name not in jobs]
            try:
                submitted = self.submit(new) if new else []
            except RuntimeError as error:
                raise ConfigError(f"sweep: Slurm refuses the jobs: {one_line(error)}") from error
            jobs |= zip((self.runs[number].name for number in new), submitted, strict=True)
            write_json(self._list, listed | {name: job.job_id for name, job in jobs.items()})
        return [jobs[name] for name in names]

    def leave(self, running: Sequence[Submitted]) -> str:
        """They go on without being watched."""
        ids = " ".join(run.job.job_id for run in running)
        return ids and f"jobs {ids} go on in the queue (scancel {ids} ends them), "

    @property
    def _list(self) -> Path:
        """File of the jobs' numbers, by name of the run."""
        return self.folder / "jobs.json"

    def _listed(self) -> dict[str, str]:
        if not self._list.exists():
            return {}
        try:
            listed = json.loads(self._list.read_text())
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, dict) and all(_ID.fullmatch(str(job)) for job in listed.values()):
            return listed
        raise ConfigError(
            f"{self._list}: damaged: remove it when no job of this sweep is queued any more"
        )

    def _alive(self, ids: dict[str, str]) -> dict[str, Any]:
        """The jobs among these that are not over; what Slurm has forgotten is."""
        from submitit import SlurmJob

        jobs = {name: SlurmJob[Any](self.folder, number) for name, number in ids.items()}
        SlurmJob.watcher.update()  # asks for all of them at once
        return {name: job for name, job in jobs.items() if not job.done() and job.state != UNKNOWN}


CLUSTERS = {engine.name: engine for engine in (Slurm, Cluster)}


def _executor(cluster: str, folder: Path, options: JobOptions) -> Any:
    """Submitit's, with the parameters of the jobs."""
    parameters = options.parameters()
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise ConfigError(
            f"sweep: --on {cluster} needs submitit: pip install 'spikefold[cluster]'"
        ) from error
    try:
        # it is up to `Job.checkpoint` when to give up
        executor = AutoExecutor(folder, cluster, **{f"{cluster}_max_num_timeout": 1_000_000})
        executor.update_parameters(**parameters)
    except Exception as error:  # what it finds wrong comes in all classes
        given = f"--on {cluster} {' '.join(options.set)}".rstrip()
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"sweep: {given}: {reason}") from error
    return executor


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """What processes that start inside inherit: a controller's last word is a traceback."""
    before = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
