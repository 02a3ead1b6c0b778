"""The kernels as torch operators, `spikefold::layer` and `spikefold::layer_backward`.

The operators are what torch.compile and torch.export see; eager mode calls the same functions
through `_fused.Layer` without the dispatcher, whose cost would show in small layers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _arguments, _memory
from spikefold.dynamics._kernels._arguments import (
    DIFFERENTIABLE_AT,
    KERNELS,
    Arguments,
    check_backward,
    check_call,
)
from spikefold.dynamics._kernels._problem import Norm, Problem
from spikefold.errors import ConfigError

_SCHEMA = (
    "Tensor input, int steps, Tensor? shortcut, Tensor? v, "
    "Tensor? current_gain, Tensor? current_shift, Tensor? current_mean, "
    "Tensor? current_variance, float? current_eps, "
    "Tensor? gain, Tensor? shift, Tensor? mean, Tensor? variance, float? eps, "
    "Tensor? thresholds, float decay, float threshold, str reset, str surrogate, float slope, "
    "bool detach_reset"
)


def _allocate(a: Arguments) -> tuple[Tensor, ...]:
    """Spikes, last potential, means and variances of currents and of potentials.

    The last two are `[2, C]` and `[2, T, *shape]`, empty where no statistics are taken.
    """
    last = _memory.is_channels_last(a.input)
    steps, *step = a.shape
    spikes = _memory.empty((steps,), tuple(step), last, a.input)
    v = _memory.empty((), tuple(step), last, a.input, torch.float32)
    current, potential = _nothing(a), _nothing(a)
    if a.observes_current:
        current = _memory.empty_parameters((2,), a.shape[2:3], last, v)
    if a.observes_potential:
        potential = _memory.empty_parameters((2, a.steps), a.parameters, last, v)
    return spikes, v, current, potential


def _nothing(a: Arguments) -> Tensor:
    return a.input.new_empty(0, dtype=torch.float32)


def _allocate_gradients(a: Arguments, needed: list[bool]) -> tuple[Tensor, ...]:
    """Gradients of input, shortcut, v, of gain and shift `[2, C]` of the currents' norm and
    `[2, *shape]` of the potential's; empty where not needed.

    Without a norm after the connection the shortcut's gradient is the input's, which always is
    there; the operator returns it once.
    """
    last = _memory.is_channels_last(a.input)
    steps, *step = a.input.shape
    x = _memory.empty((steps,), tuple(step), last, a.input)
    shortcut, v, current, potential = (_nothing(a) for _ in range(4))
    if needed[1] and not _shares_gradient(a):
        shortcut = _memory.empty((a.steps,), tuple(step), last, a.input)
    if needed[2]:
        v = _memory.empty((), tuple(step), last, a.input, torch.float32)
    if needed[3] or needed[4]:
        current = _memory.empty_parameters((2,), a.shape[2:3], last, a.input).zero_()
    if needed[5] or needed[6]:
        potential = _memory.empty_parameters((2,), a.parameters, last, a.input).zero_()
    return x, shortcut, v, current, potential


def _shares_gradient(a: Arguments) -> bool:
    return a.current_eps is None and a.input.shape[0] == a.steps


def _problem(a: Arguments, current: Tensor, potential: Tensor) -> Problem:
    """The kernel's view of the arguments and of the batch statistics, `[2, ...]` each."""
    last = _memory.is_channels_last(a.input)
    # a gradient is written for every step of the input: they must not share memory
    shared = a.input.shape[0] > 1 and a.input.stride(0) == 0
    x = _memory.arranged(a.input, last, steps_dense=shared)
    shortcut = None if a.shortcut is None else _memory.arranged(a.shortcut, last)
    rows, groups, inner = _memory.sizes(a.shape[1:], last, len(a.parameters) > 1)

    def parameter(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else _memory.flat(tensor, last)

    current_norm = None
    if a.current_eps is not None:
        fixed = (parameter(a.current_mean), parameter(a.current_variance))
        mean, variance = current.contiguous().unbind() if a.observes_current else fixed
        gain, shift = parameter(a.current_gain), parameter(a.current_shift)
        current_norm = Norm(gain, shift, mean, variance, a.current_eps, a.observes_current)
    gain, shift = parameter(a.gain), parameter(a.shift)
    mean, variance = parameter(a.mean), parameter(a.variance)
    if a.observes_potential:
        mean, variance = _memory.in_memory(potential, last, 2).contiguous().unbind()
    norm = Norm(gain, shift, mean, variance, a.eps or 0.0, a.observes_potential)
    return Problem(
        steps=a.steps,
        rows=rows,
        groups=groups,
        inner=inner,
        input_step=rows * groups * inner if a.steps == 1 else _step(x),
        shortcut_step=0 if shortcut is None else shortcut.stride(0),
        neuron=_arguments.neuron(*a[-6:]),
        current=current_norm,
        potential=norm,
        thresholds=parameter(a.thresholds),
        input=x,
        shortcut=shortcut,
        v=None if a.v is None else _memory.arranged(a.v[None], last)[0],
    )


def _step(x: Tensor) -> int:
    return 0 if x.shape[0] == 1 else x.stride(0)


def forward(run: Callable[[Problem], None], *arguments: Any) -> tuple[Tensor, ...]:
    """Spikes, last potential, statistics: what the operator returns.

    Arguments:
        run: the device's kernel.
        arguments: those of `Arguments`.
    """
    a = Arguments(*arguments)
    spikes, v, current, potential = outputs = _allocate(a)
    if spikes.numel():
        problem = _problem(a, current, potential)
        problem.spikes, problem.v_last = spikes, v
        run(problem)
    return outputs


def backward(
    run: Callable[[Problem], None],
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    current: Tensor,
    potential: Tensor,
    needed: list[bool],
    *arguments: Any,
) -> tuple[Tensor, ...]:
    """Gradients; see `_allocate_gradients`.

    Arguments:
        run: the device's kernel.
        grad_spikes, grad_v: gradients of spikes and last potential; None is zero.
        current, potential: the statistics that forward returned.
        needed: which of `DIFFERENTIABLE` need a gradient.
        arguments: those of `Arguments`.
    """
    a = Arguments(*arguments)
    grads = _allocate_gradients(a, needed)
    if not grads[0].numel():
        return grads
    last = _memory.is_channels_last(a.input)
    problem = _problem(a, current, potential)
    if grad_spikes is not None:
        grad_spikes = grad_spikes.to(a.input.dtype)
        problem.grad_spikes = _memory.arranged(grad_spikes, last, steps_dense=True)
    if grad_v is not None:
        problem.grad_v_last = _memory.arranged(grad_v[None].float(), last)[0]
    problem.grad_input, shortcut, v, of_current, of_potential = grads
    problem.grad_shortcut = shortcut if shortcut.numel() else None
    problem.grad_v = v if v.numel() else None
    if of_current.numel() and problem.current is not None:
        problem.current.grad_gain, problem.current.grad_shift = of_current.unbind()
    if of_potential.numel():
        in_memory = _memory.in_memory(of_potential, last, 1)
        problem.potential.grad_gain, problem.potential.grad_shift = in_memory.unbind()
    run(problem)
    return grads


# ------------------------------------------------------------------ registration

NO_SECOND_DERIVATIVE = (
    "the fused kernels have no second derivative (create_graph=True): run forward inside "
    'spikefold.backend("reference")'
)

_library = torch.library.Library("spikefold", "DEF")
_library.define(f"layer({_SCHEMA}) -> ({', '.join(['Tensor'] * 4)})")
_library.define(
    "layer_backward(Tensor? grad_spikes, Tensor? grad_v, Tensor current, Tensor potential, "
    f"bool[] needed, {_SCHEMA}) -> ({', '.join(['Tensor'] * 5)})"
)


def _register(key: str, kernels: Any) -> None:
    def layer(*arguments: Any) -> tuple[Tensor, ...]:
        return forward(kernels.forward, *check_call(Arguments(*arguments)))

    def layer_backward(*arguments: Any) -> tuple[Tensor, ...]:
        check_backward(*arguments)
        return backward(kernels.backward, *arguments)

    _library.impl("layer", layer, key)
    _library.impl("layer_backward", layer_backward, key)


for _device, _kernels in KERNELS.items():
    _register(_device.upper(), _kernels)


@torch.library.register_fake("spikefold::layer", lib=_library)
def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    return _allocate(check_call(Arguments(*arguments)))


@torch.library.register_fake("spikefold::layer_backward", lib=_library)
def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    return _allocate_gradients(check_backward(*arguments), needed=arguments[4])


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep for backward the inputs and the statistics; not the spikes, which are recomputed."""
    ctx.at = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
    ctx.save_for_backward(*(inputs[i] for i in ctx.at), *output[2:])
    ctx.plain = [None if isinstance(value, Tensor) else value for value in inputs]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])


def differentiate(
    backward: Callable[..., tuple[Tensor, ...]], ctx: Any, *grads: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of all arguments, None where there is none.

    Arguments:
        backward: the operator, or the function under it.
        ctx: what `save` filled.
        grads: of the outputs.
    """
    found: list[Tensor | None] = [None] * len(ctx.plain)
    if grads[0] is None and grads[1] is None:
        return tuple(found)
    *tensors, current, potential = ctx.saved_tensors
    inputs = list(ctx.plain)
    for i, tensor in zip(ctx.at, tensors, strict=True):
        inputs[i] = tensor
    needed = [ctx.needs_input_grad[i] for i in DIFFERENTIABLE_AT]
    x, shortcut, v, of_current, of_potential = backward(
        grads[0], grads[1], current, potential, needed, *inputs
    )
    if _shares_gradient(Arguments(*inputs)):
        shortcut = x
    none = (None, None)
    by_position = (x, shortcut, v, *(of_current if of_current.numel() else none))
    by_position = (*by_position, *(of_potential if of_potential.numel() else none))
    for i, need, grad in zip(DIFFERENTIABLE_AT, needed, by_position, strict=True):
        found[i] = grad if need else None
    return tuple(found)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return differentiate(torch.ops.spikefold.layer_backward.default, ctx, *grads)


torch.library.register_autograd(
    "spikefold::layer", _differentiate, setup_context=save, lib=_library
)


def _refuse_second_derivative(ctx: Any, *grads: Any) -> None:
    raise ConfigError(NO_SECOND_DERIVATIVE)


torch.library.register_autograd(
    "spikefold::layer_backward",
    _refuse_second_derivative,
    setup_context=lambda ctx, inputs, output: None,
    lib=_library,
)
