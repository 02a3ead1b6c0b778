"""What leaves the framework: networks as files for other software, and the proof beside them."""

from spikefold.export._check import Check, Differences, check, describe, require_runtime
from spikefold.export._deployed import Deployed, deploy
from spikefold.export._description import Description, Layout, file_hash
from spikefold.export._nir import NIRTarget, nir_graph, to_nir
from spikefold.export._nir_file import NIR_RUNTIMES
from spikefold.export._onnx import to_onnx
from spikefold.export._runtimes import RUNTIMES, Runtime, openvino_with, require_installed
from spikefold.export._torch import to_torch
from spikefold.export._torch_file import TORCH
from spikefold.export._walk import Kind, Operation, Time, Value, Walk, walk

__all__ = [
    "NIR_RUNTIMES",
    "RUNTIMES",
    "TORCH",
    "Check",
    "Deployed",
    "Description",
    "Differences",
    "Kind",
    "Layout",
    "NIRTarget",
    "Operation",
    "Runtime",
    "Time",
    "Value",
    "Walk",
    "check",
    "deploy",
    "describe",
    "file_hash",
    "nir_graph",
    "openvino_with",
    "require_installed",
    "require_runtime",
    "to_nir",
    "to_onnx",
    "to_torch",
    "walk",
]
