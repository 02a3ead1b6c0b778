"""The public names, each imported from where it is made; `spikefold` shows them."""

from importlib.metadata import version

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

__version__ = version("spikefold")

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
    "dynamics",
    "fold",
    "from_official",
    "from_snntorch",
    "from_spikingjelly",
    "fuse_conv_bn",
    "graph",
    "load",
    "models",
    "save",
    "verify",
    "with_spikes",
]
