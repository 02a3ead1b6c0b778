"""One file a network: safetensors, with a JSON header that rebuilds it. Nothing is executed."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from spikefold.errors import ConfigError, FileFormatError
from spikefold.folding import SHAPES
from spikefold.models import Arguments, Network, build
from spikefold.nn import FoldedLIF
from spikefold.plain import from_plain, to_plain

FORMAT = 1
_KEY = "spikefold"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when all went well.

    Raises:
        FileFormatError: if the directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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


@dataclass
class Stored:
    """A network read from a file, and what else the file holds.

    Attributes:
        network: rebuilt, with the stored weights, in evaluation mode.
        extra: plain data that was stored with it.
        tensors: tensors that were stored with it (an optimizer's state, say).
    """

    network: Network
    extra: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def save(
    network: Network,
    path: str | Path,
    *,
    extra: dict[str, Any] | None = None,
    tensors: dict[str, Tensor] | None = None,
) -> None:
    """Write a network into one safetensors file; the header says how to rebuild it.

    The file is written under a temporary name and renamed, so that it is never half there.

    Arguments:
        network: a model of `spikefold.models`, trained, folded or fused.
        path: file to write, usually `*.safetensors`.
        extra: plain data to keep with it.
        tensors: further tensors to keep with it.

    Raises:
        ConfigError: if the network was not built by `spikefold.models`.
        FileFormatError: if the file cannot be written.
    """
    if not isinstance(network, Network):
        raise ConfigError(
            f"save: a {type(network).__name__} cannot be rebuilt from a file: only networks of "
            "spikefold.models can; for others store state_dict() with safetensors"
        )
    header = {
        "format": FORMAT,
        "version": version("spikefold"),
        "model": network.name,
        "arguments": to_plain(network.arguments),
        "transforms": network.transforms,
        "extra": extra or {},
    }
    stored = {f"network.{key}": value for key, value in network.state_dict().items()}
    stored |= {f"extra.{key}": value for key, value in (tensors or {}).items()}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in stored.items()}
    with replacing(Path(path)) as temporary:
        safetensors.torch.save_file(contiguous, temporary, {_KEY: json.dumps(header)})


def load(path: str | Path) -> Network:
    """The network of a file that `save` wrote, in evaluation mode, on the CPU.

    Arguments:
        path: the file.

    Raises:
        FileFormatError: if the file is absent, cut off, foreign, of a newer format, or its
            tensors do not fit its model.

    Example:
        >>> import tempfile, torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sf.save(network, f"{folder}/folded.safetensors")
        ...     again = sf.load(f"{folder}/folded.safetensors")
        >>> images = torch.rand(2, 1, 8, 8)
        >>> torch.equal(network(images), again(images))
        True
    """
    return read(path).network


def read(path: str | Path) -> Stored:
    """All that is in a file that `save` wrote.

    Arguments:
        path: the file.

    Raises:
        FileFormatError: as `load` does.
    """
    path = Path(path)
    header, tensors = _read_raw(path)
    state = {
        key.removeprefix("network."): value
        for key, value in tensors.items()
        if key.startswith("network.")
    }
    try:
        with torch.device("meta"):  # shapes only: no random numbers, no memory
            arguments = from_plain(header["arguments"], Arguments, "arguments")
            network = build(header["model"], arguments)
            if any(value.dtype == torch.float64 for value in state.values()):
                network = network.double()  # before the fold, whose thresholds keep their dtype
            for name in header["transforms"]:
                network = SHAPES[name](network)
        extra = header["extra"]
    except (ConfigError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: the header does not describe a network: {error}") from error
    for name, module in network.named_modules():
        # format 1 left out what is +1 everywhere
        if isinstance(module, FoldedLIF):
            ones = torch.ones(module.theta.shape, dtype=module.theta.dtype)
            state.setdefault(f"{name}.polarity", ones)
    wanted = network.state_dict()
    for key, value in state.items():
        # thresholds hold for their dtype only: the layer refuses another
        if key in wanted and not key.endswith((".theta", ".polarity")):
            state[key] = value.to(wanted[key].dtype)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split("\n\t")[1:2]) or str(error)
        raise FileFormatError(
            f"{path}: the tensors do not fit model {header['model']}: {problem.strip()}"
        ) from error
    others = {
        key.removeprefix("extra."): value
        for key, value in tensors.items()
        if key.startswith("extra.")
    }
    return Stored(network.eval(), extra, others)


def _read_raw(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors; the header is checked before the tensors are read."""
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
    return header, tensors


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
