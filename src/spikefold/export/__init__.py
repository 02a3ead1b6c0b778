"""What leaves the framework: networks as files for other software, and the proof beside them."""

from spikefold.export._check import Check, Differences, check
from spikefold.export._deployed import Deployed, deploy
from spikefold.export._description import Description, Layout, file_hash
from spikefold.export._onnx import to_onnx
from spikefold.export._runtimes import RUNTIMES, Runtime, openvino_with
from spikefold.export._torch import to_torch
from spikefold.export._walk import Kind, Operation, Time, Value, Walk, walk

__all__ = [
    "RUNTIMES",
    "Check",
    "Deployed",
    "Description",
    "Differences",
    "Kind",
    "Layout",
    "Operation",
    "Runtime",
    "Time",
    "Value",
    "Walk",
    "check",
    "deploy",
    "file_hash",
    "openvino_with",
    "to_onnx",
    "to_torch",
    "walk",
]
