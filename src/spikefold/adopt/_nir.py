"""Graphs of the Neuromorphic Intermediate Representation as networks.

The package `nir` is imported to read a file, and else not: nodes are known by their class's name.
"""

import graphlib
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from spikefold.adopt._nir_file import read_nir, said_in
from spikefold.adopt._nir_nodes import Convention, Fields, Shape, made_of
from spikefold.data import InputSpec
from spikefold.dynamics import backend
from spikefold.errors import AdoptError, ConfigError, SpikefoldError, SpikefoldWarning
from spikefold.models import Arguments, NIRModel, NIRNetwork
from spikefold.nn import copied
from spikefold.plain import from_plain
from spikefold.registry import registered_only

Source = Literal["nir", "norse", "snntorch", "spikingjelly"]

# By who wrote the graph. Norse 1.1.0 writes tau · dt where tau is meant, with its dt of 1e-3; its
# IF, and snnTorch's, has no dt. SpikingJelly fires at the threshold.
CONVENTIONS: dict[str, Convention] = {
    "nir": Convention(),
    "norse": Convention(lif_step=1e-6, if_step=1.0, batched=True),
    "snntorch": Convention(if_step=1.0),
    "spikingjelly": Convention(at_threshold=True),
}


@torch.no_grad()
def from_nir(graph: Any, *, source: Source | None = None) -> NIRNetwork:
    """A network that computes what a graph of the Neuromorphic Intermediate Representation says.

        LIF  u = (1 - dt / tau) v + (r dt / tau) x      IF  u = v + r dt x

    Takes Conv1d, Conv2d, Linear, Affine, Scale, LIF, IF, SumPool2d, AvgPool2d and Flatten, in
    graphs without cycles of one Input and one Output; graphs inside graphs are looked into. A
    factor before x goes into the threshold, so that potentials are rounded otherwise.

    A graph does not say dt, nor whether a potential that equals the threshold fires. Those that
    `spikefold.export` wrote do; of others, the libraries' are known:

        source          dt of LIF    dt of IF    fires at the threshold
        "nir"           1e-4         1e-4        no
        "norse"         1e-6 (*)     1           no
        "snntorch"      1e-4         1           no
        "spikingjelly"  1e-4         1e-4        yes

    (*) Norse 1.1.0 writes tau · dt, with its dt of 1e-3. snnTorch writes no reset: what comes in
    has `reset_mechanism="zero"` and `reset_delay=False`.

    Arguments:
        graph: a `nir.NIRGraph`, or the path of a `.nir` file.
        source: who wrote it; None: as the graph says, else "nir".

    Returns:
        a network for `[T, N, ...]`, in float32 and evaluation mode, with a part for each node.

    Raises:
        FileFormatError: if the file is absent, damaged or none.
        AdoptError: for a node, a value or a structure that has no counterpart; names the node.
        ConfigError: if the source is unknown.

    Source: Pedersen et al., "Neuromorphic Intermediate Representation", Nature Communications 2024.
    """
    if isinstance(graph, str | Path):
        graph = read_nir(Path(graph))
    if type(graph).__name__ != "NIRGraph":
        raise AdoptError(
            f"from_nir: expected a nir.NIRGraph or the path of a .nir file, got a "
            f"{type(graph).__name__}"
        )
    convention = _convention(graph, source)
    nodes, edges = _flattened(graph)
    ends = Ends(_only(graph, "Input"), _only(graph, "Output"))
    network = _network(nodes, _sources_of(nodes, edges, ends), ends, convention)
    network.input_spec = _input_spec(graph)
    return network.eval()


def _convention(graph: Any, source: str | None) -> Convention:
    if source is not None:
        if source not in CONVENTIONS:
            known = ", ".join(CONVENTIONS)
            raise ConfigError(f"from_nir: source must be one of {known}, got {source!r}")
        return CONVENTIONS[source]
    stated = said_in(graph)
    if not stated:
        return Convention()
    try:
        lif_step, if_step, at = (float(stated[name]) for name in Convention._fields[:3])
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise AdoptError(
            "from_nir: what the graph says of dt is damaged: give source= to say it"
        ) from error
    return Convention(lif_step, if_step, bool(at))


