"""Where data are: the user's folder, or a cache into which they are downloaded."""

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pooch

from spikefold.errors import DataError, FileFormatError, SpikefoldWarning
from spikefold.replacing import replacing


def folder(root: Path | None) -> Path:
    """The folder to look in: the one given, else $SPIKEFOLD_DATA, else the cache of downloads."""
    if root is not None:
        return root
    return Path(os.environ.get("SPIKEFOLD_DATA") or pooch.os_cache("spikefold"))


def find(names: Sequence[str], root: Path | None, *places: str) -> Path | None:
    """The first of these folders that holds all the names: the user's, then `places` in it.

    Arguments:
        names: files that must be there.
        root: see `folder`.
        places: folders below it, or absolute ones, to try besides.
    """
    base = folder(root)
    for place in (base, *(base / place for place in places)):
        if all((place / name).is_file() for name in names):
            return place
    return None


def download(url: str, md5: str, root: Path | None) -> Path:
    """Download a file with progress, check it, keep it in the folder; once.

    Raises:
        DataError: if it cannot be downloaded or its checksum is wrong.
    """
    name = url.rsplit("/", 1)[1]
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=name,
            path=folder(root),
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=60),
        )
    except ValueError as error:
        raise DataError(
            f"{url}: the download's checksum is wrong: try again, or put {name} into {folder(root)}"
        ) from error
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{url}: cannot be downloaded ({type(error).__name__}): put {name} into "
            f"{folder(root)}, or name its folder (--data.root, root)"
        ) from error
    return Path(path)


def cached(
    key: str, files: Sequence[Path], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays computed from files, kept on disk until a file changes; with a warning, not kept.

    Arguments:
        key: what is computed, with its settings; part of the cache file's name.
        files: what it is computed from; names, sizes and times of change are looked at.
        compute: the arrays by name.
    """
    identity = "\n".join(f"{f.resolve()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = Path(pooch.os_cache("spikefold")) / "computed" / f"{key}-{digest}.npz"
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except Exception as error:  # zipfile, zlib and numpy have no common type
            warnings.warn(
                f"{path} is damaged ({error}): computed again", SpikefoldWarning, stacklevel=1
            )
    arrays = compute()
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except FileFormatError as error:
        reason = str(error).rpartition(": ")[2]
        warnings.warn(
            f"{path.parent} cannot be written ({reason}): what was decoded is not kept",
            SpikefoldWarning,
            stacklevel=1,  # one place, so that it is said once
        )
    return arrays
