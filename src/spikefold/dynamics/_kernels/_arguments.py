"""What the operators take, and what they refuse."""

import math
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from torch import Tensor

from spikefold.dynamics._check import check_layer
from spikefold.dynamics._neuron import Reset
from spikefold.dynamics._surrogate import Form, require_form
from spikefold.errors import ConfigError, ShapeError

Tensors = tuple[Tensor | None, ...]

# in the order of the `enum` in `csrc/layer.h`
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Arguments(NamedTuple):
    """Of the operator: tensors that may get a gradient, tensors that get none, plain values.

    Attributes:
        input: `[T, N, C, *spatial]`, or `[1, N, C, *spatial]` for all steps.
        decays: `[]` or `[C]`, used instead of decay; or None.
        current_*: the norm after the connection, `[1, C]` or `[T, C]`; no eps: none; no mean: the
            batch's statistics.
        gain, shift, mean, variance, eps: the norm before the firing condition, likewise, `[1, C]`
            or `[1, C, *spatial]`, or T of them. A gain without eps is the thresholds' polarity.
        thresholds: theta, likewise, or None.
        steps: T.
        shape, scale, height, window: the surrogate's `Form`.
        others: see `Neuron`.
    """

    input: Tensor
    shortcut: Tensor | None
    v: Tensor | None
    decays: Tensor | None
    current_gain: Tensor | None
    current_shift: Tensor | None
    gain: Tensor | None
    shift: Tensor | None
    current_mean: Tensor | None
    current_variance: Tensor | None
    mean: Tensor | None
    variance: Tensor | None
    thresholds: Tensor | None
    steps: int
    current_eps: float | None
    eps: float | None
    decay: float
    threshold: float
    reset: str
    detach_reset: bool
    shape: str
    scale: float
    height: float
    window: float

    @property
    def sequence(self) -> tuple[int, ...]:
        """`(T, N, C, *spatial)`."""
        return (self.steps, *self.input.shape[1:])

    @property
    def parameters(self) -> tuple[int, ...]:
        """The shape of the condition's parameters without time, `(C,)` or `(C, *spatial)`."""
        given = next((tensor for tensor in self.potential if tensor is not None), None)
        return tuple(self.input.shape[2:3] if given is None else given.shape[1:])

    @property
    def current(self) -> Tensors:
        """The tensors of the norm after the connection."""
        return self.current_gain, self.current_shift, self.current_mean, self.current_variance

    @property
    def potential(self) -> Tensors:
        """The tensors of the firing condition."""
        return self.gain, self.shift, self.mean, self.variance, self.thresholds

    @property
    def observes_current(self) -> bool:
        """Whether the norm after the connection takes the batch's statistics."""
        return self.current_eps is not None and self.current_mean is None

    @property
    def observes_potential(self) -> bool:
        """Whether the norm before the firing condition takes the batch's statistics."""
        return self.eps is not None and self.mean is None


# How many of the arguments may get a gradient, and are tensors.
GRADIENTS = Arguments._fields.index("current_mean")
TENSORS = Arguments._fields.index("steps")


def _schema() -> str:
    """The arguments as torch's schema language has them."""
    names = {Tensor: "Tensor", int: "int", float: "float", str: "str", bool: "bool"}
    parts = []
    for name, kind in get_type_hints(Arguments).items():
        optional = type(None) in get_args(kind)
        base = next((k for k in get_args(kind) if k is not type(None)), kind)
        parts.append(f"{names[base]}{'?' if optional else ''} {name}")
    return ", ".join(parts)


SCHEMA = _schema()


def obstacle(a: Arguments) -> str | None:
    """Why the kernels cannot take these tensors, whatever their shapes; None if they can."""
    x, device = a.input, a.input.device
    if x.dtype not in DTYPES:
        return f"inputs are {x.dtype}, not float32, bfloat16 or float16"
    for tensor in (a.shortcut, a.v, a.decays, *a.current, *a.potential):
        if tensor is None:
            continue
        if tensor.device != device:
            return f"tensors lie on {device} and on {tensor.device}"
        if tensor is a.shortcut:
            if tensor.dtype != x.dtype:
                return f"the shortcut is {tensor.dtype}, the input {x.dtype}"
        elif tensor.dtype != torch.float32:
            return f"parameters or potentials are {tensor.dtype}, not float32"
    if a.observes_current and any(t is not None and len(t) > 1 for t in a.current):
        return "statistics over all steps, but a gain for each"
    dimensions = len(a.parameters)
    if dimensions not in (1, x.ndim - 2):
        return f"parameters of {dimensions} dimensions are neither per channel nor per element"
    if a.observes_current and dimensions > 1:
        return "statistics of channels do not go together with element-wise parameters"
    return None


