"""Runs a NIR file in SpikingJelly, snnTorch or Norse: spikes of each node, and the mean output."""

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def run(library: str, path: Path, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What the library makes of `[T, N, ...]`: output `[N, ...]`, and spikes `[T, N, ...]`."""
    nir = importlib.import_module("nir")
    network = IMPORTERS[library](nir.read(path))
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: Any, result: Any) -> None:
            spikes = result[0] if isinstance(result, tuple) else result
            seen.setdefault(name, []).append(spikes.detach().clone())

        return see

    for name, module in network.named_children():
        if type(module).__name__ in ("_NIRStatefulModule", "Leaky", "LIFBoxCell", "IAFCell"):
            module.register_forward_hook(keep(name))
    state, outputs = None, []
    with torch.no_grad():
        for frame in frames:
            y, state = network(frame, state)
            outputs.append(y)
    return torch.stack(outputs).mean(0), {name: torch.stack(s) for name, s in seen.items()}


def _spikingjelly(graph: Any) -> nn.Module:
    importlib.import_module("spikingjelly.logger")
    exchange = importlib.import_module("spikingjelly.activation_based.nir_exchange")
    return exchange.import_from_nir(graph)


def _snntorch(graph: Any) -> nn.Module:
    return importlib.import_module("snntorch.import_nir").import_from_nir(graph)


def _norse(graph: Any) -> nn.Module:
    logging.getLogger().setLevel(logging.ERROR)
    return importlib.import_module("norse.torch").from_nir(graph)


IMPORTERS: dict[str, Callable[[Any], nn.Module]] = {
    "spikingjelly": _spikingjelly,
    "snntorch": _snntorch,
    "norse": _norse,
}
