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


def forward(plan: Plan, a: Arguments) -> Tensors:
    """Spikes, last potential, statistics of a layer; see `outputs`.

    Arguments:
        plan: of the arguments.
        a: the arguments.
    """
    made = tuple([spec and spec.empty() for spec in plan.outputs])
    if not plan.empty:
        plan.kernels.forward(plan.numbers, (*plan.arranged(a), *made))
    return made


def _allocate(gradients: Sequence[Spec | None], needed: Sequence[bool]) -> Tensors:
    """What backward returns."""
    specs = zip(gradients, (True, *needed[1:]), strict=True)
    return tuple([spec.empty() if need and spec else None for spec, need in specs])


def backward(
    plan: Plan, a: Arguments, grads: Tensors, statistics: Tensors, needed: Sequence[bool]
) -> Tensors:
    """Gradients, see `gradients`; None where not needed, but the input's always is there.

    Arguments:
        plan: of the arguments.
        a: the arguments.
        grads: of spikes and last potential; None is zero.
        statistics: of currents and of potentials, that forward returned.
        needed: which of the first arguments need a gradient.
    """
    made = _allocate(plan.gradients, needed)
    if plan.empty:
        return tuple(each if each is None else each.zero_() for each in made)
    of_spikes, of_v, *observed = [
        each if each is None or spec is None else spec.arranged(each)
        for each, spec in zip((*grads, *statistics), plan.outputs, strict=True)
    ]
    outputs = (None, None, *observed, of_spikes, of_v)
    plan.kernels.backward(plan.numbers, (*plan.arranged(a), *outputs, *made))
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
    return whole(forward(plan, a), a.input.device)


def _layer_backward(*arguments: Any) -> tuple[Tensor, ...]:
    a = check_backward(*arguments)
    plan = plan_of(a)
    assert isinstance(plan, Plan)
    found = backward(plan, a, arguments[:2], arguments[2:4], arguments[4])
    return whole(found, a.input.device)


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
    """Gradients of the first arguments, None where there is none.

    Arguments:
        backward: `dispatched`, or the function under the operator.
        ctx: what `save` filled.
        grads: of the outputs.
    """
    if grads[0] is None and grads[1] is None:
        return (None,) * GRADIENTS
    *tensors, current, potential = ctx.saved_tensors
    needed = ctx.needs_input_grad[:GRADIENTS]
    a = Arguments._make((*tensors, *ctx.plain))
    found = backward(a, grads[:2], (current, potential), needed)
    x, shortcut, v, decays, *others = found
    if shares_gradient(a):
        shortcut = x
    if needed[3] and a.decays is not None:
        decays = _sum_to(decays, tuple(a.decays.shape))
    pairs = zip((x, shortcut, v, decays, *others), needed, strict=True)
    return tuple([grad if need else None for grad, need in pairs])


def _sum_to(grad: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The decays' gradient, one a group, in the shape of the argument, `[]` or `[C]`."""
    return grad.sum() if not shape else grad.flatten(1).sum(1) if grad.ndim > 1 else grad


def dispatched(a: Arguments, grads: Tensors, statistics: Tensors, needed: Any) -> tuple[Any, ...]:
    """`backward` through torch's dispatcher."""
    statistics = whole(statistics, a.input.device)
    return torch.ops.spikefold.layer_backward.default(*grads, *statistics, needed, *a)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    plain = (None,) * (len(Arguments._fields) - GRADIENTS)
    return *differentiate(dispatched, ctx, *grads), *plain


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
