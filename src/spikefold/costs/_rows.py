"""From what was seen of a network to its record: a row a layer."""

import operator
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from spikefold.costs._norms import membrane_norms, norm_operations
from spikefold.costs._products import products
from spikefold.costs._record import Cost, LayerCost
from spikefold.costs._seen import Inputs, Seen
from spikefold.errors import GraphError
from spikefold.graphs import Graph, Kind, Node
from spikefold.nn import FoldedLIF, SpikingLayer, SpikingNeuron

# What hands spikes on as spikes, and what makes other values, also where these happen to be 0 or 1.
_TRANSPARENT: tuple[Kind, ...] = ("frames", "reshape", "identity", "dropout", "pad")
_VALUED: tuple[Kind, ...] = ("pool", "mean", "norm", "connection", "standardize", "activation")
# What takes from several.
_JOINING: tuple[Kind, ...] = ("add", "multiply", "concatenate")
# What asks for shapes or takes parts.
_SHAPES = (getattr, operator.getitem, "size", "dim")


def counted(network: nn.Module, followed: Graph, seen: Seen) -> Cost:
    """The record of a network.

    Arguments:
        network: that ran.
        followed: what it calls.
        seen: of it.

    Raises:
        GraphError: if a connection or neurons were not seen.
    """
    counted_already: set[int] = set()
    layers = tuple(
        _layer(name, nodes, followed, seen, counted_already)
        for name, nodes in _rows(network, followed).items()
    )
    names = ("acs", "macs", "effective_macs", "dense", "ann", "updates", "fired", "norm_operations")
    figures: dict[str, Any] = {name: sum(getattr(la, name) for la in layers) for name in names}
    return Cost(
        **_memory([network], set()),
        **figures,
        layers=layers,
        samples=seen.samples,
        steps=seen.steps / seen.samples,
        uncounted=tuple(node.what for node in followed.nodes if _is_unknown(node)),
    )


def _is_unknown(node: Node) -> bool:
    """Whether it may compute products that nobody counts."""
    if node.kind == "norm":
        return node.module is None
    if node.kind == "other":
        return node.call.target not in _SHAPES
    return isinstance(node.module, nn.MultiheadAttention)


def _rows(network: nn.Module, followed: Graph) -> dict[str, dict[nn.Module, Node]]:
    """Calls of connections, norms and neurons: those of a `SpikingLayer` together."""
    names = {module: name for name, module in network.named_modules()}
    for name, unit in network.named_modules():
        if isinstance(unit, SpikingLayer) and name:
            names |= dict.fromkeys((unit.connection, unit.norm, unit.lif), name)
    rows: dict[str, dict[nn.Module, Node]] = defaultdict(dict)
    for node in followed.nodes:
        module = node.module
        if module is not None and node.kind in ("connection", "norm", "neurons"):
            rows[names[module] or type(module).__name__].setdefault(module, node)
    return rows


def _layer(
    name: str, nodes: dict[nn.Module, Node], followed: Graph, seen: Seen, counted_already: set[int]
) -> LayerCost:
    operations: Counter[str] = Counter()
    norms: Counter[str] = Counter()
    about: dict[str, Any] = {}
    for module, node in nodes.items():
        if isinstance(module, SpikingNeuron):
            _require_seen(node, module in seen.updates)
            operations.update(updates=seen.updates[module], fired=seen.fired[module])
        elif node.kind == "connection":
            _require_seen(node, module in seen.inputs)
            sources = _sources(followed, node)
            valued = any(source.kind in _VALUED for source in sources)
            spikes = module not in seen.multiplies and not valued
            operations.update(_connection(module, seen.inputs[module].values(), spikes))
            about = {"spikes": spikes, "source": _told(sources)}
        for norm in [module] if node.kind == "norm" else membrane_norms(module):
            norms[type(norm).__name__] += norm_operations(norm)
            operations["norm_operations"] += seen.norm_operations[norm]
    about |= _memory(nodes, counted_already)
    about |= {key: total / seen.samples for key, total in operations.items()}
    return LayerCost(name=name, norms=dict(norms), **about)


def _require_seen(node: Node, was_seen: bool) -> None:
    if not was_seen:
        raise GraphError(f"cost: {node.what} was not seen at work: it is unused, or runs compiled")


def _connection(connection: Any, given: Iterable[Inputs], spikes: bool) -> dict[str, int]:
    used = (
        connection.weight.detach() != 0
    ).cpu()  # pruned weights are no parameters, but attributes
    dense = ann = effective = 0
    for inputs in given:
        once = products(connection, torch.ones_like(inputs.held), torch.ones_like(used))
        dense += once * inputs.number
        ann += once * inputs.frames
        effective += products(connection, inputs.held, used)
    kind = {"acs": effective} if spikes else {"macs": dense, "effective_macs": effective}
    return {"dense": dense, "ann": ann, **kind}


def _sources(followed: Graph, node: Node) -> list[Node]:
    """What makes the values that a connection is given: several where they are added or joined."""
    found: dict[str, Node] = {}
    waiting, met = [followed[node.inputs[0]]], set[str]()
    while waiting:
        source = waiting.pop()
        if source.name in met:
            continue
        met.add(source.name)
        if source.kind in _TRANSPARENT or _is_max_pool(source):
            waiting.append(followed[source.inputs[0]])
        elif source.kind in _JOINING:
            waiting += reversed([followed[name] for name in source.inputs])
        else:
            found[source.name] = source
    return list(found.values())


def _told(sources: list[Node]) -> str:
    return " and ".join(dict.fromkeys(source.what or "the input" for source in sources))


def _is_max_pool(node: Node) -> bool:
    called = node.call.target if node.module is None else type(node.module)
    return node.kind == "pool" and "max" in getattr(called, "__name__", "").lower()


def _memory(modules: Iterable[nn.Module], counted_already: set[int]) -> dict[str, Any]:
    """Parameters, and bytes; each tensor once."""
    parts = [part for module in modules for part in module.modules()]
    folded = [part for part in parts if isinstance(part, FoldedLIF)]
    thresholds = {id(value) for part in folded for value in (part.theta, part.polarity)}
    memory = {"parameters": 0, "weight_bytes": 0, "threshold_bytes": 0}
    for part in parts:
        for value in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if id(value) in counted_already or not value.is_floating_point():
                continue
            counted_already.add(id(value))
            memory["parameters"] += value.numel() if isinstance(value, nn.Parameter) else 0
            memory["threshold_bytes" if id(value) in thresholds else "weight_bytes"] += value.nbytes
    return memory
