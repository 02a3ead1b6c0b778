"""What `simulate_reference` does, by the kernels; and when they can."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from spikefold.dynamics._condition import (
    Condition,
    Normalization,
    Normalizing,
    Statistics,
    is_elementwise,
)
from spikefold.dynamics._kernels import _arguments, _cpu, _operators
from spikefold.dynamics._kernels._arguments import GRADIENTS, TENSORS, Arguments, Tensors
from spikefold.dynamics._kernels._plan import KERNELS, Plan, plan_of
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


def simulate_fused(
    currents: Currents,
    condition: Condition,
    constants: Neuron,
    v: Tensor | None = None,
    decay: Tensor | None = None,
) -> Fired | str:
    """What `simulate_reference` does, by the kernels; or why they cannot.

    Arguments:
        currents, condition, constants, v, decay: as for `simulate_reference`.

    Raises:
        ShapeError: if something does not fit together.
    """
    a = _arguments_of(currents, condition, constants, v, decay)
    if isinstance(a, str):
        return a
    outputs = _run(a)
    if isinstance(outputs, str):
        return outputs
    spikes, v, current, potential = outputs
    shown, *step = a.input.shape
    return Fired(
        spikes,
        v,
        None if current is None else _observed(current, step, shown),
        None if potential is None else _observed(potential, step),
    )


def _observed(statistics: Tensor, step: list[int], steps: int = 1) -> Observed:
    mean, variance = statistics.unbind()
    return Observed(mean, variance, steps * sample_count(step, mean.shape[1:]))


def _arguments_of(
    currents: Currents,
    condition: Condition,
    constants: Neuron,
    v: Tensor | None,
    decay: Tensor | None,
) -> Arguments | str:
    """A layer as the operator takes it, or why it does not."""
    x, steps, norm, shortcut = currents
    if x.ndim > 2:
        condition = condition.per_channel(x.shape[2])
    membrane, theta, polarity = condition
    form = form_of(constants.surrogate)
    after = _NO_NORM if norm is None else _parts(norm)
    before = _NO_NORM if membrane is None else _parts(membrane)
    if isinstance(before, str):
        return before
    if isinstance(after, str):
        return after
    if form is None:
        return f"the surrogate {type(constants.surrogate).__name__} has a derivative of its own"
    if norm is not None and is_elementwise(
        condition
    ):  # then a kernel has all parameters for each element
        after = _of_elements(after, x.shape[3:])
    affine, fixed, eps = before
    current_affine, current_fixed, current_eps = after
    if polarity is not None:
        affine = (polarity, None)
    if steps > 1 and x.shape[:1] == (steps,) and x.stride(0) == 0 and not x.requires_grad:
        x = x[:1]  # the same memory at all steps: its norm is computed once
    tensors = (x, shortcut, v, decay, *current_affine, *affine, *current_fixed, *fixed, theta)
    numbers = (constants.decay, constants.threshold, constants.reset, constants.detach_reset)
    return Arguments._make((*tensors, steps, current_eps, eps, *numbers, *form))


def _of_elements(parts: "_Parts", spatial: torch.Size) -> "_Parts":
    def whole(parameters: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        ones = (1,) * len(spatial)
        return tuple(
            None if p is None else p.reshape(*p.shape, *ones).expand(*p.shape, *spatial)
            for p in parameters
        )

    affine, fixed, eps = parts
    return whole(affine), whole(fixed), eps


_Parts = tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...], float | None]
_NO_NORM: _Parts = ((None, None), (None, None), None)


def _parts(norm: Normalizing) -> _Parts | str:
    """Gain and shift, mean and variance, eps; or why the kernels cannot run this norm."""
    if not isinstance(norm, Normalization):
        return "the firing condition is a function, or a module with hooks"
    fixed = norm.fixed
    if fixed is None:
        if norm.group is not None:
            return "statistics are taken over several processes"
        return norm[:2], (None, None), norm.eps
    if fixed.mean.requires_grad or fixed.variance.requires_grad:
        return "statistics that are fixed need a gradient"
    return norm[:2], fixed, norm.eps


class Layer(torch.autograd.Function):
    """The operator without the dispatcher, which costs about as much as a small layer's kernels."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Any, ...]:
        *_, a, plan = given  # before them what may need a gradient, for autograd
        outputs = _operators.forward(plan, a)
        _operators.save(ctx, a, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ConfigError(_operators.NO_SECOND_DERIVATIVE)
        return *_operators.differentiate(_backward, ctx, *grads), None, None


# `Layer.apply` without its handling of torch.func, which `_run` refuses.
_apply = super(torch.autograd.Function, Layer).apply


def _backward(a: Arguments, grads: Tensors, statistics: Tensors, needed: Any) -> tuple[Any, ...]:
    """The backward operator, without the dispatcher where possible."""
    if not is_plain(*[g for g in grads if g is not None]):  # forward has seen the rest
        return _operators.dispatched(a, grads, statistics, needed)
    plan = plan_of(a)
    assert isinstance(plan, Plan)
    return _operators.backward(plan, a, grads, statistics, needed)


def _run(a: Arguments) -> tuple[Any, ...] | str:
    """What the operator returns, None for what is empty; or why the kernels cannot do it."""
    kernels = KERNELS.get(a.input.device.type)
    if kernels is None:
        return f"there are none for {a.input.device.type}"
    if torch._C._functorch.maybe_current_level() is not None:
        return "torch.func (grad, vmap, jvp) takes the layer apart"
    if forward_ad._current_level >= 0:
        return "derivatives are taken in forward mode"
    plan = _arguments.obstacle(a) if is_looked_on(a[:TENSORS]) else plan_of(a)
    refusal = plan if isinstance(plan, str) else kernels.missing()
    if refusal is not None:
        return refusal
    if not isinstance(plan, Plan):
        spikes, v, *statistics = torch.ops.spikefold.layer.default(*a)
        return spikes, v, *[each if each.ndim > 1 else None for each in statistics]
    if torch.is_grad_enabled():
        return _apply(*a[:GRADIENTS], a, plan)
    return _operators.forward(plan, a)


def is_looked_on(tensors: tuple[Any, ...]) -> bool:
    """Whether anything but plain eager mode watches or takes apart what is called.

    Then the operator has to go through torch's dispatcher: a compiler, a tracer, a mode, a tensor
    that is not what its memory says.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._dispatch_tls_is_dispatch_key_included(torch._C.DispatchKey.PreDispatch)
    ):
        return True
    for tensor in tensors:
        if tensor is not None and (
            type(tensor) not in _PLAIN
            or tensor.is_neg()
            or tensor._is_zerotensor()
            or not torch._C._has_storage(tensor)  # one of `is_grads_batched`
        ):
            return True
    return False


_PLAIN = (Tensor, nn.Parameter)


def is_plain(*tensors: Tensor) -> bool:
    """Whether nothing but eager mode sees what is computed of these tensors."""
    return not (
        is_looked_on(tensors)
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
    )


def is_for_cpu(*tensors: Tensor) -> bool:
    """Whether compiled code may compute with these tensors, given their addresses."""
    return (
        is_plain(*tensors)
        and _cpu.missing() is None
        and all(t.is_cpu and t.dtype == torch.float32 for t in tensors)
        and all(t.layout is torch.strided for t in tensors)
    )


def update_running(
    running: Statistics, observed: Statistics, momentum: float, seen: Tensor, samples: int
) -> bool:
    """What `reference_update` does, in compiled code; whether it was done.

    Arguments:
        running, observed, momentum, seen, samples: as there.
    """
    if not is_plain(*running, *observed, seen):
        return False
    return _cpu.update_running(running, observed, momentum, seen, samples / (samples - 1))
