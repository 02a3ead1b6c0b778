"""The public names, each imported from where it is made; `spikefold` shows them."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from spikefold import adopt, data, dynamics, export, models
from spikefold.adopt import (
    Converted,
    convert,
    from_nir,
    from_official,
    from_snntorch,
    from_spikingjelly,
)
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
    ExportError,
    FileFormatError,
    FoldError,
    GraphError,
    ShapeError,
    SpikefoldError,
    SpikefoldWarning,
)
from spikefold.export import Check, Deployed, check, deploy, to_nir, to_onnx, to_torch
from spikefold.folding import Verification, fold, fuse_conv_bn, verify
from spikefold.graphs import Graph, graph
from spikefold.inference import Prepared, prepare
from spikefold.models import per_step
from spikefold.nn import (
    BNTT,
    IF,
    LIF,
    MPBN,
    PLIF,
    TAB,
    TEBN,
    CurrentAffine,
    CurrentNorm,
    FoldedLIF,
    MembraneNorm,
    OverTime,
    SpikingLayer,
    SpikingNeuron,
    State,
    TdBN,
    WithSpikes,
    with_spikes,
)
from spikefold.saving import load, save

if TYPE_CHECKING:
    # They take long to import: when they are asked for.
    from spikefold import recipes, training

__version__ = version("spikefold")

__all__ = [
    "BNTT",
    "IF",
    "LIF",
    "MPBN",
    "PLIF",
    "TAB",
    "TEBN",
    "AdoptError",
    "Atan",
    "Check",
    "ConfigError",
    "Converted",
    "Cost",
    "CurrentAffine",
    "CurrentNorm",
    "DataError",
    "Deployed",
    "ExportError",
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
    "TdBN",
    "Triangle",
    "Verification",
    "WithSpikes",
    "adopt",
    "backend",
    "check",
    "convert",
    "cost",
    "data",
    "deploy",
    "dynamics",
    "export",
    "fold",
    "from_nir",
    "from_official",
    "from_snntorch",
    "from_spikingjelly",
    "fuse_conv_bn",
    "graph",
    "load",
    "models",
    "per_step",
    "prepare",
    "recipes",
    "save",
    "to_nir",
    "to_onnx",
    "to_torch",
    "training",
    "verify",
    "with_spikes",
]
