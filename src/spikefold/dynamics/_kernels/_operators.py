"""The kernels as torch operators, `spikefold::layer` and `spikefold::layer_backward`.

The operators are what torch.compile and torch.export see; eager mode calls the same functions
through `_fused.Layer` without the dispatcher, whose cost would show in small layers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels._arguments import (
    GRADIENTS,
    SCHEMA,
    TENSORS,
    Arguments,
    Tensors,
    check_backward,
    check_call,
)
from spikefold.dynamics._kernels._memory import Spec
from spikefold.dynamics._kernels._plan import (
    KERNELS,
    Plan,
    gradients,
    outputs,
    plan_of,
    shares_gradient,
)
from spikefold.errors import ConfigError


def forward(plan: Plan, *arguments: Any) -> Tensors:
    """Spikes, last potential, statistics of a layer; see `outputs`.

    Arguments:
        plan: of the arguments.
        arguments: those of `Arguments`.
    """
    made = tuple([spec and spec.empty() for spec in plan.outputs])
    if not plan.empty:
        plan.kernels.forward(plan.numbers, (*plan.arranged(arguments), *made))
    return made


def _allocate(gradients: Sequence[Spec | None], needed: Sequence[bool]) -> Tensors:
    """What backward returns."""
    specs = zip(gradients, (True, *needed[1:]), strict=True)
    return tuple([spec.empty() if need and spec else None for spec, need in specs])


def backward(
    plan: Plan,
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    current: Tensor | None,
    potential: Tensor | None,
    needed: Sequence[bool],
    *arguments: Any,
) -> Tensors:
    """Gradients, see `gradients`; None where not needed, but the input's always is there.

    Arguments:
        plan: of the arguments.
        grad_spikes, grad_v: gradients of spikes and last potential; None is zero.
        current, potential: the statistics that forward returned.
        needed: which of the first arguments need a gradient.
        arguments: those of `Arguments`.
    """
    made = _allocate(plan.gradients, needed)
    if plan.empty:
        return tuple(each if each is None else each.zero_() for each in made)
    observed = zip((grad_spikes, grad_v, current, potential), plan.outputs, strict=True)
    of_spikes, of_v, *statistics = [
        each if each is None or spec is None else spec.arranged(each) for each, spec in observed
    ]
    tensors = plan.arranged(arguments)
    outputs = (None, None, *statistics, of_spikes, of_v)
    plan.kernels.backward(plan.numbers, (*tensors, *outputs, *made))
    return made


# ------------------------------------------------------------------ registration

NO_SECOND_DERIVATIVE = (
    "the fused kernels have no second derivative (create_graph=True): run forward inside "
    'spikefold.backend("reference")'
)

_library = torch.library.Library("spikefold", "DEF")
_library.define(f"layer({SCHEMA}) -> ({', '.join(['Tensor'] * 4)})")
_library.define(
    "layer_backward(Tensor? grad_spikes, Tensor? grad_v, Tensor current, Tensor potential, "
    f"bool[] needed, {SCHEMA}) -> ({', '.join(['Tensor'] * GRADIENTS)})"
)


def whole(found: Tensors, device: torch.device) -> tuple[Tensor, ...]:
    """As an operator returns them: what is None is empty."""
    return tuple(
        torch.empty(0, dtype=torch.float32, device=device) if each is None else each
        for each in found
    )


def _layer(*arguments: Any) -> tuple[Tensor, ...]:
    a = check_call(Arguments(*arguments))
    plan = plan_of(a)
    assert isinstance(plan, Plan)
    return whole(forward(plan, *a), a.input.device)


def _layer_backward(*arguments: Any) -> tuple[Tensor, ...]:
    a = check_backward(*arguments)
    plan = plan_of(a)
    assert isinstance(plan, Plan)
    return whole(backward(plan, *arguments), a.input.device)


for _device in KERNELS:
    _library.impl("layer", _layer, _device.upper())
    _library.impl("layer_backward", _layer_backward, _device.upper())


@torch.library.register_fake("spikefold::layer", lib=_library)
def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    a = check_call(Arguments(*arguments))
    return whole(tuple(spec and spec.empty() for spec in outputs(a)), a.input.device)


@torch.library.register_fake("spikefold::layer_backward", lib=_library)
def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    a = check_backward(*arguments)
    return whole(_allocate(gradients(a), arguments[4]), a.input.device)


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    """Keep for backward the inputs and the statistics; not the spikes, which are recomputed."""
    statistics = output[2:]
    ctx.save_for_backward(*inputs[:TENSORS], *statistics)
    ctx.plain = inputs[TENSORS:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*[each for each in statistics if each is not None])


def differentiate(
    backward: Callable[..., tuple[Any, ...]], ctx: Any, *grads: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of all arguments, None where there is none.

    Arguments:
        backward: the operator, or the function under it.
        ctx: what `save` filled.
        grads: of the outputs.
    """
    plain = (None,) * (len(Arguments._fields) - GRADIENTS)
    if grads[0] is None and grads[1] is None:
        return (None,) * GRADIENTS + plain
    *tensors, current, potential = ctx.saved_tensors
    needed = ctx.needs_input_grad[:GRADIENTS]
    a = Arguments._make((*tensors, *ctx.plain))
    x, shortcut, v, decays, *others = backward(*grads[:2], current, potential, needed, *a)
    if shares_gradient(a):
        shortcut = x
    if needed[3] and a.decays is not None:
        decays = _sum_to(decays, tuple(a.decays.shape))
    found = zip((x, shortcut, v, decays, *others), needed, strict=True)
    return *[grad if need else None for grad, need in found], *plain


def _sum_to(grad: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The decays' gradient, one a group, in the shape of the argument, `[]` or `[C]`."""
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
