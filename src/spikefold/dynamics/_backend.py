"""Which implementation runs: the fused kernels where they can, else the reference."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal, get_args

from torch import Tensor

from spikefold.dynamics import _kernels
from spikefold.dynamics._layer import Condition, Currents, Fired, reference_layer
from spikefold.dynamics._neuron import Neuron
from spikefold.errors import ConfigError

Backend = Literal["reference", "fused"]

_chosen: Backend | None = None  # of the whole process: threads of a training must agree


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run everything inside with one implementation of the neuron, in all threads.

    Outside, the fused kernels run where they can and the reference where they cannot (float64,
    several processes' statistics, a surrogate of your own, a device without kernels).

    Arguments:
        name: "reference", the equations in plain torch; or "fused", the kernels.

    Raises:
        ConfigError: if there is no such backend; inside, where the kernels cannot do what is asked.

    Example:
        >>> import torch, spikefold as sf
        >>> neuron, x = sf.LIF(sf.MPBN(3)).eval(), torch.randn(4, 2, 3, 8, 8)
        >>> with sf.backend("reference"):
        ...     spikes = neuron(x)
        >>> torch.equal(neuron(x), spikes)
        True
    """
    global _chosen
    if name not in get_args(Backend):
        raise ConfigError(f"backend must be one of {', '.join(get_args(Backend))}, got {name!r}")
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


@cache
def _say_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def layer(
    currents: Currents, condition: Condition, neuron: Neuron, v: Tensor | None = None
) -> Fired:
    """What a layer of neurons does: `reference_layer`, by kernels where they can.

    Arguments:
        currents: what reaches the neurons.
        condition: when they fire.
        neuron: the constants.
        v: membrane potential before the first step; None is zero.

    Raises:
        ShapeError: if something does not fit together.
        ConfigError: inside `backend("fused")`, if the kernels cannot do this.
    """
    if _chosen == "reference":
        return reference_layer(currents, condition, neuron, v)
    obstacle = _kernels.obstacle(currents, condition, neuron, v)
    if obstacle is None:
        return _kernels.fused_layer(currents, condition, neuron, v)
    if _chosen == "fused":
        raise ConfigError(f"the fused kernels cannot run here: {obstacle}")
    if obstacle == _kernels.missing(currents.input.device.type):
        _say_once(f"{obstacle}: the neurons run in plain torch, with the same results but slower")
    return reference_layer(currents, condition, neuron, v)
