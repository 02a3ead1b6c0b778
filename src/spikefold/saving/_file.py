"""The file: tensors and a JSON header, written whole, checked before it is used."""

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from spikefold.data import InputSpec
from spikefold.errors import ConfigError, FileFormatError
from spikefold.models import Arguments, Parts
from spikefold.plain import from_plain, to_plain
from spikefold.registry import registered_only
from spikefold.replacing import replacing

# 2: any module, transforms by path, input, checksum
FORMAT = 2
_KEY = "spikefold"


@dataclass(frozen=True)
class Header:
    """What a file says about its tensors.

    Attributes:
        module: class of the network.
        transforms: what was done to it, each with the path of the part to which it was done.
        extra: plain data of the caller's.
        model, arguments: what rebuilds it, of a model of `spikefold.models`.
        parts: of a NIR graph, besides the arguments.
        input: how its input is read, where that is known.
        format: of the file.
        version: of the spikefold that wrote it.
        checksum: SHA-256 of the tensors, from format 2 on.
    """

    module: str = ""
    transforms: tuple[tuple[str, str], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    arguments: Arguments | None = None
    parts: Parts | None = None
    input: InputSpec | None = None
    format: int = FORMAT
    version: str = version("spikefold")
    checksum: str = ""


def write_file(path: Path, header: Header, tensors: dict[str, Tensor]) -> None:
    """Write header and tensors, or nothing at all.

    Arguments:
        path: file to write.
        header: without a checksum, which is added.
        tensors: by name.

    Raises:
        FileFormatError: if the file cannot be written.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    plain = to_plain(header)
    try:
        # as it will be read: keys are text
        plain = json.loads(json.dumps(plain))
        text = json.dumps(plain | {"checksum": checksum(plain, whole)})
    except (TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"cannot write {path}: extra is not plain data ({error})") from error
    with replacing(path) as temporary:
        # copies: tensors that share memory are stored each
        copies = {name: value.clone() for name, value in whole.items()}
        try:
            safetensors.torch.save_file(copies, temporary, {_KEY: text})
        except safetensors.SafetensorError as error:
            raise FileFormatError(f"cannot write {path}: {error}") from error


def read_file(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors; the header is checked before the tensors are read.

    Arguments:
        path: the file.

    Raises:
        FileFormatError: if the file is absent, cut off, foreign, damaged or of a newer format.
    """
    if path.is_dir():
        raise FileFormatError(f"{path}: a folder: give the network file in it")
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            plain = _parsed(path, (file.metadata() or {}).get(_KEY))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path}: not a safetensors file, or cut off or damaged ({error})"
        ) from error
    if plain["format"] > 1 and plain.get("checksum") != checksum(plain, tensors):
        raise FileFormatError(f"{path}: damaged: its checksum differs from the one written")
    try:
        # a file must not choose which code is imported
        with registered_only():
            return from_plain(plain, Header, "header"), tensors
    except ConfigError as error:
        raise FileFormatError(f"{path}: the header does not describe a network: {error}") from error


def checksum(plain: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the header, and over the names, dtypes, shapes and bytes of the tensors.

    Arguments:
        plain: the header; a checksum in it is left out.
        tensors: by name.
    """
    header = {key: value for key, value in plain.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parsed(path: Path, text: str | None) -> dict[str, Any]:
    """The header as plain data of the newest format, of which only the format is checked."""
    if text is None:
        raise FileFormatError(f"{path}: a safetensors file, but not one that spikefold wrote")
    try:
        plain: dict[str, Any] = json.loads(text)
        file_format = plain["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{path}: the spikefold header is damaged ({error})") from error
    if not isinstance(file_format, int) or not 1 <= file_format <= FORMAT:
        raise FileFormatError(
            f"{path}: written by spikefold {plain.get('version')} in format {file_format}; this "
            f"spikefold {version('spikefold')} reads 1 to {FORMAT}: update spikefold"
        )
    if file_format == 1:  # had transforms of the whole network only
        names = plain.get("transforms")
        names = names if isinstance(names, list) else [names]
        plain["transforms"] = [("", name) for name in names]
    return plain
