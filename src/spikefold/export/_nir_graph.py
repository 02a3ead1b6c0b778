"""A walk as a NIR graph.

Layers are held back as numbers until it is known what takes them: norms go into them, an average
is a sum and smaller weights behind it, flattening is a kernel of full size, and neurons scale the
rows of what feeds them. What is added are several edges into the node that takes the sum.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikefold.export._affine import affine, window
from spikefold.export._known import ADAPTIVE_MAXIMA, MAXIMA, refused
from spikefold.export._nir_layers import Layer, Shape, each, layer_of
from spikefold.export._nir_neurons import Neurons, Population, Target, neurons_of, populations
from spikefold.export._walk import Operation, Walk


@dataclass(frozen=True)
class Term:
    """A part of a sum.

    Attributes:
        nodes: those whose results are added.
        shape: of each.
        layer: of that sum; None: the sum itself.
        factor: of the sum itself.
        name: for the node that the layer becomes.
    """

    nodes: tuple[str, ...]
    shape: Shape
    layer: Layer | None = None
    factor: float = 1.0
    name: str = ""

    def own(self) -> Layer:
        """The layer, or one that does what is done without."""
        if self.layer is not None:
            return self.layer
        channels, *spatial = self.shape
        return each(channels, (1,) * len(spatial)).rows(self.factor)

    def having(self, layer: Layer) -> "Term":
        """Another layer of the same nodes."""
        return replace(self, layer=layer, factor=1.0)

    def rows(self, factor: Tensor, offset: Tensor) -> "Term":
        """Factor · result + offset, a number a channel; itself where that is the same."""
        if bool((factor == 1).all() & (offset == 0).all()):
            return self
        return self.having(self.own().rows(factor, offset))

    def after(self) -> Shape:
        """The shape of the part."""
        return self.shape if self.layer is None else self.layer.after(self.shape)


@dataclass(frozen=True)
class Held:
    """The result of an operation, before it is known what takes it.

    Attributes:
        terms: that are added, all of one shape.
        mean: whether the mean over space is still to be taken, of which they are the sum.
    """

    terms: tuple[Term, ...]
    mean: bool = False

    @property
    def shape(self) -> Shape:
        """Of the sum."""
        return self.terms[0].after()

    def rows(self, factor: Tensor, offset: Tensor) -> "Held":
        """Factor · result + offset, a number a channel."""
        first, *others = self.terms
        rest = (term.rows(factor, torch.zeros_like(offset)) for term in others)
        return replace(self, terms=(first.rows(factor, offset), *rest))


class Writer:
    """Writes operation after operation; `nodes` and `edges` are the graph's.

    Arguments:
        nir: the package.
        target: whose importer reads the graph.
        walk: to be written.
    """

    def __init__(self, nir: Any, target: Target, walk: Walk) -> None:
        self.nir, self.target, self.walk = nir, target, walk
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.held: dict[str, Held] = {}

    def write(self) -> None:
        """All operations.

        Raises:
            ExportError: for what NIR cannot say, or the target computes wrongly; names the layer.
        """
        for operation in self.walk.nodes:
            rule = _RULES.get(operation.kind)
            if rule is None:
                raise refused(operation.node, f"NIR has nothing to {operation.kind}")
            taken = [self.held[name] for name in operation.inputs]
            self.held[operation.name] = rule(self, operation, *taken)

    def node(self, operation: Operation, name: str, node: Any, sources: tuple[str, ...]) -> str:
        """Add a node that takes the sum of others; its name."""
        if len(sources) > 1 and not self.target.sums:
            raise refused(
                operation.node,
                f"{' and '.join(sources)} meet in it, which {self.target.name} does not add",
            )
        while name in self.nodes:
            name += "_"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def nodes_of(self, operation: Operation) -> tuple[str, ...]:
        """The nodes of neurons that a layer's became."""
        return self.held[operation.name].terms[0].nodes

    def emitted(self, operation: Operation, term: Term, suffix: str = "") -> tuple[str, ...]:
        """The nodes whose sum a term is."""
        if term.layer is None and term.factor == 1:
            return term.nodes
        name = f"{term.name or operation.name + '_input'}{suffix}"
        node = self._linear(operation, term.own().square(term.shape), term.shape)
        return (self.node(operation, name, node, term.nodes),)

    def summed(self, operation: Operation, x: Held) -> tuple[tuple[str, ...], float]:
        """The nodes, and the factor of their sum, that a result is."""
        first, *others = x.terms
        if first.layer is None and not others:
            return first.nodes, first.factor
        return tuple(n for term in x.terms for n in self.emitted(operation, term)), 1.0

    def whole(self, operation: Operation, x: Held) -> Held:
        """The same, its mean taken."""
        if not x.mean:
            return x
        nodes, factor = self.summed(operation, x)
        channels, *spatial = x.shape
        layer = each(channels, tuple(spatial)).rows(factor)
        return Held((Term(nodes, x.shape, layer),))

    def before(self, operation: Operation) -> Shape:
        """The shape of what an operation takes, in the network."""
        return self.walk[operation.inputs[0]].value.shape

    def _linear(self, operation: Operation, layer: Layer, shape: Shape) -> Any:
        weight, bias = layer.weight.float().numpy(), layer.bias.float().numpy()
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise refused(operation.node, "its weights, or what scales them, go beyond float32")
        sizes = (layer.stride, layer.padding, layer.dilation)
        match len(shape):
            case 1:
                return self.nir.Affine(weight, bias)
            case 2:
                return self.nir.Conv1d(shape[1], weight, *(size[0] for size in sizes), 1, bias)
            case 3 if weight.shape[2] == weight.shape[3]:
                return self.nir.Conv2d(shape[1:], weight, *sizes, 1, bias)
            case 3:  # nir's own checks take the first size for both
                raise refused(
                    operation.node, f"a kernel of {list(weight.shape[2:])}: NIR's must be square"
                )
        raise refused(operation.node, f"NIR has no layer for {list(shape)}")

    def lif(self, population: Population, neurons: Neurons) -> Any:
        """Neurons of NIR."""
        step, if_step, at_threshold, _ = self.target.convention
        theta = population.theta.float()
        if at_threshold:
            theta = torch.nextafter(theta, torch.tensor(torch.inf))
        threshold, zero = theta.double().numpy(), np.zeros(theta.shape)
        if bool((neurons.decay == 1).all()) and self.target.has_if:
            return self.nir.IF(np.full(theta.shape, 1 / if_step), threshold, zero)
        # 1 - dt / tau is 1 in float64 all the same
        tau = step / (1 - neurons.decay).clamp(min=1e-20).numpy()
        r = tau / step if self.target.scales else np.ones(theta.shape)
        return self.nir.LIF(tau, r, zero, threshold, zero)


