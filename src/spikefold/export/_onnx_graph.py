"""An ONNX graph as it grows: nodes, constants, and names that are free."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor


class Builder:
    """Collects the nodes, constants, inputs and outputs of one graph.

    Arguments:
        inside: begins the names of what is neither input nor output.
        outside: begins the names of those that are.
    """

    def __init__(self, inside: str = "/", outside: str = "") -> None:
        self.inside, self.outside = inside, outside
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._taken: set[str] = set()

    def _name(self, wish: str) -> str:
        """A name nobody has."""
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name

    def constant(self, value: Tensor | np.ndarray | Sequence[int] | float, wish: str) -> str:
        """A tensor that is stored: floats as float32, whole numbers as int64; equal ones once."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = (array.tobytes(), array.shape, array.dtype.kind)
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, self._name(self.inside + wish))
        return self._constants[key].name

    def add(self, kind: str, inputs: Sequence[str], wish: str, **attributes: Any) -> str:
        """A node of one result."""
        return self.add_many(kind, inputs, [wish], **attributes)[0]

    def add_many(
        self, kind: str, inputs: Sequence[str], wishes: Sequence[str], **attributes: Any
    ) -> list[str]:
        """A node of several results."""
        names = [self._name(self.inside + wish.removeprefix(self.inside)) for wish in wishes]
        self._node(kind, inputs, names, **attributes)
        return names

    def _node(self, kind: str, inputs: Sequence[str], names: list[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))

    def take(self, wish: str, *shape: int | str | None, whole: bool = False) -> str:
        """An input of the graph; sizes that are names, or None, may be any; whole is int64."""
        name = self._name(self.outside + wish)
        self.inputs.append(_tensor(name, shape, whole))
        return name

    def give(self, result: str, wish: str, *shape: int | str | None) -> str:
        """An output of the graph under a name that the outside knows."""
        name = self._name(self.outside + wish)
        self._node("Identity", [result], [name])
        self.outputs.append(_tensor(name, shape))
        return name

    def graph(self, name: str) -> onnx.GraphProto:
        """The whole."""
        constants = list(self._constants.values())
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, constants)


def _tensor(
    name: str, shape: Sequence[int | str | None], whole: bool = False
) -> onnx.ValueInfoProto:
    kind = TensorProto.INT64 if whole else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, list(shape))
