"""Bytes of files, never more than a format allows: files may be damaged or hostile."""

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spikefold.errors import DataError

# a user's archive may unpack to this size; a larger one to this many times its own
FREE, RATIO = 2**26, 100
# what readers of archives raise: damaged, cut off, encrypted, of an unknown compression
ARCHIVE_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip


def require_file(path: Path) -> None:
    """Refuse what is not a regular file: reading a pipe or a device may never end.

    Arguments:
        path: links are followed.

    Raises:
        DataError: if it is absent, a folder, a pipe, a device or a link to nothing.
    """
    try:
        if path.is_file():
            return
        there = path.exists() or path.is_symlink()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not there:
        raise DataError(f"{path}: no such file")
    raise DataError(f"{path}: not a regular file: a folder, a pipe, a device or a link to nothing")


def read_bytes(path: Path) -> bytes:
    """A whole file.

    Arguments:
        path: of the file.

    Raises:
        DataError: if it is not a regular file, or cannot be read.
    """
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_packed(path: Path, limit: int) -> bytes:
    """A whole file that is packed by gzip (.gz) or xz (.xz), or by neither.

    Arguments:
        path: its ending tells.
        limit: bytes that it may hold.

    Raises:
        DataError: if it is damaged, cut off, or holds more.
    """
    require_file(path)
    kinds = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with kinds.get(path.suffix, open)(path, "rb") as file:  # type: ignore[operator]
            data: bytes = file.read(limit + 1)
    except ARCHIVE_ERRORS as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again") from error
    if len(data) > limit:
        raise DataError(f"{path} holds more than the {limit:,} bytes that it may: fetch it again")
    return data


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive, refused if it unpacks to far more than a real one would.

    Arguments:
        path: of the archive.

    Raises:
        DataError: if it is damaged, encrypted, packed in an unknown way, or unpacks to over 64 MiB
            and a hundred times its size.
    """
    require_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            require_modest(path, archive)
            yield archive
    except DataError:
        raise
    except ARCHIVE_ERRORS as error:
        raise DataError(f"{path} is damaged or cut off ({error})") from error


def require_modest(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to far more than it is.

    Arguments:
        path: of the archive.
        archive: opened.

    Raises:
        DataError: if it does; tells both sizes.
    """
    size, whole = path.stat().st_size, sum(member.file_size for member in archive.infolist())
    if whole > max(FREE, RATIO * size):
        raise DataError(f"{path}: {size:,} bytes would unpack to {whole:,}: not opened")