def _input(writer: Writer, operation: Operation) -> Held:
    shape = operation.value.shape
    name = writer.node(operation, "input", writer.nir.Input(np.array(shape)), ())
    return Held((Term((name,), shape),))


def _same(writer: Writer, operation: Operation, x: Held) -> Held:
    return x


def _connection(writer: Writer, operation: Operation, x: Held) -> Held:
    before = writer.before(operation)
    linear = isinstance(operation.module, nn.Linear)
    if linear and len(before) != 1:
        raise refused(operation.node, f"takes {list(before)}, and NIR's only one dimension")
    if not linear:
        x = writer.whole(operation, x)
        _require(operation, before == x.shape)
    nodes, factor = writer.summed(operation, x)
    layer = layer_of(operation, x.shape, x.mean)
    layer = replace(layer, weight=layer.weight * factor)
    return Held((Term(nodes, x.shape, layer, name=operation.name),))


def _require(operation: Operation, kept: bool) -> None:
    if not kept:
        raise refused(operation.node, "takes what was reshaped: only flattening before a linear "
                      "layer can be said in NIR")  # fmt: skip


def _norm(writer: Writer, operation: Operation, x: Held) -> Held:
    mean, factor, shift = affine(operation.module, 1)
    if max(map(len, (mean, factor, shift))) > 1:
        raise refused(operation.node, "NIR has no norms that change over time")
    scale = factor[0].double()
    return _scaled(writer, operation, x, scale, shift[0].double() - mean[0].double() * scale)


def _standardize(writer: Writer, operation: Operation, x: Held) -> Held:
    factor = 1 / operation.module.deviation.double()
    return _scaled(writer, operation, x, factor, -operation.module.mean.double() * factor)


def _scaled(writer: Writer, operation: Operation, x: Held, factor: Tensor, offset: Tensor) -> Held:
    x = writer.whole(operation, x)
    _require(operation, x.shape[0] == writer.before(operation)[0])
    return x.rows(factor.detach(), offset.detach())


