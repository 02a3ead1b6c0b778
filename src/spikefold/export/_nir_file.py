"""NIR files that spikefold wrote, run by the library they were written for, step after step."""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikefold.adopt import from_nir, read_nir, said_in
from spikefold.errors import ExportError
from spikefold.export._description import Description, begins_with, read_description
from spikefold.export._runtimes import told
from spikefold.nn import Call, observing

Spikes = dict[str, Tensor]  # `[T, N, ...]`, by name of the node
# from a file and frames `[T, N, ...]` to what it gives at each step, and the spikes of some nodes
Run = Callable[[Path, Tensor, list[str]], tuple[Tensor, Spikes]]


def _ours(path: Path, frames: Tensor, names: list[str]) -> tuple[Tensor, Spikes]:
    seen: Spikes = {}

    def see(name: str, call: Call) -> None:
        seen[name.removeprefix("parts.")] = call.fired.spikes

    network = from_nir(path)
    with observing(network, see):
        return network(frames), seen


def _theirs(
    importer: Callable[[Any], nn.Module], path: Path, frames: Tensor, names: list[str]
) -> tuple[Tensor, Spikes]:
    # they print on standard output, which may be for JSON
    with contextlib.redirect_stdout(sys.stderr):
        network = importer(import_module("nir").read(path))
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    for name, steps in seen.items():
        network.get_submodule(name).register_forward_hook(partial(_keep, steps))
    state, outputs = None, []
    for frame in frames:
        y, state = network(frame, state)
        outputs.append(y)
    return torch.stack(outputs), {name: torch.stack(steps) for name, steps in seen.items()}


def _keep(steps: list[Tensor], module: nn.Module, inputs: Any, result: Any) -> None:
    spikes = result[0] if isinstance(result, tuple) else result
    steps.append(spikes.detach().clone())


def _spikingjelly(graph: Any) -> nn.Module:
    made: nn.Module = import_module("spikingjelly.activation_based.nir_exchange").import_from_nir(
        graph
    )
    return made


def _snntorch(graph: Any) -> nn.Module:
    made: nn.Module = import_module("snntorch.import_nir").import_from_nir(graph)
    return made


def _norse(graph: Any) -> nn.Module:
    made: nn.Module = import_module("norse.torch").from_nir(graph)
    return made


OURS = "spikefold"
NIR_RUNTIMES: dict[str, Run] = {
    OURS: _ours,
    "norse": partial(_theirs, _norse),
    "snntorch": partial(_theirs, _snntorch),
    "spikingjelly": partial(_theirs, _spikingjelly),
}


def is_nir(path: Path) -> bool:
    """Whether a file is HDF5, as NIR's are."""
    return begins_with(path, b"\x89HDF\r\n\x1a\n")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # imported without a specification, or None in its place
        return sys.modules[package] is not None


class NIRFile:
    """A NIR file that `to_nir` wrote.

    Arguments:
        path: of the file.

    Attributes:
        description: what it says about itself.
        target: the library that it was written for; "spikefold" if for none.

    Raises:
        ExportError: if it is not one of spikefold's.
        FileFormatError: if it is damaged.
    """

    description: Description

    def __init__(self, path: Path) -> None:
        self.path = path
        said = said_in(read_nir(path))
        text, target = said.get("description"), said.get("target")
        self.description = read_description(path, text if isinstance(text, str) else None)
        self.target = target if isinstance(target, str) and target else OURS

    def runtime(self, name: str | None) -> Run:
        """What runs the file.

        Arguments:
            name: of a library, or "spikefold"; default: the one that the file was written for.

        Raises:
            ExportError: if it was written for another one, or it is not installed.
        """
        name = self.target if name is None else name
        if name not in (self.target, OURS) or name not in NIR_RUNTIMES:
            others = " or ".join(dict.fromkeys((self.target, OURS)))
            raise ExportError(f"{self.path}: was written for {others}, not for {name}")
        if not _is_installed(name):
            raise ExportError(
                f"{self.path}: was written for {name}, which is not installed: install it, or let "
                f"the runtime {OURS!r} run the file"
            )
        return NIR_RUNTIMES[name]

    def run_by(self, runtime: Run) -> Callable[[Tensor], Tensor]:
        """A call from a network's input, images `[N, ...]` or frames `[T, N, ...]`, to its output.

        Arguments:
            runtime: runs the file.
        """
        call = self.watched_by(runtime)
        return lambda x: call(x)[0]

    def watched_by(self, runtime: Run) -> Callable[[Tensor], tuple[Tensor, list[Tensor]]]:
        """The same, with the spikes of the calls of neurons in order, `[T, N, ...]`.

        Arguments:
            runtime: runs the file.

        Raises:
            ExportError: if the library is not installed, or refuses the file.
        """
        layers = [nodes.split() for _, nodes in self.description.neurons]
        names = [node for nodes in layers for node in nodes]

        def call(x: Tensor) -> tuple[Tensor, list[Tensor]]:
            frames = self.description.fitting(self.path, x)
            with told(f"{self.path}: cannot be run"), torch.no_grad():
                output, spikes = runtime(self.path, frames, names)
                # a layer may be several nodes, of which one fires
                found = [torch.stack([spikes[n] for n in nodes]).sum(0) for nodes in layers]
            return output if self.description.timed else output.mean(0), found

        return call
