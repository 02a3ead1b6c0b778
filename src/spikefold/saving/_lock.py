"""One process at a time on a run's folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spikefold.errors import ConfigError, FileFormatError
from spikefold.replacing import remove_unfinished

LOCK = ".lock"


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder, while the context lasts.

    The lock dies with its process. Of several that torchrun started the first one has it; who has
    it may take it again. What a writer that was killed left behind is removed.

    Arguments:
        directory: made if it is not there.

    Raises:
        ConfigError: if another process is at work there.
        FileFormatError: if the folder cannot be written.
    """
    if not is_first():
        yield
        return
    try:
        made = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory.resolve() / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"{directory}: another process is working on this run: wait for it, or choose another "
            "folder"
        ) from error
    except OSError as error:
        raise FileFormatError(f"cannot write {directory}: {error.strerror or error}") from error
    try:
        remove_unfinished(directory)
        yield
    finally:
        # Work that was refused leaves no folder behind; while the lock is held, for the next one
        # to hold it may have begun to write.
        if made and os.listdir(directory) == [LOCK]:
            shutil.rmtree(directory)
        lock.release()
