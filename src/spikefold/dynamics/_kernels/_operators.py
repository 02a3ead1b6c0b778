"""The kernels as torch operators, `spikefold::layer` and `spikefold::layer_backward`.

The operators are what torch.compile and torch.export see; eager mode calls the same functions
through `_fused.Layer` without the dispatcher, whose cost would show in small layers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _memory
from spikefold.dynamics._kernels._arguments import (
    DIFFERENTIABLE,
    DIFFERENTIABLE_AT,
    KERNELS,
    SCHEMA,
    Arguments,
    check_backward,
    check_call,
)
from spikefold.dynamics._kernels._problem import Norm, Problem
from spikefold.dynamics._surrogate import Form
from spikefold.errors import ConfigError


def _allocate(a: Arguments) -> tuple[Tensor, ...]:
    """Spikes, last potential, means and variances of currents and of potentials.

    The last two are `[2, 1, C]` and `[2, T, *shape]`, empty where no statistics are taken.
    """
    last = _memory.is_channels_last(a.input)
    steps, *step = a.sequence
    spikes = _memory.empty((steps,), tuple(step), last, a.input)
    v = _memory.empty((), tuple(step), last, a.input, torch.float32)
    current, potential = _nothing(a), _nothing(a)
    if a.observes_current:
        current = _memory.empty_parameters((2, 1), a.sequence[2:3], last, v)
    if a.observes_potential:
        potential = _memory.empty_parameters((2, a.steps), a.parameters, last, v)
    return spikes, v, current, potential


def _nothing(a: Arguments) -> Tensor:
    return torch.empty(0, dtype=torch.float32, device=a.input.device)


def _allocate_gradients(a: Arguments, needed: list[bool]) -> tuple[Tensor, ...]:
    """Gradients of `DIFFERENTIABLE`, empty where not needed; the decays' one a group.

    Without a norm after the connection the shortcut's gradient is the input's, which always is
    there; the operator returns it once.
    """
    last = _memory.is_channels_last(a.input)
    steps, *step = a.input.shape
    x = _memory.empty((steps,), tuple(step), last, a.input)
    shortcut, v, decays = _nothing(a), _nothing(a), _nothing(a)
    if needed[1] and not _shares_gradient(a):
        shortcut = _memory.empty((a.steps,), tuple(step), last, a.input)
    if needed[2]:
        v = _memory.empty((), tuple(step), last, a.input, torch.float32)
    parameters = [
        _memory.empty_parameters((len(p),), tuple(p.shape[1:]), last, a.input).zero_()
        if need and p is not None
        else _nothing(a)
        for need, p in zip(needed[3:7], (*a.current[:2], a.gain, a.shift), strict=True)
    ]
    if needed[7] and a.decays is not None:
        decays = _memory.empty_parameters((), a.parameters, last, a.input).zero_()
    return x, shortcut, v, *parameters, decays


def _shares_gradient(a: Arguments) -> bool:
    return a.current_eps is None and a.input.shape[0] == a.steps


def _problem(a: Arguments, current: Tensor, potential: Tensor) -> Problem:
    """The kernel's view of the arguments and of the batch statistics, `[2, steps, ...]` each."""
    last = _memory.is_channels_last(a.input)
    # a gradient is written for every step of the input: they must not share memory
    shared = a.input.shape[0] > 1 and a.input.stride(0) == 0
    x = _memory.arranged(a.input, last, steps_dense=shared)
    shortcut = None if a.shortcut is None else _memory.arranged(a.shortcut, last)
    rows, groups, inner = _memory.sizes(a.sequence[1:], last, len(a.parameters) > 1)

    def norm(tensors: tuple[Tensor | None, ...], eps: float | None, observed: Tensor) -> Norm:
        gain, shift, mean, variance = tensors
        batch = observed.numel() > 0
        if batch:
            mean, variance = observed.unbind()
        flat = _memory.flat
        places = (flat(gain, last), flat(shift, last), flat(mean, last), flat(variance, last))
        return Norm(*places, eps or 0.0, batch)

    return Problem(
        steps=a.steps,
        rows=rows,
        groups=groups,
        inner=inner,
        input_step=rows * groups * inner if a.steps == 1 else _step(x),
        shortcut_step=0 if shortcut is None else shortcut.stride(0),
        decay=a.decay,
        threshold=a.threshold,
        hard=a.reset == "hard",
        detach_reset=a.detach_reset,
        form=Form(*a[-4:]),
        current=None if a.current_eps is None else norm(a.current, a.current_eps, current),
        potential=norm(a.potential[:4], a.eps, potential),
        thresholds=_memory.flat(a.thresholds, last),
        decays=None if a.decays is None else _decays(a, a.decays, last),
        input=x,
        shortcut=shortcut,
        v=None if a.v is None else _memory.arranged(a.v[None], last)[0],
    )


def _decays(a: Arguments, decays: Tensor, last: bool) -> Tensor:
    """The decays, one a group: `[]` and `[C]` expanded to what the parameters are."""
    channels = decays.expand(a.parameters[:1])
    by_channel = channels.reshape(channels.shape + (1,) * (len(a.parameters) - 1))
    flat = _memory.flat(by_channel.expand(a.parameters)[None], last)
    assert flat is not None
    return flat[0]


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
    (problem.grad_input, *others) = grads
    shortcut, v, *parameters, decays = (grad if grad.numel() else None for grad in others)
    problem.grad_shortcut, problem.grad_v = shortcut, v
    flat = [_memory.in_memory(grad, last, 1) if grad is not None else None for grad in parameters]
    if problem.current is not None:
        problem.current.grad_gain, problem.current.grad_shift = flat[:2]
    problem.potential.grad_gain, problem.potential.grad_shift = flat[2:]
    problem.grad_decay = None if decays is None else _memory.in_memory(decays, last, 0)
    run(problem)
    return grads


# ------------------------------------------------------------------ registration

NO_SECOND_DERIVATIVE = (
    "the fused kernels have no second derivative (create_graph=True): run forward inside "
    'spikefold.backend("reference")'
)

_library = torch.library.Library("spikefold", "DEF")
_library.define(f"layer({SCHEMA}) -> ({', '.join(['Tensor'] * 4)})")
_library.define(
    "layer_backward(Tensor? grad_spikes, Tensor? grad_v, Tensor current, Tensor potential, "
    f"bool[] needed, {SCHEMA}) -> ({', '.join(['Tensor'] * len(DIFFERENTIABLE))})"
)


def _register(device: str) -> None:
    def layer(*arguments: Any) -> tuple[Tensor, ...]:
        return forward(KERNELS[device].forward, *check_call(Arguments(*arguments)))

    def layer_backward(*arguments: Any) -> tuple[Tensor, ...]:
        check_backward(*arguments)
        return backward(KERNELS[device].backward, *arguments)

    _library.impl("layer", layer, device.upper())
    _library.impl("layer_backward", layer_backward, device.upper())


for _device in KERNELS:
    _register(_device)


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
    a = Arguments(*inputs)
    of = list(backward(grads[0], grads[1], current, potential, needed, *inputs))
    if _shares_gradient(a):
        of[1] = of[0]
    if needed[-1] and a.decays is not None:
        of[-1] = _sum_to(of[-1], tuple(a.decays.shape))
    for i, need, grad in zip(DIFFERENTIABLE_AT, needed, of, strict=True):
        found[i] = grad if need else None
    return tuple(found)


def _sum_to(grad: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The decays' gradient, one a group, as what was handed over, `[]` or `[C]`."""
    return grad.sum() if not shape else grad.flatten(1).sum(1) if grad.ndim > 1 else grad


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
