"""`fused_layer`: what `reference_layer` does, by the kernels; and when it can."""

from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _operators
from spikefold.dynamics._kernels._operators import KERNELS, Arguments
from spikefold.dynamics._layer import (
    Condition,
    Currents,
    Fired,
    Normalization,
    Statistics,
)
from spikefold.dynamics._neuron import Neuron
from spikefold.dynamics._norm import require_samples, sample_count
from spikefold.dynamics._surrogate import SURROGATES, slope
from spikefold.errors import ConfigError, ShapeError

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def missing(device: str) -> str | None:
    """Why there are no kernels for a kind of device that could have some, or None.

    Arguments:
        device: "cpu" or "cuda".
    """
    return KERNELS[device].missing() if device in KERNELS else None


def obstacle(
    currents: Currents, condition: Condition, neuron: Neuron, v: Tensor | None
) -> str | None:
    """Why the kernels cannot run this layer, or None if they can.

    Arguments:
        currents, condition, neuron, v: as for `reference_layer`.
    """
    x = currents.input
    if x.device.type not in KERNELS:
        return f"there are none for {x.device.type}"
    if x.dtype not in _DTYPES:
        return f"inputs are {x.dtype}, not float32, bfloat16 or float16"
    if currents.shortcut is not None and currents.shortcut.dtype != x.dtype:
        return f"the shortcut is {currents.shortcut.dtype}, the input {x.dtype}"
    if SURROGATES.get(neuron.surrogate.name) is not type(neuron.surrogate):
        return f"the surrogate {type(neuron.surrogate).__name__} is not one of theirs"
    for norm in (currents.norm, condition):
        if isinstance(norm, Normalization) and norm.group is not None:
            return "statistics are taken over several processes"
        if isinstance(norm, Normalization) and norm.fixed and norm.fixed[0].requires_grad:
            return "statistics that are fixed need a gradient"
    small = [*_parameters(currents.norm), *_parameters(condition), *([] if v is None else [v])]
    for tensor in small:
        if tensor.dtype != torch.float32:
            return f"parameters or potentials are {tensor.dtype}, not float32"
    for tensor in small if currents.shortcut is None else [*small, currents.shortcut]:
        if tensor.device != x.device:
            return f"tensors lie on {x.device} and on {tensor.device}"
    dimensions = 1 if condition is None else condition[0].ndim
    if dimensions not in (1, x.ndim - 2):
        return f"parameters of {dimensions} dimensions are neither per channel nor per element"
    if currents.norm is not None and dimensions > 1:
        return "element-wise parameters do not go together with a norm after the connection"
    return missing(x.device.type)


def _parameters(condition: Condition) -> list[Tensor]:
    if condition is None:
        return []
    if isinstance(condition, Normalization):
        return [condition.gain, condition.shift, *(condition.fixed or ())]
    theta, polarity = condition
    return [theta] if polarity is None else [theta, polarity]


class Layer(torch.autograd.Function):
    """The operator without the dispatcher, for eager mode."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        run = KERNELS[arguments[0].device.type].forward
        outputs = _operators.forward(run, *arguments)
        _operators.save(ctx, arguments, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ConfigError(
                "the fused kernels have no second derivative (create_graph=True): run forward "
                'inside spikefold.backend("reference")'
            )

        def run(*arguments: Any) -> tuple[Tensor, ...]:
            kernel = KERNELS[arguments[2].device.type].backward
            return _operators.backward(kernel, *arguments)

        return _operators.differentiate(run, ctx, *grads)


def _check(currents: Currents, condition: Condition, v: Tensor | None) -> None:
    """Refuse what the reference refuses."""
    currents.check()
    shape = currents.shape[1:]
    if v is not None and tuple(v.shape) != shape:
        raise ShapeError(f"state of shape {list(v.shape)} for an input step {list(shape)}")
    parameters = () if condition is None else tuple(condition[0].shape)
    if parameters != shape[1 : 1 + len(parameters)]:
        raise ShapeError(f"parameters of shape {list(parameters)} for an input step {list(shape)}")
    for norm in (currents.norm, condition):
        shapes = [list(tensor.shape) for tensor in _parameters(norm)]
        if any(other != shapes[0] for other in shapes):
            raise ShapeError(f"parameters of one norm differ in shape: {shapes}")
    if isinstance(condition, Normalization) and condition.fixed is None:
        require_samples(sample_count(shape, parameters), shape, parameters)
    if currents.norm is not None and currents.norm.fixed is None:
        merged = (currents.input.shape[0] * shape[0], *shape[1:])
        require_samples(sample_count(merged, shape[1:2]), merged, shape[1:2])


def _run(arguments: Arguments) -> tuple[Tensor, ...]:
    if torch.compiler.is_compiling() or type(arguments.input) is not Tensor:
        return torch.ops.spikefold.layer.default(*arguments)
    if torch.is_grad_enabled():
        return Layer.apply(*arguments)
    return _operators.forward(KERNELS[arguments.input.device.type].forward, *arguments)


def _norm(norm: Normalization) -> tuple[Any, ...]:
    """gain, shift, mean, variance, eps of `Arguments`."""
    return norm.gain, norm.shift, *(norm.fixed or (None, None)), norm.eps


_NO_NORM = (None,) * 5


def fused_layer(
    currents: Currents, condition: Condition, neuron: Neuron, v: Tensor | None = None
) -> Fired:
    """`reference_layer`, by the kernels; only where there is no `obstacle`.

    Spikes equal the reference's, in training but where a potential lies within float32's error of
    summation of the threshold, in inference without exception. Not twice differentiable.

    Arguments:
        currents, condition, neuron, v: as for `reference_layer`.
    """
    _check(currents, condition, v)
    after = _NO_NORM if currents.norm is None else _norm(currents.norm)
    norm: tuple[Any, ...] = _NO_NORM
    thresholds: Tensor | None = None
    if isinstance(condition, Normalization):
        norm = _norm(condition)
    elif condition is not None:
        theta, polarity = condition
        thresholds = theta if polarity is None else polarity * theta
        norm = (polarity, None, None, None, None)
    constants = (neuron.decay, neuron.threshold, neuron.reset, neuron.surrogate.name)
    tensors = (currents.input, currents.steps, currents.shortcut, v, *after, *norm, thresholds)
    arguments = Arguments._make(
        (*tensors, *constants, slope(neuron.surrogate), neuron.detach_reset)
    )
    spikes, last, current, potential = _run(arguments)
    return Fired(
        spikes,
        last,
        Statistics(*current.unbind()) if arguments.observes_current else None,
        Statistics(*potential.unbind()) if arguments.observes_potential else None,
    )
