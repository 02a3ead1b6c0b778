"""What a network calls, in order."""

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import fx, nn

from spikefold.errors import GraphError
from spikefold.graphs._kinds import FUNCTIONS, Kind, kind_of_module
from spikefold.graphs._tracer import Place, Root, Tracer


@runtime_checkable
class Call(Protocol):
    """What has a name, and takes the results of others by theirs."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...


CallT = TypeVar("CallT", bound=Call)


@dataclass(frozen=True)
class Calls(Generic[CallT]):
    """What a network calls, in order, by name, and what feeds what.

    Attributes:
        nodes: each after those it takes.
    """

    nodes: tuple[CallT, ...]

    def __getitem__(self, name: str) -> CallT:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, CallT]:
        return {node.name: node for node in self.nodes}

    def users(self, node: CallT) -> list[CallT]:
        """Those that take a node's result, in order."""
        return [other for other in self.nodes if node.name in other.inputs]


@dataclass(frozen=True)
class Node:
    """One call in a network.

    Attributes:
        name: unique in its graph.
        kind: what the call is.
        inputs: names of the nodes whose results it takes.
        scope: path of the innermost module whose forward makes the call.
        merged: whether it sees time merged into the batch, `[T·N, ...]`; the results of all nodes
            of a spiking network are `[T, N, ...]` nevertheless.
        call: the node of torch.fx: function and arguments.
        path: of the module that is called; "" if a function or a method is.
        place: of that module.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    scope: str
    merged: bool
    call: fx.Node = field(repr=False)
    path: str = ""
    place: Place | None = field(default=None, repr=False)

    @property
    def module(self) -> nn.Module | None:
        """The module that is called."""
        return None if self.place is None else self.place.module

    @property
    def what(self) -> str:
        """For messages: the module's path, or the function and who calls it."""
        if self.place is not None:
            return f"'{self.path}' ({type(self.module).__name__})"
        if self.kind in ("input", "output"):
            return ""
        target: Any = self.call.target
        called = getattr(target, "__name__", str(target).removeprefix("model."))
        return f"{called} in '{self.scope}'" if self.scope else called


class Graph(Calls[Node]):
    """What a network calls, in order, and what feeds what.

    Attributes:
        nodes: each after the nodes it takes.
    """

    def __str__(self) -> str:
        rows = [
            (node.name, node.kind, ", ".join(node.inputs), node.what if node.inputs else "")
            for node in self.nodes
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def graph(model: nn.Module) -> Graph:
    """What a network calls, in order: connections, norms, neurons, shortcuts, pools.

    Follows `forward` symbolically (torch.fx), in the mode in which the model is. Leaves are torch's
    modules and neurons; a `SpikingLayer` is its connection, norm, addition of a shortcut and
    neurons; modules of your own are looked into, whether they hold layers as attributes or in rows.

    Arguments:
        model: a network of one input; not called with values, may lie on the meta device.

    Raises:
        GraphError: if a module's forward depends on values or shapes (loops over time steps, for
            instance), or calls what is no child of it; names the module.

    Example:
        >>> import torch, spikefold as sf
        >>> layer = sf.SpikingLayer(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4), sf.LIF())
        >>> print(sf.graph(layer))
        x           input
        connection  connection  x           'connection' (Linear)
        norm        norm        connection  'norm' (BatchNorm1d)
        lif         neurons     norm        'lif' (LIF)
        output      output      lif
    """
    return _graph(model, "")


def graphs(
    model: nn.Module, prefix: str = ""
) -> tuple[list[Graph], list[tuple[nn.Module, GraphError]]]:
    """The graph of a network or, where it cannot be followed, those of its parts.

    Arguments:
        model: any network.
        prefix: path of the network in a larger one.

    Returns:
        the graphs; the modules that cannot be followed themselves, and why.
    """
    try:
        return [_graph(model, prefix)], []
    except GraphError as error:
        opaque = [(model.get_submodule(error.path.removeprefix(prefix).lstrip(".")), error)]
    found: list[Graph] = []
    for name, child in model.named_children():
        more, also_opaque = graphs(child, f"{prefix}.{name}".lstrip("."))
        found += more
        opaque += also_opaque
    return found, opaque


def _graph(model: nn.Module, prefix: str) -> Graph:
    traced = Tracer(prefix).trace(Root(model))
    by_name: dict[str, fx.Node] = {}
    for node in traced.nodes:
        plain = node.name.removeprefix("model_")  # that of `Root`
        free = (f"{plain}_{number}" for number in itertools.count(1))
        name = next(name for name in itertools.chain([plain], free) if name not in by_name)
        by_name[name] = node
    names = {node: name for name, node in by_name.items()}
    return Graph(tuple(_node(node, names) for node in traced.nodes))


def _node(node: fx.Node, names: dict[fx.Node, str]) -> Node:
    place: Place | None = node.meta.get("place")
    return Node(
        name=names[node],
        kind=_kind(node, None if place is None else place.module),
        inputs=tuple(names[other] for other in node.all_input_nodes),
        scope=node.meta["scope"],
        merged=node.meta["merged"],
        call=node,
        path=node.meta.get("path", ""),
        place=place,
    )


def _kind(node: fx.Node, module: nn.Module | None) -> Kind:
    match node.op:
        case "placeholder":
            return "input"
        case "output":
            return "output"
        case "get_attr":
            return "constant"
    if module is not None:
        return kind_of_module(module) or "other"
    return FUNCTIONS.get(node.target, "other")