def check(a: Arguments) -> None:
    """Refuse what would make a kernel read or write where it must not.

    Raises:
        ShapeError: if shapes do not fit together.
    """
    check_layer(
        a.input,
        a.steps,
        a.shortcut,
        a.v,
        a.current,
        a.potential,
        decay=a.decays,
        takes_current=a.observes_current,
        takes_potential=a.observes_potential,
    )


def check_call(a: Arguments) -> Arguments:
    """The same for direct calls of the operator, whose arguments may be anything.

    Raises:
        ShapeError: if shapes do not fit together.
        ConfigError: if there are no kernels for this, or the arguments contradict each other.
    """
    if a.input is None:  # torch takes None for any tensor
        raise ConfigError("spikefold::layer: input is None")
    check(a)
    problem = obstacle(a)
    if problem is not None:
        raise ConfigError(f"spikefold::layer: {problem}")
    dense = (t for t in a if isinstance(t, Tensor))
    if any(t.layout != torch.strided for t in dense):
        raise ConfigError("spikefold::layer: tensors must be dense (strided)")
    if (a.current_mean is None) != (a.current_variance is None) or (
        (a.mean is None) != (a.variance is None)
    ):
        raise ConfigError("spikefold::layer: mean and variance go together")
    if a.current_eps is None and any(t is not None for t in a.current):
        raise ConfigError("spikefold::layer: a norm after the connection needs current_eps")
    if a.eps is None and (a.shift is not None or a.mean is not None):
        raise ConfigError("spikefold::layer: a norm of the potential needs eps")
    if a.thresholds is not None and a.eps is not None:
        raise ConfigError("spikefold::layer: thresholds are folded, or there is a norm: not both")
    if a.thresholds is None and a.eps is None and a.gain is not None:
        raise ConfigError("spikefold::layer: polarity (gain without eps) needs thresholds")
    if not (0 <= a.decay <= 1 and math.isfinite(a.threshold)):
        raise ConfigError(
            f"spikefold::layer: decay must lie in [0, 1] and threshold be finite, got {a.decay} "
            f"and {a.threshold}"
        )
    require_form("spikefold::layer", Form(a.shape, a.scale, a.height, a.window))
    if a.reset not in get_args(Reset):
        raise ConfigError(f"spikefold::layer: reset must be hard or soft, got {a.reset!r}")
    return a


def check_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    current: Tensor,
    potential: Tensor,
    needed: list[bool],
    *arguments: Any,
) -> Arguments:
    """`check_call`, and that gradients and statistics are those of the layer."""
    a = check_call(Arguments(*arguments))
    expected = {
        "grad_spikes": (grad_spikes, a.sequence),
        "grad_v": (grad_v, a.sequence[1:]),
        "current": (current, (2, 1, *a.sequence[2:3]) if a.observes_current else (0,)),
        "potential": (
            potential,
            (2, a.steps, *a.parameters) if a.observes_potential else (0,),
        ),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None and name.startswith("grad"):
            continue
        if tensor is None:
            raise ConfigError(f"spikefold::layer_backward: {name} is None")
        if tuple(tensor.shape) != tuple(shape):
            raise ShapeError(
                f"spikefold::layer_backward: {name} of shape {list(tensor.shape)}, "
                f"expected {list(shape)}"
            )
        wrong = tensor.device != a.input.device or tensor.layout != torch.strided
        if wrong or not tensor.is_floating_point():
            raise ConfigError(
                f"spikefold::layer_backward: {name} must be a dense tensor of floats on "
                f"{a.input.device}"
            )
    for tensor in (current, potential):
        if tensor.dtype != torch.float32:
            raise ConfigError("spikefold::layer_backward: statistics must be float32")
    if len(needed) != GRADIENTS:
        raise ConfigError(f"spikefold::layer_backward: needed has {GRADIENTS} entries")
    return a
