"""Tensors of a file that `torch.save` wrote, without executing anything from it."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from spikefold.errors import AdoptError, FileFormatError

REMEDY = "where it was made, torch.save(model.state_dict(), PATH) writes one that can be read"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a `.pth` or `.pt` file, on the CPU.

    Arguments:
        path: what `torch.save(model.state_dict(), path)` wrote.

    Raises:
        FileFormatError: if it is absent, cut off, no such file, or a whole pickled module, which
            could only be read by executing what it says.
        AdoptError: if it holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"nsupported .*?GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise FileFormatError(f"{path}: not a checkpoint of torch, or damaged") from error
        raise FileFormatError(
            f"{path}: holds objects of {named[1]} (a whole pickled model?), and reading those "
            f"would execute code: {REMEDY}"
        ) from error
    except Exception as error:  # torch.load raises whatever a damaged file leads it to
        reason = str(error).strip().split("\n")[0]
        raise FileFormatError(
            f"{path}: not a checkpoint of torch, or cut off or damaged ({reason})"
        ) from error
    return tensors(content, str(path))


def tensors(content: Any, what: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint: the checkpoint itself, or the only state dict it holds.

    Arguments:
        content: of a checkpoint.
        what: for messages.

    Raises:
        AdoptError: if there is none.
    """
    if _is_state_dict(content):
        return dict(content)
    if not isinstance(content, Mapping):
        raise AdoptError(f"{what}: a {type(content).__name__}, not a state dict: {REMEDY}")
    inside = [value for value in content.values() if _is_state_dict(value)]
    if len(inside) == 1:
        return dict(inside[0])
    entries = ", ".join(f"{key!r} ({type(value).__name__})" for key, value in content.items())
    raise AdoptError(
        f"{what}: holds {len(inside)} state dicts of tensors, and one is needed; its entries: "
        f"{entries or 'none'}"
    )


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )
