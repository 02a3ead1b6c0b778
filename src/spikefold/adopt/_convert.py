"""A convolutional network becomes a spiking one: every call of a ReLU becomes neurons.

The body is a `torch.fx.GraphModule`. Values in it have one of two forms: `[T, N, ...]`, in and out
of spiking layers, or time merged into the batch, `[T·N, ...]`, for all that the network did with
`[N, ...]`. Between the two stand `merge_time` and `split_time`, only where the form changes: so an
image that is shown T times is still convolved once.
"""

import operator
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

from spikefold.dynamics import Neuron
from spikefold.errors import ConfigError
from spikefold.graphs import Graph, Node, graph
from spikefold.models import Norm, as_frames, initialize, membrane_norm
from spikefold.nn import LIF, SpikingLayer, copied, merge_time, split_time


class Converted(nn.Module):
    """A spiking network that was made of another one; see `convert`.

    Attributes:
        body: from frames `[T, N, ...]` to what the network gave, at every step.
        steps: how often an image is shown where `forward` is not told.
        channels: of the input, where they are known.
    """

    def __init__(self, body: fx.GraphModule, steps: int, channels: int | None) -> None:
        super().__init__()
        self.body = body
        self.steps = steps
        self.channels = channels

    def forward(self, x: Float[Tensor, "..."], steps: int | None = None) -> Float[Tensor, "N ..."]:
        """What the network gave, its mean over time.

        Arguments:
            x: images `[N, C, H, W]`, shown for `steps` steps; or frames `[T, N, C, H, W]`.
            steps: number of time steps T; default: the network's own for images.

        Raises:
            ShapeError: if a dimension is missing, channels or steps do not fit.
        """
        result: Tensor = self.body(as_frames(x, steps, self.steps, self.channels))
        return result.mean(0)


def convert(
    cnn: nn.Module,
    steps: int,
    norm: Norm = "mpbn",
    *,
    weights: bool = False,
    example: Float[Tensor, "N C H W"] | None = None,
    neuron: Neuron | None = None,
) -> Converted:
    """A spiking network of the same structure, with neurons where the network calls a ReLU.

    Each call of a ReLU or ReLU6 becomes neurons of its own, in a `SpikingLayer` with the
    convolution or linear layer, the batch norm and the residual addition that lead to it. All else
    is taken along as it is: pooling, dropout, flattening, concatenation, layers without a ReLU
    behind them. Train it, then `fold`, `verify`, `fuse_conv_bn`, `save` it as any network.

    Arguments:
        cnn: any network for images that `sf.graph` can follow; not changed.
        steps: T, how often an image is shown; `forward` can be told otherwise.
        norm: of the membrane potentials: "mpbn" channel-wise, "mpbn-element" element-wise,
            "mpbn-steps" channel-wise with a set for each of `steps`, or "none".
        weights: keep weights and statistics; else they are initialized again.
        example: an image batch, from which sizes are learnt where they cannot be read from the
            layers: for "mpbn-element", and where a ReLU follows no convolution or batch norm.
        neuron: constants of all neurons; default: the paper's.

    Returns:
        the spiking network, in training mode; it gives the mean over time of what the network
        gave.

    Raises:
        GraphError: if the network cannot be followed.
        ConfigError: if there is no ReLU, another activation, neurons, or sizes are not known;
            names the call.

    Source: as the official MPBN code makes spiking networks of artificial ones (Guo et al. 2023).

    Example:
        >>> import torch, spikefold as sf
        >>> from torch import nn
        >>> cnn = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        ...     nn.Flatten(), nn.Linear(8, 10),
        ... )
        >>> network = sf.convert(cnn, steps=4)
        >>> network(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """
    if norm not in get_args(Norm):
        names = ", ".join(get_args(Norm))
        raise ConfigError(f"convert: norm must be one of {names}, got {norm!r}")
    if steps < 1:
        raise ConfigError(f"convert: steps must be at least 1, got {steps}")
    source = copied(cnn)
    if not weights:
        _start_anew(source)
    followed = graph(source)
    _require_known(followed)
    shapes = {} if example is None else _shapes(source, followed, example)
    rewriting = _Rewriting(source, followed, shapes, norm, steps, neuron or Neuron())
    body = fx.GraphModule(rewriting.parts, rewriting.run())
    return Converted(body, steps, _input_channels(followed)).train()


def _input_channels(followed: Graph) -> int | None:
    """Of a convolution that reads the input itself."""
    for node in followed.nodes:
        if isinstance(node.module, nn.Conv2d) and followed[node.inputs[0]].kind == "input":
            return node.module.in_channels
    return None


def _start_anew(network: nn.Module) -> None:
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
    initialize(network)


_RELU: tuple[Any, ...] = (
    *(F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, "relu", "relu_"),
    *(nn.ReLU, nn.ReLU6),
)


def _is_relu(node: Node) -> bool:
    return (node.call.target if node.module is None else type(node.module)) in _RELU


def _require_known(followed: Graph) -> None:
    for node in followed.nodes:
        if node.kind == "activation" and not _is_relu(node):
            raise ConfigError(
                f"convert: {node.what} is not a ReLU: only ReLU and ReLU6 become neurons; "
                "replace it first"
            )
        if node.kind in ("neurons", "frames"):
            raise ConfigError(f"convert: {node.what}: the network is already a spiking one")
        if _is_in_place(node) and followed.users(followed[node.inputs[0]])[-1] is not node:
            raise ConfigError(
                f"convert: {node.what} changes its input in place, which something else reads "
                "later: write it out of place"
            )
    if not any(node.kind == "activation" for node in followed.nodes):
        raise ConfigError(
            "convert: the network calls no ReLU, so there is nothing to make neurons of"
        )
    result = followed.nodes[-1].call
    if not isinstance(result.args[0], fx.Node):
        raise ConfigError("convert: the network must give one tensor")


def _is_in_place(node: Node) -> bool:
    call = node.call
    name = getattr(call.target, "__name__", str(call.target))
    return bool(
        (name.endswith("_") and call.op != "get_attr")
        or name in ("iadd", "imul", "isub")
        or call.kwargs.get("inplace")
        or getattr(node.module, "inplace", False)
    )


def _shapes(source: nn.Module, followed: Graph, example: Tensor) -> dict[str, torch.Size]:
    """Of the result of each call for an image batch, in evaluation."""
    shapes: dict[fx.Node, torch.Size] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                shapes[n] = result.shape
            return result

    first = followed.nodes[0].call
    root = nn.ModuleDict({"model": copied(source).eval()})
    with torch.no_grad():
        Shapes(fx.GraphModule(root, first.graph)).run(example)
    return {node.name: shapes[node.call] for node in followed.nodes if node.call in shapes}


@dataclass(frozen=True)
class _Unit:
    """The calls that become one spiking layer, and the names of what they take."""

    connection: Node | None
    norm: Node | None
    add: Node | None
    x: str
    shortcut: str | None

    @property
    def absorbed(self) -> list[Node]:
        return [node for node in (self.connection, self.norm, self.add) if node is not None]


def _unit(followed: Graph, relu: Node) -> _Unit:
    """What leads to a ReLU and to nothing else: a connection, its norm, a residual addition."""
    value = followed[relu.inputs[0]]
    if _adds_two(value) and len(followed.users(value)) == 1:
        for main, other in (value.inputs, value.inputs[::-1]):
            unit = _row(followed, followed[main], value, other)
            if unit.connection is not None and followed[other].kind != "constant":
                return unit
    return _row(followed, value, None, None)


def _row(followed: Graph, value: Node, add: Node | None, shortcut: str | None) -> _Unit:
    found: dict[str, Node] = {}
    for kind in ("norm", "connection"):
        if value.kind == kind and value.place and len(followed.users(value)) == 1:
            found[kind] = value
            value = followed[value.inputs[0]]
    return _Unit(found.get("connection"), found.get("norm"), add, value.name, shortcut)


def _adds_two(node: Node) -> bool:
    """Whether it is the sum of two different values, and nothing else."""
    call = node.call
    plain = len(node.inputs) == 2 and tuple(call.args) == tuple(call.all_input_nodes)
    return node.kind == "add" and plain and not call.kwargs


class _Rewriting:
    """Writes the body, call by call."""

    def __init__(
        self,
        source: nn.Module,
        followed: Graph,
        shapes: dict[str, torch.Size],
        norm: Norm,
        steps: int,
        neuron: Neuron,
    ) -> None:
        self.source, self.followed = source, followed
        self.shapes = shapes
        self.norm, self.steps, self.constants = norm, steps, neuron
        self.parts: dict[str, Any] = {}
        self.body = fx.Graph()
        # what calls give, by their names: over time, and with time merged into the batch
        self.over_time: dict[str, fx.Node] = {}
        self.merged: dict[str, fx.Node] = {}
        self.names = {node.call: node.name for node in followed.nodes}

    def run(self) -> fx.Graph:
        """The graph of the body; `parts` is what it calls."""
        units = {
            node.name: _unit(self.followed, node)
            for node in self.followed.nodes
            if node.kind == "activation"
        }
        absorbed = {node.name for unit in units.values() for node in unit.absorbed}
        for node in self.followed.nodes:
            if node.name in units:
                self._write_unit(node, units[node.name])
            elif node.name not in absorbed:
                self._write(node)
        return self.body

    def _write(self, node: Node) -> None:
        call = node.call
        match node.kind:
            case "input":
                self.over_time[node.name] = self.body.placeholder("frames")
            case "output":
                self.body.output(self._over_time(node.inputs[0]))
            case "constant":
                path = str(call.target).removeprefix("model.")
                self.parts[path] = operator.attrgetter(path)(self.source)
                self.merged[node.name] = self.body.get_attr(path)
            case _:
                self.merged[node.name] = self._write_call(node, call)

    def _write_call(self, node: Node, call: fx.Node) -> fx.Node:
        args, kwargs = fx.node.map_arg(
            (call.args, dict(call.kwargs)), lambda other: self._merged(self.names[other])
        )
        if node.module is None:
            return self.body.create_node(call.op, call.target, args, kwargs)
        return self.body.call_module(self._put(node.path, node.module), args, kwargs)

    def _write_unit(self, relu: Node, unit: _Unit) -> None:
        connection = nn.Identity() if unit.connection is None else unit.connection.module
        norm = nn.Identity() if unit.norm is None else unit.norm.module
        assert connection is not None
        assert norm is not None
        sizes = self._sizes(relu, unit)
        lif = LIF.of(self.constants, membrane_norm(self.norm, *sizes, self.steps))
        named = unit.connection or unit.norm
        path = f"{relu.scope}.{relu.name}".lstrip(".") if named is None else named.path
        args = [self._over_time(name) for name in (unit.x, unit.shortcut) if name is not None]
        self.over_time[relu.name] = self.body.call_module(
            self._put(path, SpikingLayer(connection, norm, lif)), tuple(args)
        )

    def _sizes(self, relu: Node, unit: _Unit) -> tuple[int, tuple[int, ...]]:
        """Channels and spatial size of the neurons."""
        if relu.name in self.shapes:
            _, channels, *spatial = self.shapes[relu.name]
            return channels, tuple(spatial)
        if self.norm == "none":
            return 0, ()
        for node in (unit.norm, unit.connection):
            module = None if node is None else node.module
            for name in ("num_features", "num_channels", "out_channels", "out_features"):
                if hasattr(module, name) and self.norm != "mpbn-element":
                    return int(getattr(module, name)), ()
        raise ConfigError(
            f"convert: the size of {relu.what} cannot be read from the layers: give example=images"
        )

    def _put(self, path: str, module: nn.Module) -> str:
        """A name for a module: its path, or the next that is free."""
        name, number = path, 1
        while self.parts.setdefault(name, module) is not module:
            name, number = f"{path}_{number}", number + 1
        return name

    def _over_time(self, name: str) -> fx.Node:
        if name not in self.over_time:
            frames = next(iter(self.body.nodes))
            self.over_time[name] = self.body.call_function(split_time, (self.merged[name], frames))
        return self.over_time[name]

    def _merged(self, name: str) -> fx.Node:
        if name not in self.merged:
            self.merged[name] = self.body.call_function(merge_time, (self.over_time[name],))
        return self.merged[name]