def _input_spec(graph: Any) -> InputSpec | None:
    """How the network's input is read, where the graph says it."""
    try:
        plain = _description(graph)["input"]
        with registered_only():
            return None if plain is None else from_plain(plain, InputSpec, "input")
    except (KeyError, TypeError, SpikefoldError):
        if "description" in said_in(graph):  # it is not needed to compute
            warnings.warn(
                "from_nir: what the graph says of its input is damaged: the network does not know "
                "how its input is read",
                SpikefoldWarning,
                stacklevel=3,
            )
        return None


def _description(graph: Any) -> dict[str, Any]:
    """What `spikefold.export` said of the network; nothing where that is not to be read."""
    try:
        said = json.loads(said_in(graph)["description"])
    except (TypeError, ValueError, KeyError, RecursionError, SpikefoldError):
        return {}
    return said if isinstance(said, dict) else {}


def nir_model(graph: Any, *, steps: int | None = None, source: Source | None = None) -> NIRModel:
    """A NIR graph as a model, which `save` and `load` keep: from images or frames to classes.

    Arguments:
        graph: a `nir.NIRGraph`, or the path of a `.nir` file.
        steps: T in which an input is shown; default: as the graph says, if spikefold wrote it.
        source: as for `from_nir`.

    Returns:
        gives the mean of the graph's outputs over time, `[N, K]`, in evaluation mode.

    Raises:
        AdoptError: as `from_nir`; if the input is no square image of channels, or the steps are not
            known.
        FileFormatError: if the file is absent, damaged or none.
    """
    if isinstance(graph, str | Path):
        graph = read_nir(Path(graph))
    network = from_nir(graph, source=source)
    shape = network.shape or ()
    if len(shape) != 3 or shape[1] != shape[2]:
        raise AdoptError(
            f"import: its input is {list(shape)}: a model takes square images [C, H, W]; from_nir "
            "takes others"
        )
    if steps is None:
        steps = _description(graph).get("steps")
    if not isinstance(steps, int):
        raise AdoptError("import: the graph does not say in how many time steps: give --steps")
    with backend("reference"):
        output = copied(network).to("meta")(torch.empty(1, 1, *shape, device="meta"))
    arguments = Arguments(
        output[0, 0].numel(), in_channels=shape[0], image_size=shape[1], norm="none", steps=steps
    )
    model = NIRModel(arguments, network)
    spec = network.input_spec
    if spec is not None and spec.framing.steps is not None:
        model.input_spec = replace(spec, framing=replace(spec.framing, steps=steps))
    return model


Nodes = dict[str, Any]
Edges = list[tuple[str, str]]


class Ends(NamedTuple):
    """Names of the nodes at which a graph begins and ends."""

    input: str
    output: str


def _flattened(graph: Any, prefix: str = "", depth: int = 0) -> tuple[Nodes, Edges]:
    """Nodes and edges with those of graphs inside; the ends of these stay, as nodes."""
    if depth > 20:
        raise AdoptError("from_nir: graphs stand in graphs more than 20 deep")
    nodes: Nodes = {}
    edges: Edges = []
    entries: dict[str, str] = {}
    exits: dict[str, str] = {}
    for name, node in graph.nodes.items():
        path = f"{prefix}{name}"
        if type(node).__name__ != "NIRGraph":
            nodes[path] = node
            continue
        more, also = _flattened(node, f"{path}.", depth + 1)
        nodes |= more
        edges += also
        entries[path] = f"{path}.{_only(node, 'Input', path)}"
        exits[path] = f"{path}.{_only(node, 'Output', path)}"
    for start, end in graph.edges:
        start, end = f"{prefix}{start}", f"{prefix}{end}"
        edges.append((exits.get(start, start), entries.get(end, end)))
    return nodes, edges


def _only(graph: Any, kind: str, where: str = "the graph") -> str:
    names = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
    if len(names) != 1:
        raise AdoptError(
            f"from_nir: {where} has {len(names)} nodes of kind {kind} {names[:9]}, and must have 1"
        )
    return str(names[0])


