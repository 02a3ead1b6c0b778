"""Runs as processes of this machine, each with its share of it."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from spikefold.cli._jobs import DONE, Work, work_telling
from spikefold.cli._signals import terminable
from spikefold.errors import SpikefoldError


class Process(NamedTuple):
    """A run's process, and where its lines come out."""

    process: BaseProcess
    lines: Connection

    def news(self) -> Iterator[str]:
        """The lines it has said since it was last asked."""
        try:
            while self.lines.poll():
                yield self.lines.recv()
        except EOFError:  # it has ended
            return

    def ended(self) -> str | None:
        """None while it goes on; then `DONE`, or its status."""
        if self.process.is_alive():
            return None
        code = self.process.exitcode
        return DONE if code == 0 else f"ended with status {code}"


class Processes:
    """Starts runs as processes.

    Arguments:
        works: the runs.
        at_once: processes at a time; each gets its share of the cores.
        devices: GPUs that the processes take in turn; 0: none.
    """

    pause = 0.2

    def __init__(self, works: Sequence[Work], at_once: int, devices: int = 0) -> None:
        self.works, self.at_once, self.devices = works, at_once, devices
        self.threads = max(1, (os.cpu_count() or 1) // at_once)

    def start(self, numbers: Sequence[int]) -> Iterator[Process]:
        """Start the runs of these numbers; each as it is taken."""
        context = multiprocessing.get_context("spawn")
        for number in numbers:
            read, write = context.Pipe(duplex=False)
            arguments = (self.works[number], write, self.threads)
            process = context.Process(target=_work, args=arguments)
            with _environment(self.threads, number % self.devices if self.devices else None):
                process.start()
            write.close()  # the other end is the process's
            yield Process(process, read)

    def leave(self, running: Sequence[Process]) -> str:
        """End them."""
        for process, _ in running:
            process.terminate()
        for process, _ in running:
            process.join()
        return ""


def _work(work: Work, lines: Connection, threads: int) -> None:
    """What a run's process does."""
    try:
        with terminable():
            work_telling(work, lines.send, threads)
    except (SpikefoldError, OSError):
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


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
