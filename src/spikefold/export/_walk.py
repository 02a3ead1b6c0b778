"""The one walk over a network that all targets share.

`sf.graph` says what is called after what, in the forms that torch's code happens to give: time
apart or merged into the batch, functions that only reshape. Here that becomes a list of operations
of few kinds, each with how time lies in its result and the result's shape without time and batch.
Whatever no target can say is refused here, by the name of the layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.func import functional_call

from spikefold.errors import ExportError
from spikefold.export._known import (
    refused,
    require_batched,
    require_known,
    require_nothing,
    require_plain,
)
from spikefold.graphs import Calls, Graph, Node, graph
from spikefold.models import Network, as_frames
from spikefold.nn import CurrentNorm, SpikingNeuron, merge_time, split_time, twin

# still: the same at all time steps, an image's; steps: another at each; none: the mean over time
Time = Literal["still", "steps", "none"]

Kind = Literal[
    "input",
    "connection",
    "norm",
    "standardize",
    "pool",
    "reshape",
    "add",
    "concatenate",
    "neurons",
    "mean over space",
    "mean over time",
    "output",
]


@dataclass(frozen=True)
class Value:
    """What an operation gives.

    Attributes:
        time: how time lies in it.
        shape: of one sample at one time step: `(C, *spatial)` or `(F,)`.
    """

    time: Time
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One thing that every target must say.

    Attributes:
        kind: what it does; "reshape" keeps the order of the elements, "concatenate" joins channels.
        inputs: names of the operations whose results it takes, in order; "neurons" take currents.
        value: its result.
        node: of `sf.graph`, with the module.
    """

    kind: Kind
    inputs: tuple[str, ...]
    value: Value
    node: Node

    @property
    def name(self) -> str:
        """Unique in its network: letters, digits and underscores."""
        return self.node.name

    @property
    def module(self) -> Any:
        """The module that is called; None of a function."""
        return self.node.module


@dataclass(frozen=True)
class Walk(Calls[Operation]):
    """A network as a target writes it.

    Attributes:
        nodes: the operations; the first is the input, the last the output.
        steps: T of a call.
    """

    steps: int

    def neurons(self) -> list[Operation]:
        """The calls of neurons, in order."""
        return [operation for operation in self.nodes if operation.kind == "neurons"]

    @cached_property
    def labels(self) -> dict[str, str]:
        """The calls of neurons as a user knows them: path of the module, "_2" at its second call.

        By the operation's name.
        """
        found: dict[str, str] = {}
        for operation in self.neurons():
            path = operation.node.path
            calls = sum(self[name].node.path == path for name in found)
            found[operation.name] = f"{path}_{calls + 1}" if calls else path
        return found


def walk(
    network: nn.Module, example: Float[Tensor, "..."] | None = None, steps: int | None = None
) -> Walk:
    """A network, as it runs in evaluation, as operations that a target can say.

    Arguments:
        network: folded, of one input, in float32; not changed.
        example: an image batch `[N, C, H, W]`, or frames `[T, N, C, H, W]`; only its shape counts.
            Default: as the network's `input_spec` says, or the arguments of a model.
        steps: T for images; default: the network's own.

    Raises:
        ExportError: if something cannot be exported; names the layer.
        GraphError: if the network cannot be followed.
    """
    require_plain(network)
    followed = graph(twin(network).eval())
    shape = tuple(_shape(network) if example is None else example.shape)
    return _Walking(followed, shape, steps).walk()


def _shape(network: nn.Module) -> tuple[int, ...]:
    """Of an example input."""
    spec = getattr(network, "input_spec", None)
    if spec is not None:
        *time, channels, height, width = spec.shape
        return (*time, 1, channels, height, width)
    if isinstance(network, Network) and network.arguments.in_channels != 2:
        arguments = network.arguments
        return (1, arguments.in_channels, arguments.image_size, arguments.image_size)
    raise ExportError(
        "export: the network does not say what its input is: give example=, images [N, C, H, W] or "
        "frames [T, N, C, H, W], or set its input_spec"
    )


@dataclass(frozen=True)
class _Seen:
    """A result, while walking.

    Attributes:
        operation: that made it.
        leading: dimensions before the sample's, in torch's code: 2 for time and batch, 1 where
            time is merged into the batch, or gone.
    """

    operation: Operation
    leading: int

    @property
    def value(self) -> Value:
        return self.operation.value