def _pool(writer: Writer, operation: Operation, x: Held) -> Held:
    """The sum over windows, and a factor for what comes behind."""
    x = writer.whole(operation, x)
    _require(operation, writer.before(operation) == x.shape)
    if isinstance(operation.module, MAXIMA + ADAPTIVE_MAXIMA):
        raise refused(operation.node, "NIR has no maximum: train with an average")
    over = window(operation, x.shape)
    padded = any(over.begin) or any(over.end)
    if over.begin != over.end:
        raise refused(operation.node, "its windows reach over one end only; NIR pads both alike")
    if padded and not over.counts:
        raise refused(operation.node, "its averages leave out the padding, which NIR's count")
    count = prod(over.kernel)
    if over.kernel == list(x.shape[1:]) and not padded and over.divisor in (None, count):
        return _mean(writer, operation, x)
    nodes, factor = writer.summed(operation, x)
    kernel, stride, padding = (tuple(s) for s in (over.kernel, over.stride, over.begin))
    # importers take a mean, times the count: exact for powers of two; and they do not pad
    if len(kernel) == 2 and not padded and count.bit_count() == 1:
        node = writer.nir.SumPool2d(*map(np.array, (kernel, stride, padding)))
        name = writer.node(operation, operation.name, node, nodes)
    else:
        term = Term(nodes, x.shape, each(x.shape[0], kernel, stride, padding), name=operation.name)
        (name,) = writer.emitted(operation, term)
    divided = factor / (over.divisor or count)
    return Held((Term((name,), operation.value.shape, factor=divided),))


def _mean(writer: Writer, operation: Operation, x: Held) -> Held:
    x = writer.whole(operation, x)
    _require(operation, writer.before(operation) == x.shape)
    nodes, factor = writer.summed(operation, x)
    return Held((Term(nodes, x.shape, factor=factor / prod(x.shape[1:])),), mean=True)


def _add(writer: Writer, operation: Operation, x: Held, y: Held) -> Held:
    x, y = writer.whole(operation, x), writer.whole(operation, y)
    _require(operation, x.shape == y.shape)
    # an edge cannot be there twice
    plain = {node for term in x.terms if term.layer is None for node in term.nodes}
    terms = [term if plain.isdisjoint(term.nodes) else term.having(term.own()) for term in y.terms]
    return Held((*x.terms, *terms))


def _concatenate(writer: Writer, operation: Operation, *parts: Held) -> Held:
    """A sum, of which each part has the channels of the others as well, which are 0."""
    whole = [writer.whole(operation, part) for part in parts]
    _require(operation, all(part.shape[1:] == whole[0].shape[1:] for part in whole))
    channels = [part.shape[0] for part in whole]
    _require(operation, sum(channels) == operation.value.shape[0])
    terms: list[Term] = []
    for number, part in enumerate(whole):
        around = sum(channels[:number]), sum(channels[number + 1 :])
        terms += [term.having(term.own().among(*around)) for term in part.terms]
    return Held(tuple(terms))


def _neurons(writer: Writer, operation: Operation, x: Held) -> Held:
    x = writer.whole(operation, x)
    neurons = neurons_of(operation, x.shape)
    names = []
    for part in populations(operation, neurons, writer.target):
        currents = x.rows(part.factor, part.offset)
        sources = [n for t in currents.terms for n in writer.emitted(operation, t, part.name)]
        node = writer.lif(part, neurons)
        names.append(writer.node(operation, operation.name + part.name, node, tuple(sources)))
    return Held((Term(tuple(names), x.shape),))


def _output(writer: Writer, operation: Operation, x: Held) -> Held:
    """One edge into it: importers drop others."""
    x = writer.whole(operation, x)
    nodes, factor = writer.summed(operation, x)
    if len(nodes) > 1 or factor != 1:
        whole = Term(nodes, x.shape, factor=factor)
        nodes = writer.emitted(operation, whole.having(whole.own()))
    writer.node(operation, "output", writer.nir.Output(np.array(x.shape)), nodes)
    return x


_RULES: dict[str, Callable[..., Held]] = {
    "input": _input,
    "connection": _connection,
    "norm": _norm,
    "standardize": _standardize,
    "pool": _pool,
    "reshape": _same,
    "add": _add,
    "concatenate": _concatenate,
    "neurons": _neurons,
    "mean over space": _mean,
    "mean over time": _same,  # the runner takes it
    "output": _output,
}
