"""SIGTERM, by which schedulers and shells end a process, as Ctrl-C."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds that child processes have to end.
PATIENCE = 10


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does, this process and its children.

    Raises:
        Terminated: when that happens.
    """
    # Python lets the main thread alone handle signals.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except Terminated:
        _interrupt_children()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _interrupt_children() -> None:
    """Ctrl-C reaches them from the terminal; SIGTERM reaches only the process that is named."""
    children = multiprocessing.active_children()
    for child in children:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
    for child in children:
        child.join(PATIENCE)
        if child.is_alive():
            child.kill()
