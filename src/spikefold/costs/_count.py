"""Counts what a network does while it runs, from what its connections and neurons are given."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Size, Tensor, nn

from spikefold.costs._norms import as_built, membrane_norms, norm_operations, removed
from spikefold.costs._record import Cost
from spikefold.costs._rows import counted
from spikefold.costs._seen import Inputs, Seen
from spikefold.errors import ConfigError, DataError, GraphError
from spikefold.folding import Batch, evaluation, inputs_and_labels, require_batches
from spikefold.graphs import Graph, graph
from spikefold.nn import Call, SpikingLayer, observing


def cost(
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    before: nn.Module | None = None,
    steps: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Cost:
    """What inference costs, a layer and a sample: operations that real data cause, memory, energy.

    A connection whose inputs are all 0 or 1 adds: an operation (AC) where a spike meets a weight
    inside of the image, neither of them 0. Any other, such as the first one and those behind an
    average pool, multiplies (MAC), zeros as well. Each counts as often as it runs: the first
    convolution of an image that is shown T times, once. Not counted: biases, additions of
    shortcuts, pools and means.

        energy = 4.6 pJ · MACs + 0.9 pJ · ACs;   artificial network: 4.6 pJ · dense products, once

    Arguments:
        network: trained, folded or not: what is left of norms is listed. It is not changed, and
            runs in evaluation mode.
        batches: inputs on its device, or pairs of such inputs and labels; at least one.
        before: the network before fold and fusion, which says what they removed (if all batches
            have the same steps and sizes); of a model of `spikefold.models` that is known.
        steps: handed to `forward` if given.
        on_batch: called after each batch, for progress.

    Returns:
        means over the samples.

    Raises:
        GraphError: if the network cannot be followed, or a connection is a function or not seen.
        DataError: if there is no sample.
        ConfigError: if no neuron fires in it.

    Source: energy of an operation at 45 nm: Horowitz, ISSCC 2014.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.fuse_conv_bn(sf.fold(sf.models.small(in_channels=1, steps=4)))
        >>> record = sf.cost(network, [torch.rand(8, 1, 8, 8)])
        >>> record.ann, record.layers[0].macs, record.layers[1].macs, record.layers[2].spikes
        (782080.0, 15488.0, 0.0, False)
    """
    for one in (network, *([] if before is None else [before])):
        if not isinstance(one, nn.Module):
            raise ConfigError(f"cost takes a network, got {type(one).__name__}")
    require_batches(batches)
    before, rest = as_built(network) if before is None else before, iter(batches)
    first = list(itertools.islice(rest, 1))
    with _watched(network, itertools.chain(first, rest), steps, on_batch) as (ran, followed, seen):
        record = counted(ran, followed, seen)
    if before is None or before is network:
        return replace(record, removed=None if before is None else {})
    # what norms do depends on shapes alone: a batch tells it, if all are alike
    with _watched(before, first, steps) as (_, _, seen_before):
        alike = len(seen.forms) == 1 and seen.forms == seen_before.forms
        return replace(record, removed=removed(seen_before, seen) if alike else None)


@contextmanager
def _watched(
    network: nn.Module,
    batches: Iterable[Batch],
    steps: int | None,
    on_batch: Callable[[], None] = lambda: None,
) -> Iterator[tuple[nn.Module, Graph, Seen]]:
    """A network that ran over batches in evaluation mode, its graph, and what was seen of it."""
    arguments = {} if steps is None else {"steps": steps}
    with evaluation(network) as running:
        followed = graph(running)
        _require_modules(followed)
        counting = _Counting(running, followed)
        with observing(running, counting.see_neurons):
            for batch in batches:
                running(inputs_and_labels(batch)[0], **arguments)
                del batch  # otherwise it would stay in memory next to the following one
                counting.end_batch()
                on_batch()
        if not counting.seen.samples:
            raise DataError("cost got no sample: operations are counted where data cause them")
        yield running, followed, counting.seen


def _require_modules(followed: Graph) -> None:
    for node in followed.nodes:
        if node.kind == "connection" and node.module is None:
            raise GraphError(
                f"cost cannot see what {node.what} is given: make it a module, such as nn.Conv2d"
            )


@dataclass(frozen=True)
class _Given:
    """What a connection was given: inputs `[*lead, *shape]`, in how many a value is not 0."""

    connection: nn.Module
    lead: Size
    held: Tensor


class _Counting:
    """Watches a network; the network's own modules are changed, so it is a twin."""

    def __init__(self, network: nn.Module, followed: Graph) -> None:
        self.seen = Seen()
        self.given: list[_Given] = []
        self.sequence: tuple[int, int] | None = None  # T and N of the batch that runs
        self.updates = 0  # in the batches before
        self.unit: SpikingLayer | None = None  # whose neurons fire next
        kinds = {node.module: node.kind for node in followed.nodes if node.module is not None}
        units = [unit for unit in network.modules() if isinstance(unit, SpikingLayer)]
        # a norm of a unit runs in its neurons' kernel as long as nothing is attached to it
        joined = [unit for unit in units if kinds.get(unit.norm) == "norm"]
        for unit in joined:
            _watch(unit, self.see_unit)
        for module, kind in kinds.items():
            if kind == "connection":
                _watch(module, self.see_connection)
            elif kind == "norm" and all(module is not unit.norm for unit in joined):
                _watch(module, self.see_norm)

    def see_connection(self, connection: Any, x: Tensor) -> None:
        """Note in how many of its inputs a value is not 0."""
        features = 1 if isinstance(connection, nn.Linear) else 1 + len(connection.stride)
        fires = x != 0
        if not torch.equal(x, fires.to(x.dtype)):
            self.seen.multiplies.add(connection)
        lead, shape = x.shape[:-features], x.shape[-features:]
        held = fires.reshape(-1, *shape).sum(0).cpu().double()
        self.given.append(_Given(connection, lead, held))

    def see_unit(self, unit: Any, _: Tensor) -> None:
        """Note which unit runs: neurons may be those of several."""
        self.unit = unit

    def see_norm(self, norm: nn.Module, x: Tensor) -> None:
        """Note the operations of a norm that is called."""
        self.seen.norm_operations[norm] += norm_operations(norm) * x.numel()

    def see_neurons(self, name: str, call: Call) -> None:
        """Note updates, spikes, and the norms before and after the membrane."""
        neurons, spikes, seen = call.neuron, call.fired.spikes, self.seen
        if self.sequence is None:
            self.sequence = spikes.shape[0], spikes.shape[1]
        seen.updates[neurons] += spikes.numel()
        seen.fired[neurons] += int(torch.count_nonzero(spikes))
        for norm in membrane_norms(neurons):
            seen.norm_operations[norm] += norm_operations(norm) * spikes.numel()
        unit, self.unit = self.unit, None
        if unit is not None:
            norm, currents = unit.norm, call.currents
            maps = 1 if currents.norm is None else currents.norm.steps() or 1
            steps = max(len(currents.input), maps)
            seen.norm_operations[norm] += norm_operations(norm) * steps * currents.input[0].numel()

    def end_batch(self) -> None:
        """Add what connections were given, now that time and batch are known."""
        if self.sequence is None:
            raise ConfigError("cost: no neuron of the network fires where it can be seen")
        steps, samples = self.sequence
        updates = self.seen.updates.total()
        self.seen.forms.add((steps, (updates - self.updates) / max(1, samples)))
        self.updates = updates
        self.seen.samples += samples
        self.seen.steps += steps * samples
        for given in self.given:
            number = math.prod(given.lead)
            inputs = self.seen.inputs[given.connection].setdefault(
                given.held.shape, Inputs(torch.zeros_like(given.held))
            )
            inputs.held += given.held
            inputs.number += number
            orders = ((steps, samples), (samples, steps))
            timed = given.lead[:2] in orders or given.lead[:1] == (steps * samples,)
            inputs.frames += number // steps if timed else number
        self.given, self.sequence = [], None


def _watch(module: nn.Module, see: Callable[[nn.Module, Tensor], None]) -> None:
    """Show each input of a module. No hook: a twin shares these with the network it is of."""
    forward = module.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        see(module, (*args, *kwargs.values())[0])
        return forward(*args, **kwargs)

    module.__dict__["forward"] = watched