class _Walking:
    """Goes from node to node; `results` is what they gave, by torch.fx's nodes."""

    def __init__(self, followed: Graph, shape: tuple[int, ...], steps: int | None) -> None:
        self.followed, self.shape = followed, shape
        self.steps = self._steps(steps)
        self.results: dict[fx.Node, _Seen] = {}
        self.operations: list[Operation] = []

    def walk(self) -> Walk:
        for node in self.followed.nodes:
            rule = _RULES.get(node.kind)
            if rule is None:
                raise refused(node, _NOT_SAID.get(node.kind, "of a kind that cannot be exported"))
            self.results[node.call] = rule(self, node)
        return Walk(tuple(self.operations), self.steps)

    def _steps(self, asked: int | None) -> int:
        """T, of frames or of the call that shows an image."""
        frames = [node for node in self.followed.nodes if node.call.target is as_frames]
        image = bool(frames) and len(self.shape) == 4
        if not image:
            if asked not in (None, self.shape[0]):
                raise ExportError(f"export: frames of {self.shape[0]} steps, but steps={asked}")
            return self.shape[0]
        _, given, default, _ = frames[0].call.args
        steps = next((s for s in (asked, given, default) if isinstance(s, int)), None)
        if steps is None or steps < 1:
            raise ExportError("export: images have no time dimension: give steps=T, at least 1")
        return steps

    def add(self, node: Node, kind: Kind, inputs: list[_Seen], value: Value, leading: int) -> _Seen:
        names = tuple(seen.operation.name for seen in inputs)
        self.operations.append(Operation(kind, names, value, node))
        return _Seen(self.operations[-1], leading)

    def taken(self, node: Node) -> _Seen:
        """The result that a node takes first."""
        return self.results[node.call.all_input_nodes[0]]


def _input(walking: _Walking, node: Node) -> _Seen:
    shape = walking.shape
    image = len(shape) == 4 and any(n.call.target is as_frames for n in walking.followed.nodes)
    leading = 1 if image else 2
    if len(shape) <= leading or min(shape) < 1:
        raise ExportError(f"export: an input of {list(shape)} has no time, batch or channels")
    return walking.add(
        node, "input", [], Value("still" if image else "steps", shape[leading:]), leading
    )


def _frames(walking: _Walking, node: Node) -> _Seen:
    seen, channels = walking.taken(node), node.call.args[3]
    if seen.operation.kind != "input":
        raise refused(node, "made of something else than the input")
    if channels is not None and channels != seen.value.shape[0]:
        raise ExportError(
            f"export: the network takes {channels} input channels, the example has "
            f"{seen.value.shape[0]}"
        )
    return _Seen(seen.operation, 2)


def _same(walking: _Walking, node: Node) -> _Seen:
    require_nothing(node)
    return walking.taken(node)


def _call(walking: _Walking, node: Node) -> _Seen:
    """A module that takes `[N, ...]`, whatever time is."""
    seen, module = walking.taken(node), node.module
    if module is None:
        raise refused(node, "called as a function: only modules are exported, make it one")
    require_known(node)
    require_batched(node, seen.value.shape)
    leading = 1 if node.merged else seen.leading
    if leading == 2 and not isinstance(module, nn.Linear | CurrentNorm):
        raise refused(node, "takes [N, ...], but is called with time before the batch")
    time = seen.value.time
    if isinstance(module, CurrentNorm) and module.normalization().steps() is not None:
        _require_steps(walking, node, module.normalization().steps())
        time = "steps"
    kind: Any = node.kind
    return walking.add(node, kind, [seen], Value(time, _after(node, seen)), seen.leading)


def _neurons(walking: _Walking, node: Node) -> _Seen:
    seen, module = walking.taken(node), node.module
    assert isinstance(module, SpikingNeuron)
    require_known(node)
    if seen.value.time == "none" or seen.leading != 2:
        raise refused(node, "takes what has no time any more")
    _require_steps(walking, node, module.condition().steps())
    return walking.add(node, "neurons", [seen], Value("steps", seen.value.shape), 2)


def _require_steps(walking: _Walking, node: Node, steps: int | None) -> None:
    if steps not in (None, walking.steps):
        raise refused(node, f"has parameters for {steps} time steps, not for {walking.steps}")


def _after(node: Node, seen: _Seen) -> tuple[int, ...]:
    """The shape of what a module gives for one sample at one time step."""
    module, shape = node.module, seen.value.shape
    assert module is not None
    if isinstance(module, CurrentNorm):
        if shape[:1] != module.shape:
            raise refused(node, f"of {module.shape[0]} channels, but gets {list(shape)}")
        return shape
    tensors = {name: value.to("meta") for name, value in module.state_dict().items()}
    return _tried(node, lambda x: functional_call(module, tensors, (x,)), shape, (1,))


