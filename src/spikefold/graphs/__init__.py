"""The one walk over a network: what is called after what."""

from spikefold.graphs._graph import Calls, Graph, Node, graph, graphs
from spikefold.graphs._kinds import FUNCTIONS, MODULES, Kind, kind_of_module
from spikefold.graphs._tracer import Place

__all__ = [
    "FUNCTIONS",
    "MODULES",
    "Calls",
    "Graph",
    "Kind",
    "Node",
    "Place",
    "graph",
    "graphs",
    "kind_of_module",
]
