"""Which implementation runs: the fused kernels where they can, else the reference."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.nn.modules.utils import _pair

from spikefold.dynamics import _kernels
from spikefold.dynamics._condition import Condition, Normalization, Statistics, is_elementwise
from spikefold.dynamics._layer import (
    Currents,
    by_gain,
    counted,
    simulate_reference,
    with_statistics,
)
from spikefold.dynamics._neuron import Fired, Neuron
from spikefold.dynamics._norm import reference_update
from spikefold.errors import ConfigError

Backend = Literal["reference", "fused"]


@dataclass(eq=False)
class _Entry:
    """One use of `backend(name)` that has not ended."""

    name: Backend
    thread: int = field(default_factory=threading.get_ident)


_entries: list[_Entry] = []
# The name of the last entry. Process-wide, because all threads of a training must agree; a plain
# variable, because torch.compile cannot trace a ContextVar.
_chosen: Backend | None = None


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run everything inside with one implementation of the neuron, in all threads.

    Outside, the fused kernels run where they can and the reference where they cannot (float64,
    several processes' statistics, a surrogate of your own, a device without kernels). Pools, and
    statistics of each step's currents, are torch's wherever kernels cannot take them.

    Arguments:
        name: "reference", the equations in plain torch; or "fused", the kernels.

    Raises:
        ConfigError: if there is no such backend, or another thread is inside with another one;
            inside, where the kernels cannot do what is asked.

    Example:
        >>> import torch, spikefold as sf
        >>> neuron, x = sf.LIF(sf.MPBN(3)).eval(), torch.randn(4, 2, 3, 8, 8)
        >>> with sf.backend("reference"):
        ...     spikes = neuron(x)
        >>> torch.equal(neuron(x), spikes)
        True
    """
    if name not in get_args(Backend):
        raise ConfigError(f"backend must be one of {', '.join(get_args(Backend))}, got {name!r}")
    if torch.compiler.is_dynamo_compiling():  # which cannot trace thread identities
        global _chosen
        before, _chosen = _chosen, name
        try:
            yield
        finally:
            _chosen = before
        return
    entry = _Entry(name)
    # added before the check, so that of two threads that enter at once at least one is refused
    _entries.append(entry)
    try:
        others = {e.name for e in tuple(_entries) if e.thread != entry.thread} - {name}
        if others:
            raise ConfigError(
                f"backend {name!r}: another thread is inside backend({others.pop()!r}), and the "
                "backend holds for the whole process"
            )
        _choose()
        yield
    finally:
        _entries.remove(entry)
        _choose()


def _choose() -> None:
    global _chosen
    entries = tuple(_entries)
    _chosen = entries[-1].name if entries else None


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def simulate(
    currents: Currents,
    condition: Condition,
    constants: Neuron,
    v: Tensor | None = None,
    decay: Tensor | None = None,
) -> Fired:
    """Run the neurons of a layer: `simulate_reference`, by kernels where they can.

    Arguments:
        currents: what reaches the neurons.
        condition: when they fire.
        constants: of the neurons.
        v: membrane potential before the first step; None is zero.
        decay: learnt, replaces the constant one: `[]` or `[C]`; gets a gradient.

    Raises:
        ShapeError: if something does not fit together.
        ConfigError: inside `backend("fused")`, if the kernels cannot do this.
    """
    if _chosen == "reference":
        return simulate_reference(currents, condition, constants, v, decay)
    if _observes_first(currents.norm, condition):
        return _observed_first(currents, condition, constants, v, decay)
    fired = _kernels.simulate_fused(currents, condition, constants, v, decay)
    if not isinstance(fired, str):
        return fired
    if _chosen == "fused":
        currents.check(condition, v, decay)  # a wrong shape is the better reason
        raise ConfigError(
            f"the fused kernels cannot run here: {fired}; "
            'the reference can: spikefold.backend("reference")'
        )
    if fired == _kernels.missing(currents.input.device.type):
        _say_once(f"{fired}: the neurons run in plain torch, with the same results but slower")
    return simulate_reference(currents, condition, constants, v, decay)


def _observes_first(norm: Normalization | None, condition: Condition) -> bool:
    """Whether it takes statistics of the currents that a layer's kernel does not take."""
    if norm is None or norm.fixed is not None:
        return False
    known = norm.over == "all" and norm.group is None and max(map(len, norm[:2])) == 1
    return not known or is_elementwise(condition)


def _observed_first(
    currents: Currents,
    condition: Condition,
    constants: Neuron,
    v: Tensor | None,
    decay: Tensor | None,
) -> Fired:
    """The statistics of the currents first, then the neurons with these as constants."""
    currents.check(condition, v, decay)
    currents, condition = counted(currents, condition)
    norm, observed = with_statistics(currents, _kernels.statistics_of_steps)
    fired = simulate(currents._replace(norm=by_gain(norm)), condition, constants, v, decay)
    return fired._replace(current_statistics=observed)


def update_running(
    running: Statistics, observed: Statistics, momentum: float | None, seen: Tensor, samples: int
) -> None:
    """What `reference_update` does, in compiled code if it can.

    Arguments:
        running, observed, momentum, seen, samples: as there.
    """
    if (
        momentum is None
        or _chosen == "reference"
        or not _kernels.update_running(running, observed, momentum, seen, samples)
    ):
        reference_update(running, observed, momentum, seen, samples)


def average_pool(
    x: Float[Tensor, "..."],
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor:
    """What `torch.nn.functional.avg_pool2d` does, to the bit; 2x2 windows in compiled code.

    Arguments:
        x: `[N, C, H, W]` or `[C, H, W]`.
        kernel, stride, padding, ceil_mode, count_include_pad, divisor: as there.
    """
    rest = (ceil_mode, count_include_pad, divisor)
    averages = None
    if _chosen != "reference":
        pairs = [_pair(p) for p in (kernel, kernel if stride is None else stride, padding)]
        averages = _kernels.average_pool(x, *pairs, *rest)
    return avg_pool2d(x, kernel, stride, padding, *rest) if averages is None else averages
