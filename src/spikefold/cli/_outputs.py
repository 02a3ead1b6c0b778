"""Files that commands write, looked at before the work for them begins."""

import tempfile
from pathlib import Path

from spikefold.errors import ConfigError, FileFormatError

# what `export` makes, by the ends of names
KINDS = {".onnx": "onnx", ".pt2": "torch", ".nir": "nir"}


def require_writable(path: Path, *suffixes: str) -> None:
    """Refuse a file that could not be written, or whose name is that of another kind of file.

    Arguments:
        path: file to be written; folders that lead to it are made then.
        suffixes: of its kind, the usual one first; none: any.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: give the name of a file in it")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: what is written is a {' or '.join(suffixes)} file")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise FileFormatError(f"cannot write {path}: {error.strerror or error}") from error


def require_free(path: Path, overwrite: bool, *suffixes: str) -> None:
    """`require_writable`, and refuse to overwrite a file without --overwrite."""
    require_writable(path, *suffixes)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} already exists: --overwrite replaces it")


def require_network_file(path: Path, overwrite: bool) -> None:
    """`require_free`, and refuse the name of another kind of file."""
    if path.suffix in KINDS:
        raise ConfigError(
            f"{path}: what is written is a network file (.safetensors): spikefold export makes "
            f"{path.suffix}"
        )
    require_free(path, overwrite)
