"""Train deep spiking networks with membrane potential batch normalization, and fold it exactly.

import spikefold as sf

network = sf.models.resnet20(num_classes=10, norm="mpbn", steps=4)   # train it as any module
folded = sf.fold(network)                                            # MPBN into the thresholds
record = sf.verify(network, folded, batches)                         # record.mismatches == 0
sf.save(folded, "folded.safetensors")
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spikefold import adopt, dynamics, models
from spikefold.adopt import Converted, convert, from_official, from_snntorch, from_spikingjelly
from spikefold.dynamics import (
    Atan,
    Neuron,
    Rectangle,
    Sigmoid,
    Surrogate,
    Tanh,
    Triangle,
    backend,
)
from spikefold.errors import (
    AdoptError,
    ConfigError,
    DataError,
    FileFormatError,
    FoldError,
    GraphError,
    ShapeError,
    SpikefoldError,
)
from spikefold.folding import Verification, fold, fuse_conv_bn, verify
from spikefold.graphs import Graph, graph
from spikefold.nn import (
    IF,
    LIF,
    MPBN,
    PLIF,
    CurrentNorm,
    FoldedLIF,
    MembraneNorm,
    OverTime,
    SpikingLayer,
    SpikingNeuron,
    State,
    WithSpikes,
    with_spikes,
)
from spikefold.saving import load, save

if TYPE_CHECKING:
    from spikefold import data, recipes, training

__version__ = version("spikefold")
_WHEN_ASKED_FOR = ("data", "recipes", "training")  # they take long to import


def __getattr__(name: str) -> Any:
    if name in _WHEN_ASKED_FOR:
        return import_module(f"spikefold.{name}")
    raise AttributeError(f"module 'spikefold' has no attribute {name!r}")


__all__ = [
    "IF",
    "LIF",
    "MPBN",
    "PLIF",
    "AdoptError",
    "Atan",
    "ConfigError",
    "Converted",
    "CurrentNorm",
    "DataError",
    "FileFormatError",
    "FoldError",
    "FoldedLIF",
    "Graph",
    "GraphError",
    "MembraneNorm",
    "Neuron",
    "OverTime",
    "Rectangle",
    "ShapeError",
    "Sigmoid",
    "SpikefoldError",
    "SpikingLayer",
    "SpikingNeuron",
    "State",
    "Surrogate",
    "Tanh",
    "Triangle",
    "Verification",
    "WithSpikes",
    "adopt",
    "backend",
    "convert",
    "data",
    "dynamics",
    "fold",
    "from_official",
    "from_snntorch",
    "from_spikingjelly",
    "fuse_conv_bn",
    "graph",
    "load",
    "models",
    "recipes",
    "save",
    "training",
    "verify",
    "with_spikes",
]
