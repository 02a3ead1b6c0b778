"""What `reference_layer` does, by the kernels; and when they can."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import _len_torch_dispatch_stack_pre_dispatch
from torch.autograd import forward_ad

from spikefold.dynamics._condition import Condition, Normalization, Statistics
from spikefold.dynamics._kernels import _arguments, _cpu, _operators
from spikefold.dynamics._kernels._arguments import KERNELS, Arguments
from spikefold.dynamics._layer import Currents
from spikefold.dynamics._neuron import Fired, Neuron
from spikefold.dynamics._norm import Observed, sample_count
from spikefold.dynamics._surrogate import form_of
from spikefold.errors import ConfigError


def missing(device: str) -> str | None:
    """Why there are no kernels for a kind of device that could have some, or None.

    Arguments:
        device: "cpu" or "cuda".
    """
    return KERNELS[device].missing() if device in KERNELS else None


_NO_NORM = (None, None, None, None, None)


def prepare(
    currents: Currents,
    condition: Condition,
    neuron: Neuron,
    v: Tensor | None,
    decay: Tensor | None = None,
) -> Arguments | str:
    """A layer as the operator takes it, or why the kernels cannot run it.

    Arguments:
        currents, condition, neuron, v, decay: as for `reference_layer`.

    Raises:
        ShapeError: if something does not fit together.
    """
    x, steps, norm, shortcut = currents
    membrane = condition.norm
    if x.ndim > 2:
        condition = condition.per_channel(x.shape[2])
    if not (membrane is None or isinstance(membrane, Normalization)):
        return "the firing condition is a function, or a module with hooks"
    for each in (norm, membrane):
        if each is not None and each.fixed is None and each.group is not None:
            return "statistics are taken over several processes"
        if each is not None and any(value.requires_grad for value in each.fixed or ()):
            return "statistics that are fixed need a gradient"
    form = form_of(neuron.surrogate)
    if form is None:
        return f"the surrogate {type(neuron.surrogate).__name__} has a derivative of its own"
    after = _NO_NORM if norm is None else _norm(norm)
    before = _NO_NORM if membrane is None else _norm(membrane)
    if condition.polarity is not None:
        before = (condition.polarity, None, None, None, None)
    if steps > 1 and x.ndim and len(x) == steps and x.stride(0) == 0 and not x.requires_grad:
        x = x[:1]  # the same memory at all steps: computed once, as it is
    tensors = (x, steps, shortcut, v, *after, *before, condition.theta, decay)
    constants = (neuron.decay, neuron.threshold, neuron.reset, neuron.detach_reset)
    arguments = Arguments._make((*tensors, *constants, *form))
    if x.device.type not in KERNELS:
        return f"there are none for {x.device.type}"
    return _arguments.obstacle(arguments) or _transformed(arguments) or arguments


def _norm(norm: Normalization) -> tuple[Any, ...]:
    return norm.gain, norm.shift, *(norm.fixed or (None, None)), norm.eps


def _transformed(arguments: Arguments) -> str | None:
    """Why an operator with a backward pass only does not do, or None."""
    if torch._C._functorch.maybe_current_level() is not None:
        return "torch.func (grad, vmap, jvp) takes the layer apart"
    if forward_ad._current_level >= 0:
        return "derivatives are taken in forward mode"
    return KERNELS[arguments.input.device.type].missing()


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
            raise ConfigError(_operators.NO_SECOND_DERIVATIVE)

        def run(*arguments: Any) -> tuple[Tensor, ...]:
            if _is_looked_on(arguments[:2]):  # the gradients: the rest was plain in forward
                return torch.ops.spikefold.layer_backward.default(*arguments)
            kernel = KERNELS[arguments[2].device.type].backward
            return _operators.backward(kernel, *arguments)

        return _operators.differentiate(run, ctx, *grads)


def _is_looked_on(tensors: tuple[Any, ...]) -> bool:
    """Whether anything but plain eager mode watches or takes apart what is called.

    Then the operator has to go through torch's dispatcher: a compiler, a tracer, a mode, a tensor
    that is not what its memory says.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or _len_torch_dispatch_stack_pre_dispatch() > 0
    ):
        return True
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN or tensor.is_neg() or tensor._is_zerotensor():
            return True
    return False


_PLAIN = (Tensor, nn.Parameter)


def fused_layer(arguments: Arguments) -> Fired:
    """What `reference_layer` does, by the kernels.

    Arguments:
        arguments: what `prepare` made of the layer.

    Raises:
        ShapeError: if something does not fit together.
    """
    spikes, last, current, potential = _run(arguments)
    shown, *step = arguments.input.shape
    return Fired(
        spikes,
        last,
        _observed(current, step, shown) if arguments.observes_current else None,
        _observed(potential, step) if arguments.observes_potential else None,
    )


def _observed(statistics: Tensor, step: list[int], steps: int = 1) -> Observed:
    mean, variance = statistics.unbind()
    return Observed(mean, variance, steps * sample_count(step, mean.shape[1:]))


def _run(arguments: Arguments) -> tuple[Tensor, ...]:
    if _is_looked_on(arguments.tensors):
        return torch.ops.spikefold.layer.default(*arguments)
    _arguments.check(arguments)
    if torch.is_grad_enabled():
        return Layer.apply(*arguments)
    return _operators.forward(KERNELS[arguments.input.device.type].forward, *arguments)


def update_running(
    running: Statistics, observed: Statistics, momentum: float, samples: int
) -> bool:
    """`dynamics.update_running` in compiled code; whether it was done.

    Arguments:
        running, observed, momentum, samples: as there.
    """
    x = running.mean
    transformed = torch._C._functorch.maybe_current_level() is not None
    if x.device.type != "cpu" or transformed or _is_looked_on((*running, *observed)):
        return False
    steps = len(observed.mean) if len(x) == 1 else 1
    unbiased = samples / (samples - 1)
    return _cpu.update_running(
        running.mean, observed.mean, steps, momentum, 1.0
    ) and _cpu.update_running(running.variance, observed.variance, steps, momentum, unbiased)
