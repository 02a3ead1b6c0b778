"""The file: tensors and a JSON header, written whole, checked before anything is made of them."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from spikefold.errors import FileFormatError
from spikefold.saving._replacing import replacing

# 2: any module, transforms by path, checksum
FORMAT = 2
_KEY = "spikefold"


def write_file(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write header and tensors, or nothing at all.

    Arguments:
        path: file to write.
        header: plain data; format, version and checksum are added.
        tensors: by name.

    Raises:
        FileFormatError: if the file cannot be written.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {
        "format": FORMAT,
        "version": version("spikefold"),
        "checksum": _checksum(whole),
        **header,
    }
    # copies: tensors that share memory are stored each
    copies = {name: value.clone() for name, value in whole.items()}
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(copies, temporary, {_KEY: json.dumps(header)})
        except safetensors.SafetensorError as error:  # a full disk is no OSError there
            raise FileFormatError(f"cannot write {path}: {error}") from error


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors; the header is checked before the tensors are read.

    Arguments:
        path: the file.

    Raises:
        FileFormatError: if the file is absent, cut off, foreign, damaged or of a newer format.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = _parse_header(path, (file.metadata() or {}).get(_KEY))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path}: not a safetensors file, or cut off or damaged ({error})"
        ) from error
    if header["format"] > 1 and header.get("checksum") != _checksum(tensors):
        raise FileFormatError(
            f"{path}: damaged: the tensors are not those that were written (their checksum differs)"
        )
    return header, tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parse_header(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise FileFormatError(f"{path}: a safetensors file, but not one that spikefold wrote")
    try:
        header = json.loads(text)
        file_format = header["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: the spikefold header is damaged ({error})") from error
    if not isinstance(file_format, int) or file_format > FORMAT:
        raise FileFormatError(
            f"{path}: written by spikefold {header.get('version')} in format {file_format}; this "
            f"spikefold {version('spikefold')} reads up to {FORMAT}: update spikefold"
        )
    return header
