"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spikefold.errors import FileFormatError

# begins the names of files being written; short, because a name has at most 255 bytes
UNFINISHED = ".spikefold-"


def remove_unfinished(directory: Path) -> None:
    """Remove temporary files of writers that were killed; only while nobody else writes there.

    Arguments:
        directory: in which they wrote.
    """
    for path in directory.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when all went well.

    Where `path` is a link, what it leads to is replaced.

    Raises:
        FileFormatError: if the file cannot be written.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(6)}")
        # who may read it is the user's choice (umask), as for any file
        temporary.touch(exist_ok=False)
    except RuntimeError as error:  # Python 3.11 and 3.12 tell a loop of links so
        raise FileFormatError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise FileFormatError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):  # of a file that the caller uses besides
            raise
        raise FileFormatError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
