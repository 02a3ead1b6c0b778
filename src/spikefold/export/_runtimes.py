"""Programs that run ONNX files: each makes of a model's bytes a call from inputs to outputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from spikefold.errors import ExportError
from spikefold.export._needs import needed
from spikefold.registry import unknown

Arrays = dict[str, np.ndarray]
Call = Callable[[Arrays], Arrays]  # from inputs to outputs, by name
Runtime = Callable[[bytes], Call]

# package of a runtime, and the extra that installs it
PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "openvino": ("openvino", "openvino"),
    "reference": ("onnx", "export"),
}


def _package(runtime: str) -> Any:
    package, extra = PACKAGES[runtime]
    return needed(package, "the runtime", extra)


def onnxruntime(model: bytes) -> Call:
    """ONNX Runtime on the CPU, with its default optimizations and as many threads as torch has."""
    package = _package("onnxruntime")
    options = package.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised: no lines of its own
    session = package.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def openvino(model: bytes) -> Call:
    """OpenVINO on the CPU with torch's threads, in float32: some processors tempt to bfloat16."""
    threads = torch.get_num_threads()
    return openvino_with(INFERENCE_PRECISION_HINT="f32", INFERENCE_NUM_THREADS=threads)(model)


def openvino_with(**settings: Any) -> Runtime:
    """OpenVINO with settings of yours.

    Arguments:
        settings: of `compile_model`.
    """

    def runtime(model: bytes) -> Call:
        core = _package("openvino").Core()
        compiled = core.compile_model(core.read_model(model), "CPU", settings)

        def call(feed: Arrays) -> Arrays:
            results = compiled(feed)
            # one result may go by several names
            return {
                name: np.array(results[port]) for port in compiled.outputs for name in port.names
            }

        return call

    return runtime


def reference(model: bytes) -> Call:
    """The definition of ONNX in numpy, of the package onnx; slow."""
    _package("reference")
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda feed: dict(zip(evaluator.output_names, evaluator.run(None, feed), strict=True))


RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "reference": reference,
}


def find_runtime(runtime: str | Runtime) -> Runtime:
    """A runtime by its name, or the one that is given.

    Raises:
        ExportError: if there is none of that name.
    """
    if not isinstance(runtime, str):
        return runtime
    if runtime not in RUNTIMES:
        raise ExportError(f"check: {unknown('runtime', runtime, RUNTIMES)}")
    return RUNTIMES[runtime]


def require_installed(name: str) -> None:
    """Refuse a runtime of ONNX files that is unknown or not installed.

    Arguments:
        name: of the runtime.

    Raises:
        ExportError: if so; says which extra installs it.
    """
    find_runtime(name)
    _package("reference")  # onnx itself, of which the file is made
    _package(name)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Whatever a runtime raises as one line: each has exceptions of its own.

    Arguments:
        what: it was doing.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(f"{what}: {reason[:300]}") from error
