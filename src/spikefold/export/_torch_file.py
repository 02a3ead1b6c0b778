"""Programs of torch.export that spikefold wrote, read again without executing what is in them."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from spikefold.errors import ExportError
from spikefold.export._description import KEY, Description, begins_with, read_description
from spikefold.export._runtimes import told
from spikefold.export._torch_program import Program, tensor_of

TORCH = "torch"  # what runs them


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, as programs of torch are."""
    return begins_with(path, b"PK\x03\x04")


class TorchFile:
    """A program that `to_torch` wrote.

    Arguments:
        path: of the file.

    Attributes:
        description: what it says about itself.

    Raises:
        ExportError: if it is not one of spikefold's, is compiled, or damaged.
    """

    description: Description

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _content(path)
        if any(name.startswith("data/aotinductor/") for name in content):
            raise ExportError(
                f"{path}: compiled: to load it is to run its machine code, which check does not; "
                "check the program without --compile"
            )
        if "models/model.json" not in content:
            raise ExportError(f"{path}: no program of torch.export, or damaged")
        text = content.get(f"extra/{KEY}")
        self.description = read_description(
            path, None if text is None else text.decode("utf-8", "replace")
        )
        try:
            self._program = _program(content)
        except Exception as error:  # of many kinds: whatever the text of a file leads to
            raise ExportError(
                f"{path}: no program as torch {torch.__version__} writes it, or damaged "
                f"({_reason(error)})"
            ) from error
        self._require_spikes()

    def run(self, x: Tensor) -> Tensor:
        """The network's output, for images `[N, ...]` or frames `[T, N, ...]`."""
        return self.watch(x)[0]

    @torch.no_grad()
    def watch(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output, and the spikes of the calls of neurons in order, `[T, N, ...]`.

        Raises:
            ExportError: if the input does not fit, or the program cannot be run.
        """
        fed = self.description.fitting(self.path, x)
        names = [name for _, name in self.description.neurons]
        output, *_ = self._program.outputs
        with told(f"{self.path}: cannot be run"):
            if self.description.layout != "step":
                values = self._program(fed)
                return values[output], [values[name] for name in names]
            steps = self._steps(fed)
            outputs = torch.stack([values[output] for values in steps])
            spikes = [torch.cat([values[name] for values in steps]) for name in names]
            return outputs if self.description.timed else outputs.mean(0), spikes

    def _steps(self, frames: Tensor) -> list[dict[str, Any]]:
        """The values of every step, from rest."""
        _, *names = self._program.inputs
        v = [torch.zeros(frames.shape[1], *self._program.shape(name)) for name in names]
        steps = []
        for frame in frames:
            steps.append(self._program(frame, *v))
            v = [steps[-1][name] for name in self._program.outputs[1:]]
        return steps

    def _require_spikes(self) -> None:
        for neurons, name in self.description.neurons:
            if name not in self._program.made:
                raise ExportError(
                    f"{self.path}: the spikes of '{neurons}' are not in it: it was changed"
                )


def _content(path: Path) -> dict[str, bytes]:
    """The files of an archive by name, without the folder in which all lie."""
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
            # as torch writes them, so that what is read is no larger than the archive
            packed = any(entry.compress_type != ZIP_STORED for entry in entries)
            if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise ValueError("it is packed")
            return {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
    except Exception as error:  # zipfile raises whatever a damaged archive leads it to
        raise ExportError(
            f"{path}: no program of torch.export, or damaged ({_reason(error)})"
        ) from error


def _program(content: dict[str, bytes]) -> Program:
    model = json.loads(content["models/model.json"])
    return Program(
        model["graph_module"], {**_tensors(content, "weights"), **_tensors(content, "constants")}
    )


def _tensors(content: dict[str, bytes], kind: str) -> dict[str, Tensor]:
    folder = f"data/{kind}"
    entries = json.loads(content[f"{folder}/model_{kind}_config.json"])["config"]
    return {
        name: tensor_of(content[f"{folder}/{entry['path_name']}"], entry)
        for name, entry in entries.items()
    }


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    return f"{kind}: {' '.join(str(error).split())[:200]}" if str(error) else kind