def _sources_of(nodes: Nodes, edges: Edges, between: Ends) -> dict[str, list[str]]:
    """From each node in order to those whose results it takes."""
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in edges:
        if start not in nodes or end not in nodes:
            raise AdoptError(f"from_nir: edge {start!r} to {end!r}: there is no such node")
        if start in sources[end]:
            raise AdoptError(f"from_nir: edge {start!r} to {end!r} is there twice")
        sources[end].append(start)
    _require_connected(nodes, edges, between)
    try:
        order = list(graphlib.TopologicalSorter(sources).static_order())
    except graphlib.CycleError as error:
        circle = " to ".join(map(repr, error.args[1][::-1]))
        raise AdoptError(
            f"from_nir: {circle} is a cycle: recurrent networks have no counterpart here"
        ) from error
    return {name: sources[name] for name in order}


def _require_connected(nodes: Nodes, edges: Edges, between: Ends) -> None:
    starts, ends = {start for start, _ in edges}, {end for _, end in edges}
    for name, node in nodes.items():
        if name not in ends | {between.input}:
            raise Fields(name, node).refused("nothing leads to it")
        if name not in starts | {between.output}:
            raise Fields(name, node).refused("it leads nowhere")


def _network(
    nodes: Nodes, sources: dict[str, list[str]], ends: Ends, convention: Convention
) -> NIRNetwork:
    """The network, its shapes checked on the way."""
    names = {ends.input: ""}
    shapes = {ends.input: _stated(nodes, sources, ends.input, convention.batched)}
    parts: dict[str, nn.Module] = {}
    taken: dict[str, list[str]] = {}
    for name, befores in sources.items():
        if name == ends.input:
            continue
        node = Fields(name, nodes[name])
        shape = _meeting(node, [shapes[before] for before in befores])
        if name == ends.output:
            continue
        part = made_of(node, type(nodes[name]).__name__, shape, convention)
        shapes[name] = _shape_after(node, part, shape)
        names[name] = _free_name(name, parts)
        parts[names[name]] = part
        taken[names[name]] = [names[before] for before in befores]
    network = NIRNetwork(parts, taken, [names[before] for before in sources[ends.output]])
    network.shape = shapes[ends.input]
    return network


def _stated(nodes: Nodes, sources: dict[str, list[str]], first: str, batched: bool) -> Shape:
    """The shape of one sample of the input."""
    node = Fields(first, nodes[first])
    if sources[first]:
        raise node.refused("something leads to it")
    try:
        shape = tuple(int(size) for size in nodes[first].input_type["input"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise node.refused("its shape is not stated") from error
    if min(shape, default=0) < 1:
        raise node.refused(f"its shape is {list(shape)}")
    takers = [type(nodes[name]).__name__ for name in sources if first in sources[name]]
    has_batch = batched and any(DIMS.get(kind) == len(shape) - 1 for kind in takers)
    return shape[1:] if has_batch else shape


DIMS = {"Conv1d": 2, "Conv2d": 3, "Linear": 1, "Affine": 1}


def _meeting(node: Fields, shapes: list[Shape]) -> Shape:
    first, *others = shapes
    for other in others:
        if other != first:
            raise node.refused(f"{list(first)} and {list(other)} meet, and cannot be added")
    return first


def _shape_after(node: Fields, part: nn.Module, shape: Shape) -> Shape:
    """Of one sample, found without computing values."""
    try:
        with backend("reference"):
            made = copied(part).to("meta")(torch.empty(1, 1, *shape, device="meta"))
    except (RuntimeError, ValueError, IndexError, SpikefoldError) as error:
        reason = " ".join(str(error).split())
        raise node.refused(f"does not take an input {list(shape)}: {reason}") from error
    return tuple(made.shape[2:])


def _free_name(name: str, taken: dict[str, nn.Module]) -> str:
    """A name that a module can have: from a file come any."""
    free = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    while free in taken or hasattr(nn.ModuleDict, free):
        free += "_"
    return free
