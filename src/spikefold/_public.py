"""The public names, each imported from where it is made; `spikefold` shows them."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from spikefold import adopt, data, dynamics, models
from spikefold.adopt import Converted, convert, from_official, from_snntorch, from_spikingjelly
from spikefold.costs import Cost, cost
from spikefold.data import InputSpec
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
    SpikefoldWarning,
)
from spikefold.folding import Verification, fold, fuse_conv_bn, verify
from spikefold.graphs import Graph, graph
from spikefold.inference import Prepared, prepare
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
    # They take long to import: when they are asked for.
    from spikefold import recipes, training

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
    "Cost",
    "CurrentNorm",
    "DataError",
    "FileFormatError",
    "FoldError",
    "FoldedLIF",
    "Graph",
    "GraphError",
    "InputSpec",
    "MembraneNorm",
    "Neuron",
    "OverTime",
    "Prepared",
    "Rectangle",
    "ShapeError",
    "Sigmoid",
    "SpikefoldError",
    "SpikefoldWarning",
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
    "cost",
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
    "prepare",
    "recipes",
    "save",
    "training",
    "verify",
    "with_spikes",
]