def _tried(
    node: Node, call: Callable[[Tensor], Any], shape: tuple[int, ...], leading: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of one sample after a call on the meta device, which must keep what leads."""
    try:
        result = tuple(call(torch.empty((*leading, *shape), device="meta")).shape)
    except (RuntimeError, ValueError, IndexError) as error:
        raise refused(node, f"does not fit {list(shape)}: {str(error).splitlines()[0]}") from error
    if result[: len(leading)] != leading:
        raise refused(node, "reshapes time or batch away: torch.flatten(x, 1) keeps them")
    return result[len(leading) :]


def _reshape(walking: _Walking, node: Node) -> _Seen:
    seen, target = walking.taken(node), node.call.target
    if target is merge_time:
        return _Seen(seen.operation, 1)
    if target is split_time:
        return _Seen(seen.operation, 2)
    if node.module is None and target not in _IN_ORDER:
        raise refused(node, "moves elements: only flattening and reshaping can be exported")
    leading = (walking.steps, 7) if seen.leading == 2 else (walking.steps * 7,)
    if node.merged:
        leading = (prod(leading),)
    shape = _tried(node, lambda x: _called(node, x), seen.value.shape, leading)
    return walking.add(node, "reshape", [seen], Value(seen.value.time, shape), seen.leading)


def _called(node: Node, x: Tensor) -> Tensor:
    result: Tensor
    if node.module is not None:
        result = node.module(x)
        return result
    args, kwargs = fx.node.map_arg((node.call.args, dict(node.call.kwargs)), lambda _: x)
    target: Any = node.call.target
    function = getattr(torch.Tensor, target) if isinstance(target, str) else target
    result = function(*args, **kwargs)
    return result


def _joined(walking: _Walking, node: Node, operands: Any) -> tuple[list[_Seen], Time]:
    """The results that are added or concatenated, and how time lies in what becomes of them."""
    if node.call.kwargs.keys() - {"dim", "axis", "tensors"} or not all(
        isinstance(operand, fx.Node) for operand in operands
    ):
        raise refused(node, "takes a number or a factor: only results of layers are exported")
    seen = [walking.results[operand] for operand in operands]
    times = {one.value.time for one in seen}
    if ("none" in times and len(times) > 1) or len({one.leading for one in seen}) > 1:
        raise refused(node, "takes results over time and results without it")
    return seen, "steps" if "steps" in times else seen[0].value.time


def _add(walking: _Walking, node: Node) -> _Seen:
    seen, time = _joined(walking, node, node.call.args)
    shapes = [one.value.shape for one in seen]
    if len(shapes) != 2 or shapes[0] != shapes[1]:
        raise refused(node, f"adds {' and '.join(map(str, map(list, shapes)))}, not alike")
    return walking.add(node, "add", seen, Value(time, shapes[0]), seen[0].leading)


def _concatenate(walking: _Walking, node: Node) -> _Seen:
    call = node.call
    operands: Any = call.args[0] if call.args else call.kwargs.get("tensors", ())
    seen, time = _joined(walking, node, operands)
    dim: Any = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)
    first = seen[0]
    channels = {first.leading, -len(first.value.shape)}
    rest = {one.value.shape[1:] for one in seen}
    if call.target is torch.stack or dim not in channels or len(rest) > 1:
        raise refused(node, "only channels are concatenated in an export, of one size")
    shape = (sum(one.value.shape[0] for one in seen), *first.value.shape[1:])
    return walking.add(node, "concatenate", seen, Value(time, shape), first.leading)


def _mean(walking: _Walking, node: Node) -> _Seen:
    seen, call = walking.taken(node), node.call
    shape, leading = seen.value.shape, seen.leading
    given: Any = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim")
    keep = bool(call.args[2] if len(call.args) > 2 else call.kwargs.get("keepdim", False))
    total = leading + len(shape)
    dims = {d % total for d in ([given] if isinstance(given, int) else given or range(total))}
    if dims == {0} and leading == 2 and not keep and seen.value.time != "none":
        return walking.add(node, "mean over time", [seen], Value("none", shape), 1)
    if dims == set(range(leading + 1, total)) and dims:
        shape = (shape[0], *(1,) * (len(shape) - 1) * keep)
        value = Value(seen.value.time, shape)
        return walking.add(node, "mean over space", [seen], value, leading)
    raise refused(node, "only means over time, or over all of space, can be exported")


def _output(walking: _Walking, node: Node) -> _Seen:
    result = node.call.args[0]
    if not isinstance(result, fx.Node):
        raise ExportError("export: the network must give one tensor")
    seen = walking.results[result]
    return walking.add(node, "output", [seen], seen.value, seen.leading)


_IN_ORDER: set[Any] = {
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten),
    *("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "contiguous"),
}
_RULES: dict[str, Callable[[_Walking, Node], _Seen]] = {
    "input": _input,
    "frames": _frames,
    **dict.fromkeys(("identity", "dropout"), _same),
    **dict.fromkeys(("connection", "norm", "standardize", "pool"), _call),
    "neurons": _neurons,
    "reshape": _reshape,
    "add": _add,
    "concatenate": _concatenate,
    "mean": _mean,
    "output": _output,
}
_NOT_SAID = {
    "activation": "an activation that is no spiking neuron: sf.convert makes neurons of ReLUs",
    "constant": "a tensor outside of a module cannot be exported",
    "multiply": "multiplication cannot be exported",
    "pad": "padding of its own cannot be exported: let the convolution pad",
}
