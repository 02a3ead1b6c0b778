"""Runs side by side, each a process of its own with its share of the machine."""

import multiprocessing
import os
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from spikefold.cli._output import one_line
from spikefold.cli._progress import Lines
from spikefold.cli._signals import terminable
from spikefold.errors import SpikefoldError
from spikefold.training import Progress

JobT = TypeVar("JobT")


class _Shown:
    """One line a run, on standard error."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.latest: dict[int, str] = {}
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, auto_refresh=False)

    def __enter__(self) -> "_Shown":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def say(self, number: int, line: str) -> None:
        """What a run says."""
        text = f"{number + 1}/{len(self.names)} {self.names[number]}: {line}"
        if not self.console.is_terminal:
            print(text, file=sys.stderr, flush=True)
            return
        self.latest[number] = text
        shown = Text("\n".join(self.latest[key] for key in sorted(self.latest)))
        self.live.update(shown, refresh=True)


def _work(
    run: Callable[[JobT, Progress], None], job: JobT, number: int, lines: Any, threads: int
) -> None:
    """What a run's process does; a user's mistake ends it with one line."""
    import torch

    torch.set_num_threads(threads)
    send = partial(_send, lines, number)
    try:
        with terminable():
            run(job, Lines(send))
    except (SpikefoldError, OSError) as error:
        send(f"failed: {one_line(error)}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _send(lines: Any, number: int, line: str) -> None:
    lines.put((number, line))


def run_jobs(
    jobs: Sequence[JobT],
    run: Callable[[JobT, Progress], None],
    names: Sequence[str],
    at_once: int,
    devices: int = 0,
) -> list[int]:
    """Run jobs, so many at once; if one dies, the others go on.

    Arguments:
        jobs: what is run, picklable.
        run: does one, in its process.
        names: of the jobs, for their lines.
        at_once: processes at a time; each gets its share of the cores.
        devices: GPUs that the processes take in turn; 0: none.

    Returns:
        the places of those that did not end well.
    """
    context = multiprocessing.get_context("spawn")
    lines = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // at_once)
    waiting, failed = list(range(len(jobs)))[::-1], []
    running: dict[int, BaseProcess] = {}
    with _Shown(names) as shown:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    number = waiting.pop()
                    arguments = (run, jobs[number], number, lines, threads)
                    with _environment(threads, number % devices if devices else None):
                        running[number] = context.Process(target=_work, args=arguments)
                        running[number].start()
                _show(lines, shown)
                for number in [n for n, process in running.items() if not process.is_alive()]:
                    process = running.pop(number)
                    process.join()
                    _show(lines, shown)
                    code = process.exitcode
                    shown.say(number, "done" if code == 0 else f"ended with status {code}")
                    failed += [number] if code else []
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.join()
    return sorted(failed)


def _show(lines: Any, shown: _Shown) -> None:
    """All messages so far; waits briefly for the first one."""
    wait = 0.2
    while True:
        try:
            shown.say(*lines.get(timeout=wait))
        except queue.Empty:
            return
        wait = 0


@contextmanager
def _environment(threads: int, device: int | None) -> Iterator[None]:
    """What a process that starts inside inherits: its threads, and the GPU it sees."""
    values = {"OMP_NUM_THREADS": str(threads)}
    if device is not None:
        values["CUDA_VISIBLE_DEVICES"] = str(device)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
