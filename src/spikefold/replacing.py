"""Files that are written whole or not at all."""

import os
import tempfile
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
        FileFormatError: if the directory cannot be written.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    except OSError as error:
        raise FileFormatError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise FileFormatError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
