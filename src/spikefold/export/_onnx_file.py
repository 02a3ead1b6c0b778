"""ONNX files that spikefold wrote, read again: run with all of their spikes as outputs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from spikefold.errors import ExportError
from spikefold.export._description import INPUT, KEY, OUTPUT, Description, read_description
from spikefold.export._runtimes import Arrays, Call, Runtime, told


class OnnxFile:
    """An ONNX file that `to_onnx` wrote.

    Arguments:
        path: of the file.

    Attributes:
        description: what it says about itself.

    Raises:
        ExportError: if it is absent, no ONNX file, or not one of spikefold's.
    """

    description: Description

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._model = onnx.load(path, load_external_data=False)
            onnx.checker.check_model(self._model)
        except OSError as error:
            raise ExportError(f"{path}: cannot be read: {error.strerror}") from error
        except Exception as error:  # protobuf's and the checker's are of several kinds
            raise ExportError(
                f"{path}: no ONNX file, torch program or NIR file, or damaged"
            ) from error
        texts = {entry.key: entry.value for entry in self._model.metadata_props}
        self.description = read_description(path, texts.get(KEY))

    def run_by(self, runtime: Runtime) -> Callable[[Tensor], Tensor]:
        """A call from a network's input, images `[N, ...]` or frames `[T, N, ...]`, to its output.

        Arguments:
            runtime: runs the file.

        Raises:
            ExportError: if it cannot.
        """
        call = self._started(runtime, self._model)

        def run(x: Tensor) -> Tensor:
            with self._told():
                return _tensor(self._run(call, x)[OUTPUT])

        return run

    def watched_by(self, runtime: Runtime) -> Callable[[Tensor], tuple[Tensor, list[Tensor]]]:
        """The same of a copy whose spikes are outputs as well.

        Arguments:
            runtime: runs the copy.

        Returns:
            gives the output, and the spikes of the calls of neurons in order, `[T, N, ...]`.

        Raises:
            ExportError: if it cannot, or if the spikes are not in the file.
        """
        names, model = _with_spikes(self.path, self._model, self.description)
        call = self._started(runtime, model)

        def run(x: Tensor) -> tuple[Tensor, list[Tensor]]:
            with self._told():
                results = self._run(call, x)
                spikes = [self._over_time(results[name]) for name in names]
                return _tensor(results[OUTPUT]), spikes

        return run

    def _started(self, runtime: Runtime, model: onnx.ModelProto) -> Call:
        with self._told():
            return runtime(model.SerializeToString())

    def _told(self) -> AbstractContextManager[None]:
        return told(f"{self.path}: cannot be run")

    def _run(self, call: Call, x: Tensor) -> Arrays:
        """All outputs; of the layout "step" those of all steps."""
        description = self.description
        fed: np.ndarray = description.fitting(self.path, x).contiguous().numpy()
        if description.layout != "step":
            return call({INPUT: fed})
        v = self._rest(fed.shape[1])
        steps: list[Arrays] = []
        inputs = {known.name for known in self._model.graph.input}
        for t, frame in enumerate(fed):
            time = {"t": np.array(t)} if "t" in inputs else {}
            steps.append(call({INPUT: frame, **v, **time}))
            v = {name: steps[-1][f"{name}.next"] for name in v}
        results = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
        return results if description.timed else results | {OUTPUT: results[OUTPUT].mean(0)}

    def _rest(self, batch: int) -> Arrays:
        return {
            known.name: np.zeros(
                (batch, *(size.dim_value for size in known.type.tensor_type.shape.dim[1:])),
                np.float32,
            )
            for known in self._model.graph.input
            if known.name.endswith(".v")
        }

    def _over_time(self, spikes: np.ndarray) -> Tensor:
        """Spikes as `[T, N, ...]`."""
        value = _tensor(spikes)
        if self.description.layout != "merged":
            return value
        return value.unflatten(0, (self.description.steps, -1))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _with_spikes(
    path: Path, model: onnx.ModelProto, description: Description
) -> tuple[list[str], onnx.ModelProto]:
    """The names of all spikes as outputs, and a copy of the model that has them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    loops = [node for node in graph.node if node.op_type == "Scan"]
    inner: Any = loops[0].attribute[_body(loops[0])].g if loops else graph
    made = {name for node in inner.node for name in node.output}
    names = []
    for neurons, name in description.neurons:
        if name not in made:
            raise ExportError(f"{path}: the spikes of '{neurons}' are not in it: it was changed")
        inner.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        if loops:
            name = f"{name}.seen"
            loops[0].output.append(name)
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        names.append(name)
    return names, copy


def _body(loop: onnx.NodeProto) -> int:
    return next(i for i, attribute in enumerate(loop.attribute) if attribute.name == "body")
