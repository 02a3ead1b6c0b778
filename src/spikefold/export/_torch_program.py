"""The graph of a program of torch.export, read as data and run operator by operator.

`torch.export.load` is not called: of a file it unpickles what is marked so (`weights_only` is off),
opens machine code, evaluates sizes (sympy) and guards (`exec`), imports what a tree names, and
writes names into source code. Here, text from a file is a key of a dictionary and nothing else.
"""

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# of torch.export's schema
_DTYPES = {
    **{1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64},
    **{6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16},
}
_MEMORY = {
    **{1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d},
    4: torch.preserve_format,
}
# What networks consist of that an export can say: none reads files, or trusts what it is given.
_OPERATORS = {
    *("conv1d", "conv2d", "conv3d", "linear", "addmm", "mm", "matmul", "batch_norm"),
    *(
        f"{kind}_pool{n}d"
        for n in (1, 2, 3)
        for kind in ("avg", "adaptive_avg", "max", "adaptive_max")
    ),
    *("add", "sub", "rsub", "mul", "div", "neg", "sqrt", "rsqrt", "reciprocal", "exp", "sigmoid"),
    *("gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not", "where"),
    *("mean", "sum", "abs", "clamp", "cat", "stack", "unbind", "select", "slice", "expand", "to"),
    *("clone", "contiguous", "alias", "detach", "flatten", "unflatten", "reshape", "view"),
    *("squeeze", "unsqueeze", "transpose", "permute", "zeros_like", "ones_like", "full_like"),
    *("lift_fresh_copy", "sym_size"),
}
_OF_SIZES: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "mod", "neg")
}


def tensor_of(content: bytes, entry: dict[str, Any]) -> Tensor:
    """A tensor of an archive.

    Arguments:
        content: of its file.
        entry: what the archive says about it.

    Raises:
        ValueError: if it is pickled.
    """
    if entry["use_pickle"]:
        raise ValueError("a tensor is pickled")
    meta = entry["tensor_meta"]
    sizes, strides = ([_number(n) for n in meta[key]] for key in ("sizes", "strides"))
    flat = torch.empty(0, dtype=_DTYPES[meta["dtype"]])
    if content:  # torch warns of memory that must not be written to
        flat = torch.frombuffer(bytearray(content), dtype=flat.dtype)
    # refuses what lies beyond the content
    return flat.as_strided(sizes, strides, _number(meta["storage_offset"]))


class Program:
    """What a program computes.

    Arguments:
        graph_module: of the archive's model.
        tensors: weights and constants, by name.

    Attributes:
        inputs, outputs: names of the tensors that a call takes and gives, in order.
        made: names of the tensors that operators make.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: if it is damaged, or has
            operators that no network of spikefold has.
    """

    def __init__(self, graph_module: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        graph, signature = graph_module["graph"], graph_module["signature"]
        self._stay: dict[str, Any] = {}
        self.inputs: list[str] = []
        for each in signature["input_specs"]:
            ((kind, spec),) = each.items()
            if kind == "user_input":
                # a number is one that is fixed, as `steps`
                self.inputs += [spec["arg"]["as_tensor"]["name"]] * ("as_tensor" in spec["arg"])
            else:
                self._stay[spec["arg"]["name"]] = tensors[spec[_NAMED[kind]]]
        self.outputs: list[str] = [
            spec["user_output"]["arg"]["as_tensor"]["name"] for spec in signature["output_specs"]
        ]
        self._nodes = [_Node(node) for node in graph["nodes"]]
        self.made = {name for node in self._nodes for name in node.made}
        self._values = graph["tensor_values"]

    def shape(self, name: str) -> list[int]:
        """Of one sample of an input, `[N, ...]`."""
        return [_number(size) for size in self._values[name]["sizes"][1:]]

    def __call__(self, *inputs: Tensor) -> dict[str, Any]:
        """All values, by name.

        Arguments:
            inputs: in the order of `inputs`.
        """
        values = self._stay | dict(zip(self.inputs, inputs, strict=True))
        for node in self._nodes:
            node.run(values)
        return values


_NAMED = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


class _Node:
    """One operator; without outputs, one that only asserts."""

    def __init__(self, node: dict[str, Any]) -> None:
        self._outputs = [output for output in node["outputs"] if "as_none" not in output]
        self.made = [o["as_tensor"]["name"] for o in self._outputs if "as_tensor" in o]
        self._arguments = {entry["name"]: entry["arg"] for entry in node["inputs"]}
        self._call: Callable[..., Any] = lambda **_: None
        if self._outputs:
            self._call = _found(node["target"])

    def run(self, values: dict[str, Any]) -> None:
        """Add its results to the values."""
        if not self._outputs:
            return
        arguments = {name: _argument(arg, values) for name, arg in self._arguments.items()}
        result = self._call(**arguments)
        results = [result] if len(self._outputs) == 1 else result
        for output, value in zip(self._outputs, results, strict=True):
            ((kind, given),) = output.items()
            if kind == "as_tensors":
                values |= zip((each["name"] for each in given), value, strict=True)
            else:
                values[given["name" if kind == "as_tensor" else "as_name"]] = value


def _found(target: str) -> Callable[..., Any]:
    if target in _OF_SIZES:
        function = _OF_SIZES[target]
        return lambda **arguments: function(*arguments.values())
    known = re.fullmatch(r"torch\.ops\.aten\.([a-z_0-9]+)\.([A-Za-z]\w*)", target, re.ASCII)
    if known is None or known[1] not in _OPERATORS:
        raise ValueError(f"the operator {target!r}, which no export of spikefold has")
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, known[1]), known[2])
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"{target!r} is no operator")
    return found


def _argument(arg: dict[str, Any], values: dict[str, Any]) -> Any:
    ((kind, given),) = arg.items()
    if kind in _READ:
        return _READ[kind](given)
    if kind == "as_tensor":
        return values[given["name"]]
    if kind == "as_tensors":
        return [values[each["name"]] for each in given]
    if kind == "as_sym_int":
        return _size(given, values)
    if kind == "as_sym_ints":
        return [_size(each, values) for each in given]
    raise ValueError(f"an argument of kind {kind!r}")


_READ: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_int": int,
    "as_float": float,
    "as_bool": bool,
    "as_ints": lambda given: [int(each) for each in given],
    "as_floats": lambda given: [float(each) for each in given],
    "as_string": {"same": "same", "valid": "valid"}.__getitem__,  # padding
    "as_scalar_type": _DTYPES.__getitem__,
    "as_memory_format": _MEMORY.__getitem__,
    "as_device": lambda _: torch.device("cpu"),
    "as_layout": lambda _: torch.strided,
}


def _size(given: dict[str, Any], values: dict[str, Any]) -> int:
    return int(values[given["as_name"]] if "as_name" in given else given["as_int"])


def _number(given: dict[str, Any]) -> int:
    return int(given["as_int"])
