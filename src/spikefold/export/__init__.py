"""What leaves the framework: networks as files for other software, and the proof beside them."""

from spikefold.export._description import Description, Layout
from spikefold.export._nir import NIRTarget, nir_graph, to_nir
from spikefold.export._onnx import to_onnx
from spikefold.export._walk import Kind, Operation, Time, Value, Walk, walk

__all__ = [
    "Description",
    "Kind",
    "Layout",
    "NIRTarget",
    "Operation",
    "Time",
    "Value",
    "Walk",
    "nir_graph",
    "to_nir",
    "to_onnx",
    "walk",
]
