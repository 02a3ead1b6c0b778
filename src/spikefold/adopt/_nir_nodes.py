"""The nodes of NIR, each as a module for `[T, N, ...]`.

The equations are those of NIR, by the Euler step that all libraries take:

    LIF  tau v' = v_leak - v + r x    u = (1 - dt / tau) v + (r dt / tau) x
    IF   v' = r x                     u = v + r dt x

Ours have no factor before x: the potential is u / factor, and so is the threshold.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikefold.dynamics import Condition, Neuron
from spikefold.errors import AdoptError
from spikefold.models import Scale
from spikefold.nn import LIF, FoldedLIF, OverTime

Shape = tuple[int, ...]
Numbers = NDArray[np.float64]


class Convention(NamedTuple):
    """How NIR's neurons are stepped, which a graph does not say.

    Attributes:
        lif_step: dt of LIF, in seconds.
        if_step: dt of IF.
        at_threshold: whether a potential that equals the threshold fires.
        batched: whether the Input's shape may begin with a batch.
    """

    lif_step: float = 1e-4
    if_step: float = 1e-4
    at_threshold: bool = False
    batched: bool = False


class Fields:
    """A node's fields, as what they should be.

    Arguments:
        name: of the node.
        node: any object with the attributes of a node of `nir`.

    Raises:
        AdoptError: of every method: if a field is absent or something else; names node and field.
    """

    def __init__(self, name: str, node: Any) -> None:
        self.what = f"node {name!r} ({type(node).__name__})"
        self._node = node

    def refused(self, why: str) -> AdoptError:
        """The error for this node."""
        return AdoptError(f"from_nir: {self.what}: {why}")

    def _read(self, name: str) -> NDArray[Any]:
        try:
            value = np.asarray(getattr(self._node, name))
        except Exception as error:  # of torch and numpy, for whatever stands there
            raise self.refused(f"has no {name} that can be read") from error
        if value.dtype.kind not in "fiub":
            raise self.refused(f"{name} is not made of numbers")
        return value

    def weights(self, name: str) -> Tensor:
        """A float32 tensor of its own, all of it finite."""
        with np.errstate(over="ignore"):
            value = torch.from_numpy(np.array(self._read(name), dtype=np.float32))
        if not bool(torch.isfinite(value).all()):
            raise self.refused(f"{name} is NaN, infinite or beyond float32")
        return value

    def sizes(self, name: str, count: int) -> tuple[int, ...]:
        """So many whole numbers; a single one stands for all."""
        values = self._read(name).reshape(-1)
        if values.size not in (1, count) or not np.array_equal(values, np.round(values)):
            raise self.refused(f"{name} must be {count} whole numbers, got {values.tolist()[:9]}")
        return tuple(int(value) for value in np.broadcast_to(values, (count,)))

    def padding(self, count: int) -> str | tuple[int, ...]:
        """Of a convolution, which may have it by name."""
        value = getattr(self._node, "padding", None)
        return value if isinstance(value, str) else self.sizes("padding", count)

    def numbers(self, name: str, shape: Shape) -> Numbers:
        """One number a neuron, or one for all `()`."""
        values = self._read(name).astype(np.float64)
        if values.shape not in ((), shape):
            raise self.refused(f"{name} is {list(values.shape)}, its input {list(shape)}")
        return values

    def require_zero(self, name: str, shape: Shape) -> None:
        """Refuse a field that is there and not 0."""
        if getattr(self._node, name, None) is not None and self.numbers(name, shape).any():
            raise self.refused(f"{name} is not 0: only potentials that rest and reset at 0 have "
                               "a counterpart here")  # fmt: skip


def _convolution(dims: int, node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    weight = node.weights("weight")
    if weight.ndim != dims + 2:
        raise node.refused(f"weight is {list(weight.shape)}: it must have {dims + 2} dimensions")
    (groups,) = node.sizes("groups", 1)
    kind: Any = nn.Conv1d if dims == 1 else nn.Conv2d
    stride, dilation = (node.sizes(name, dims) for name in ("stride", "dilation"))
    sizes = weight.shape[1] * groups, len(weight), tuple(weight.shape[2:])
    made = kind(*sizes, stride, node.padding(dims), dilation, groups, device="meta")
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(node.weights("bias"))
    return made


def _linear(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    weight = node.weights("weight")
    if weight.ndim != 2 or len(shape) != 1:
        raise node.refused(
            f"a weight {list(weight.shape)} for {list(shape)}: only [out, in] for [in] has a "
            "counterpart here; flatten before it"
        )
    made = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
    made.weight = nn.Parameter(weight)
    return made


def _affine(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    made = _linear(node, shape, convention)
    made.bias = nn.Parameter(node.weights("bias"))
    return made


def _pool(divisor: int | None, node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    kernel, stride, padding = (node.sizes(n, 2) for n in ("kernel_size", "stride", "padding"))
    return nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor)  # type: ignore[arg-type]


def _flatten(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    """Its dimensions leave out the batch."""
    (start,), (end,) = node.sizes("start_dim", 1), node.sizes("end_dim", 1)
    return nn.Flatten(start + (start >= 0), end + (end >= 0))


def _scale(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    node.numbers("scale", shape)
    return Scale(node.weights("scale"))


def _nothing(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    return nn.Identity()


def _lif(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    node.require_zero("v_leak", shape)
    with np.errstate(divide="ignore"):
        share = convention.lif_step / node.numbers("tau", shape)
    if not ((share >= 0) & (share <= 1)).all():
        raise node.refused(f"tau is less than dt = {convention.lif_step:g}")
    return _neurons(node, shape, 1 - share, node.numbers("r", shape) * share, convention)


def _if(node: Fields, shape: Shape, convention: Convention) -> nn.Module:
    factor = node.numbers("r", shape) * convention.if_step
    return _neurons(node, shape, np.ones(()), factor, convention)


def _neurons(
    node: Fields, shape: Shape, decay: Any, factor: Any, convention: Convention
) -> nn.Module:
    """Neurons that fire where factor · u, with our u, is above the threshold."""
    node.require_zero("v_reset", shape)
    if not (np.isfinite(factor) & (factor != 0)).all():
        raise node.refused("r must be finite and not 0, or nothing reaches the potential")
    # r and tau may be rounded to float32, and are meant to cancel
    factor = np.where(np.isclose(factor, 1, rtol=1e-6, atol=0), 1.0, factor)
    sign = np.sign(factor)
    with np.errstate(over="ignore", under="ignore"):
        theta = (node.numbers("v_threshold", shape) / factor).astype(np.float32)
    if np.isnan(theta).any():
        raise node.refused("v_threshold is NaN")
    if convention.at_threshold:
        theta = np.nextafter(theta, np.float32(-np.inf) * sign.astype(np.float32))
    theta, sign, decay = map(_fewest, (theta, sign, decay))
    if decay.ndim > 1:
        raise node.refused("tau differs from place to place: only one a channel can be kept")
    constants = Neuron(decay=float(decay)) if decay.ndim == 0 else Neuron()
    if decay.ndim == theta.ndim == sign.ndim == 0 and sign > 0 and np.isfinite(theta):
        return LIF.of(Neuron(decay=constants.decay, threshold=float(theta)))
    ndim = max(theta.ndim, sign.ndim)
    theta, sign = np.broadcast_arrays(_like(theta, ndim), _like(sign, ndim))
    condition = Condition(None, _tensor(theta)[None], _tensor(sign)[None])
    return FoldedLIF(condition, constants, _tensor(decay) if decay.ndim else None)


def _fewest(numbers: Any) -> NDArray[Any]:
    """One number where all are equal, one a channel where those of each are, or all of them."""
    values = np.asarray(numbers)
    for kept in range(min(2, values.ndim)):
        first = np.asarray(values[(slice(None),) * kept + (0,) * (values.ndim - kept)])
        if (values == _like(first, values.ndim)).all():
            return first
    return values


def _like(values: NDArray[Any], ndim: int) -> NDArray[Any]:
    """With dimensions of size 1 behind."""
    return values.reshape(values.shape + (1,) * (ndim - values.ndim)) if values.ndim else values


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


Maker = Callable[[Fields, Shape, Convention], nn.Module]
NEURONS: dict[str, Maker] = {"LIF": _lif, "IF": _if}
LAYERS: dict[str, Maker] = {
    "Conv1d": partial(_convolution, 1),
    "Conv2d": partial(_convolution, 2),
    "Linear": _linear,
    "Affine": _affine,
    "SumPool2d": partial(_pool, 1),
    "AvgPool2d": partial(_pool, None),
    "Flatten": _flatten,
    "Scale": _scale,
    # of graphs inside graphs
    "Input": _nothing,
    "Output": _nothing,
}


def made_of(node: Fields, kind: str, shape: Shape, convention: Convention) -> nn.Module:
    """The module for `[T, N, ...]` that computes what a node does.

    Arguments:
        node: its fields.
        kind: the name of its class.
        shape: of one sample of its input.
        convention: of the neurons.

    Raises:
        AdoptError: if there is none; names the node.
    """
    make = NEURONS.get(kind) or LAYERS.get(kind)
    if make is None:
        known = ", ".join((*NEURONS, *(name for name in LAYERS if name not in ("Input", "Output"))))
        raise node.refused(f"has no counterpart here: known are {known}")
    try:
        made = make(node, shape, convention)
    except AdoptError:
        raise
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # of torch's modules
        raise node.refused(" ".join(str(error).split())) from error
    return made if kind in NEURONS else OverTime(made)
