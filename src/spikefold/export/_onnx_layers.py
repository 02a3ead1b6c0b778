"""Each kind of operation as ONNX nodes that compute what torch computes, in its order."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.export._affine import affine, window
from spikefold.export._known import ADAPTIVE_MAXIMA, MAXIMA
from spikefold.export._onnx_graph import Builder
from spikefold.export._walk import Operation, Time, Value
from spikefold.nn import SpikingNeuron


@runtime_checkable
class Over(Protocol):
    """How a layout goes over time; `out` gets the nodes."""

    out: Builder

    def split(self, x: str, value: Value) -> list[str]:
        """A value at each of the steps that this graph computes, `[N, *shape]`."""

    def join(self, steps: Sequence[str], wish: str) -> str:
        """The steps as one value."""

    def alike(self, x: str, time: Time, of: Time) -> str:
        """A value at all steps, where it stands still and another does not."""

    def mean(self, x: str, value: Value, wish: str) -> str:
        """Over time."""

    def parameter(self, value: Tensor, wish: str) -> Callable[[int], str]:
        """A tensor `[1, ...]` or `[T, ...]` as what it is at each of these steps."""

    def begun(self, operation: Operation) -> str | None:
        """The potential of neurons before the first of these steps; None at rest."""

    def fired(self, operation: Operation, spikes: str, v: str) -> None:
        """Take note of spikes of all these steps, and of the potential after the last."""


Inputs = list[tuple[str, Value]]


def connection(over: Over, operation: Operation, inputs: Inputs) -> str:
    """Convolution, or linear layer."""
    module, out, name, ((x, _),) = operation.module, over.out, operation.name, inputs
    if isinstance(module, nn.Linear):
        weight = out.constant(module.weight.t().contiguous(), f"{name}.weight")
        result = out.add("MatMul", [x, weight], name)
        if module.bias is None:
            return result
        return out.add("Add", [result, out.constant(module.bias, f"{name}.bias")], name)
    taken = [x, out.constant(module.weight, f"{name}.weight")]
    if module.bias is not None:
        taken.append(out.constant(module.bias, f"{name}.bias"))
    return out.add(
        "Conv",
        taken,
        name,
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=_conv_pads(module),
        dilations=list(module.dilation),
        group=module.groups,
    )


def _conv_pads(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[int]:
    """At the beginnings, then at the ends."""
    if not isinstance(module.padding, str):
        return [*module.padding] * 2
    if module.padding == "valid":
        return [0, 0] * len(module.kernel_size)
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return [*(r // 2 for r in reach), *(r - r // 2 for r in reach)]


def norm(over: Over, operation: Operation, inputs: Inputs) -> str:
    """A norm by running statistics: subtract (if not 0), multiply, add, rounded as ours.

    ONNX's BatchNormalization rounds otherwise, which flips spikes.
    """
    (x, value), name = inputs[0], operation.name
    of_module = affine(operation.module, len(value.shape))
    parameters = [
        (kind, over.parameter(tensor, f"{name}.{kind.lower()}"))
        for kind, tensor in zip(("Sub", "Mul", "Add"), of_module, strict=True)
        if kind != "Sub" or tensor.any()
    ]

    def at(x: str, t: int) -> str:
        for kind, parameter in parameters:
            x = over.out.add(kind, [x, parameter(t)], name)
        return x

    if all(len(tensor) == 1 for tensor in of_module):
        return at(x, 0)
    return over.join([at(step, t) for t, step in enumerate(over.split(x, value))], name)


def standardize(over: Over, operation: Operation, inputs: Inputs) -> str:
    """(x - mean) / deviation."""
    module, ((x, _),) = operation.module, inputs
    for kind, value in (("Sub", module.mean), ("Div", module.deviation)):
        constant = over.out.constant(value[:, None, None], f"{operation.name}.{kind.lower()}")
        x = over.out.add(kind, [x, constant], operation.name)
    return x


def pool(over: Over, operation: Operation, inputs: Inputs) -> str:
    """Average, sum or maximum over windows.

    What torch's ceil_mode adds is said as padding at the ends: runtimes disagree about that mode.
    """
    module, ((x, value),) = operation.module, inputs
    over_what = window(operation, value.shape)
    attributes = {
        "kernel_shape": over_what.kernel,
        "strides": over_what.stride,
        "pads": [*over_what.begin, *over_what.end],
    }
    if isinstance(module, MAXIMA + ADAPTIVE_MAXIMA):
        return over.out.add(
            "MaxPool", [x], operation.name, dilations=over_what.dilation, **attributes
        )
    if over_what.divisor is not None:
        channels, divisor = value.shape[0], over_what.divisor
        return _sum(over.out, operation.name, x, channels, divisor, **attributes)
    return over.out.add(
        "AveragePool", [x], operation.name, count_include_pad=int(over_what.counts), **attributes
    )


def _sum(out: Builder, name: str, x: str, channels: int, divisor: int, **where: list[int]) -> str:
    """Sums over windows, divided: an average times its count would round sums of spikes."""
    ones = out.constant(torch.ones(channels, 1, *where["kernel_shape"]), f"{name}.ones")
    total = out.add("Conv", [x, ones], name, group=channels, **where)
    if divisor == 1:
        return total
    return out.add("Div", [total, out.constant(torch.tensor(float(divisor)), f"{name}.by")], name)


def reshape(over: Over, operation: Operation, inputs: Inputs) -> str:
    """The same elements in the same order."""
    shape = over.out.constant([-1, *operation.value.shape], f"{operation.name}.shape")
    return over.out.add("Reshape", [inputs[0][0], shape], operation.name)


def add(over: Over, operation: Operation, inputs: Inputs) -> str:
    """The sum of two."""
    return over.out.add("Add", _alike(over, operation, inputs), operation.name)


def concatenate(over: Over, operation: Operation, inputs: Inputs) -> str:
    """Channels side by side."""
    return over.out.add("Concat", _alike(over, operation, inputs), operation.name, axis=1)


def _alike(over: Over, operation: Operation, inputs: Inputs) -> list[str]:
    return [over.alike(x, value.time, operation.value.time) for x, value in inputs]


def mean_over_space(over: Over, operation: Operation, inputs: Inputs) -> str:
    """Of each channel."""
    (x, value), keep = inputs[0], len(operation.value.shape) > 1
    axes = over.out.constant(list(range(2, 1 + len(value.shape))), "space")
    return over.out.add("ReduceMean", [x, axes], operation.name, keepdims=int(keep))


def mean_over_time(over: Over, operation: Operation, inputs: Inputs) -> str:
    """Of what differs from step to step."""
    x, value = inputs[0]
    return over.mean(x, value, operation.name)


def neurons(over: Over, operation: Operation, inputs: Inputs) -> str:
    """Charge, fire, reset, at each step.

    u = decay · v + x;  s = 1[polarity · u > polarity · theta];  v = u · (1 - s)
    """
    (x, value), module, name, out = inputs[0], operation.module, operation.name, over.out
    assert isinstance(module, SpikingNeuron)
    condition, dims = module.condition(), len(value.shape)
    limits, polarity = condition.limits(), condition.polarity
    if limits is None:
        limits = torch.tensor([module.constants.threshold])
    limit = over.parameter(_per_neuron(limits, dims), f"{name}.theta")
    sign = None
    if polarity is not None and bool((polarity != 1).any()):
        sign = over.parameter(_per_neuron(polarity, dims), f"{name}.polarity")
    charge, reset = _charge(over, operation), _reset(over, operation)
    v, fired = over.begun(operation), []
    for t, current in enumerate(over.split(x, value)):
        u = current if v is None else charge(v, current)
        h = u if sign is None else out.add("Mul", [u, sign(t)], f"{name}.h")
        fires = out.add("Greater", [h, limit(t)], f"{name}.fires")
        fired.append(out.add("Cast", [fires], f"{name}.s", to=1))
        v = reset(u, fired[-1])
    spikes = over.join(fired, name)
    assert v is not None
    over.fired(operation, spikes, v)
    return spikes


def _charge(over: Over, operation: Operation) -> Callable[[str, str], str]:
    """U = decay · v + x, rounded twice."""
    module, out, name = operation.module, over.out, operation.name
    learnt = module.decay()
    if learnt is None:
        learnt = torch.tensor(module.constants.decay)
    shape = (-1, *(1,) * (len(operation.value.shape) - 1)) if learnt.ndim else ()
    decay = out.constant(learnt.reshape(shape), f"{name}.decay")

    def charge(v: str, x: str) -> str:
        return out.add("Add", [out.add("Mul", [v, decay], f"{name}.kept"), x], f"{name}.u")

    return charge


def _reset(over: Over, operation: Operation) -> Callable[[str, str], str]:
    """V = u · (1 - s) hard, u - threshold · s soft."""
    constants, out, name = operation.module.constants, over.out, operation.name

    def hard(u: str, s: str) -> str:
        silent = out.add("Sub", [out.constant(1.0, "one"), s], f"{name}.silent")
        return out.add("Mul", [u, silent], f"{name}.v")

    def soft(u: str, s: str) -> str:
        threshold = out.constant(constants.threshold, "threshold")
        return out.add("Sub", [u, out.add("Mul", [s, threshold], f"{name}.taken")], f"{name}.v")

    return hard if constants.reset == "hard" else soft


def _per_neuron(parameter: Tensor, dims: int) -> Tensor:
    """A parameter `[1, ...]` or `[T, ...]` that broadcasts over `[N, C, *spatial]` at each step."""
    return torch.stack([dynamics.per_neuron(one, dims + 1) for one in parameter])


LAYERS: dict[str, Callable[[Over, Operation, Inputs], str]] = {
    "connection": connection,
    "norm": norm,
    "standardize": standardize,
    "pool": pool,
    "reshape": reshape,
    "add": add,
    "concatenate": concatenate,
    "neurons": neurons,
    "mean over space": mean_over_space,
    "mean over time": mean_over_time,
}
