"""NIR files, read without trusting them: they are HDF5."""

import importlib
from pathlib import Path
from typing import Any

from spikefold.errors import AdoptError, FileFormatError

KEY = "spikefold"  # of the metadata
LIMIT = 4 * 2**30  # bytes of all arrays together, unpacked


def read_nir(path: Path) -> Any:
    """The `nir.NIRGraph` of a file; its shapes are not checked.

    Arguments:
        path: a `.nir` file.

    Raises:
        FileFormatError: if it is absent, no such file, damaged, or larger than it may be.
        AdoptError: if the package `nir` is not here.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    try:
        nir, h5py = (importlib.import_module(name) for name in ("nir", "h5py"))
    except ImportError as error:
        raise AdoptError("a .nir file needs nir: pip install 'spikefold[export]'") from error
    try:
        with h5py.File(path, "r") as file:
            _require_bounded(file, h5py)
        # types are checked by from_nir, which knows of groups, and names the node
        return nir.read(path, type_check=False)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except Exception as error:  # nir and h5py raise whatever a damaged file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileFormatError(f"{path}: not a NIR file, or damaged ({reason})") from error


def _require_bounded(file: Any, h5py: Any) -> None:
    """Refuse links, which may lead into other files or round in circles, and memory bombs."""
    groups, left = [file], LIMIT
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise FileFormatError(f"{name!r} is a link, which no NIR file has")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                left -= item.nbytes
            if left < 0 or len(groups) > 100_000:
                raise FileFormatError(f"it holds more than {LIMIT:,} bytes of arrays, or too many")


def said_in(graph: Any) -> dict[str, Any]:
    """What `spikefold.export.nir_graph` said in a graph; nothing in others'.

    Arguments:
        graph: a `nir.NIRGraph`.

    Raises:
        AdoptError: if that is damaged.
    """
    metadata = getattr(graph, "metadata", None)
    said = metadata.get(KEY, {}) if isinstance(metadata, dict) else {}
    if not isinstance(said, dict):
        raise AdoptError(f"from_nir: the metadata '{KEY}' of the graph are damaged")
    return said
