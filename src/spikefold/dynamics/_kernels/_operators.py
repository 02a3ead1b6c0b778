"""The kernels as torch operators, `spikefold::layer` and `spikefold::layer_backward`.

The operators are what torch.compile and torch.export see; eager mode calls the same functions
through `_fused.Layer` without the dispatcher, whose cost would show in small layers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _cpu, _memory, _triton
from spikefold.dynamics._kernels._problem import Norm, Problem
from spikefold.dynamics._neuron import Neuron
from spikefold.dynamics._surrogate import SURROGATES


class Arguments(NamedTuple):
    """Of the operator: a layer as tensors and plain numbers.

    Attributes:
        input: `[T, N, C, *spatial]`, or `[1, N, C, *spatial]` for all steps.
        steps: T.
        current_*: the norm after the connection; no eps: none; no mean: the batch's statistics.
        gain, shift, mean, variance, eps: the norm before the firing condition, likewise.
        thresholds: per channel or element, or None.
        others: see `Neuron`.
    """

    input: Tensor
    steps: int
    shortcut: Tensor | None
    v: Tensor | None
    current_gain: Tensor | None
    current_shift: Tensor | None
    current_mean: Tensor | None
    current_variance: Tensor | None
    current_eps: float | None
    gain: Tensor | None
    shift: Tensor | None
    mean: Tensor | None
    variance: Tensor | None
    eps: float | None
    thresholds: Tensor | None
    decay: float
    threshold: float
    reset: str
    surrogate: str
    slope: float
    detach_reset: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """`(T, N, C, *spatial)`."""
        return (self.steps, *self.input.shape[1:])

    @property
    def parameters(self) -> tuple[int, ...]:
        """The shape of the condition's parameters, `(C,)` or `(C, *spatial)`."""
        given = self.gain if self.gain is not None else self.thresholds
        return tuple(self.input.shape[2:3] if given is None else given.shape)

    @property
    def observes_current(self) -> bool:
        """Whether the norm after the connection takes the batch's statistics."""
        return self.current_eps is not None and self.current_mean is None

    @property
    def observes_potential(self) -> bool:
        """Whether the norm before the firing condition takes the batch's statistics."""
        return self.eps is not None and self.mean is None


# The arguments that get a gradient, in the order in which backward returns them.
DIFFERENTIABLE = ("input", "shortcut", "v", "current_gain", "current_shift", "gain", "shift")

_SCHEMA = (
    "Tensor input, int steps, Tensor? shortcut, Tensor? v, "
    "Tensor? current_gain, Tensor? current_shift, Tensor? current_mean, "
    "Tensor? current_variance, float? current_eps, "
    "Tensor? gain, Tensor? shift, Tensor? mean, Tensor? variance, float? eps, "
    "Tensor? thresholds, float decay, float threshold, str reset, str surrogate, float slope, "
    "bool detach_reset"
)


def _allocate(a: Arguments) -> tuple[Tensor, ...]:
    """Spikes, last potential, statistics of currents and of potentials (empty if not taken)."""
    last = _memory.is_channels_last(a.input)
    spikes = _memory.empty(a.shape, last, a.input)
    v = _memory.empty((1, *a.shape[1:]), last, a.input, torch.float32)[0]
    none = a.input.new_empty(0, dtype=torch.float32)
    current = potential = (none, none)
    if a.observes_current:
        current = tuple(_memory.empty_parameters(a.shape[2:3], last, v) for _ in range(2))
    if a.observes_potential:
        potential = tuple(
            _memory.empty_parameters(a.parameters, last, v, a.steps) for _ in range(2)
        )
    return spikes, v, *current, *potential


def _allocate_gradients(a: Arguments, needed: list[bool]) -> tuple[Tensor, ...]:
    """Gradients of `DIFFERENTIABLE`; empty where not needed.

    Without a norm after the connection the shortcut's gradient is the input's, which always is
    there; the operator returns it once.
    """
    last = _memory.is_channels_last(a.input)
    none = a.input.new_empty(0, dtype=torch.float32)
    grads = [_memory.empty(tuple(a.input.shape), last, a.input)]
    apart = needed[1] and not _shares_gradient(a)
    grads.append(_memory.empty(a.shape, last, a.input) if apart else none)
    like_v = (1, *a.shape[1:])
    grads.append(_memory.empty(like_v, last, a.input, torch.float32)[0] if needed[2] else none)
    for name, need in zip(DIFFERENTIABLE[3:], needed[3:], strict=True):
        shape = a.shape[2:3] if name.startswith("current") else a.parameters
        grads.append(_memory.empty_parameters(shape, last, a.input).zero_() if need else none)
    return tuple(grads)


def _shares_gradient(a: Arguments) -> bool:
    return a.current_eps is None and a.input.shape[0] == a.steps


def _neuron(a: Arguments) -> Neuron:
    surrogate = SURROGATES[a.surrogate](a.slope)  # type: ignore[call-arg]
    return Neuron(a.decay, a.threshold, a.reset, surrogate, a.detach_reset)  # type: ignore[arg-type]


def _problem(a: Arguments, observed: tuple[Tensor, ...]) -> Problem:
    """The kernel's view of the arguments; `observed`: where batch statistics are."""
    last = _memory.is_channels_last(a.input)
    x = _memory.arranged(a.input, last)
    shortcut = None if a.shortcut is None else _memory.arranged(a.shortcut, last)
    rows, groups, inner = _memory.sizes(a.shape[1:], last, len(a.parameters) > 1)

    def parameter(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else _memory.flat(tensor, last)

    current = None
    if a.current_eps is not None:
        mean, variance = observed[:2] if a.observes_current else (a.current_mean, a.current_variance)
        current = Norm(
            *map(parameter, (a.current_gain, a.current_shift, mean, variance)),
            a.current_eps,
            a.observes_current,
        )
    mean, variance = a.mean, a.variance
    if a.observes_potential:  # they were made in the order of memory
        mean, variance = (t.movedim(1, -1) if last else t for t in observed[2:])
    else:
        mean, variance = parameter(mean), parameter(variance)
    potential = Norm(
        parameter(a.gain), parameter(a.shift), mean, variance, a.eps or 0.0, a.observes_potential
    )
    return Problem(
        steps=a.steps,
        rows=rows,
        groups=groups,
        inner=inner,
        input_step=rows * groups * inner if a.steps == 1 else _step(x),
        shortcut_step=0 if shortcut is None else shortcut.stride(0),
        neuron=_neuron(a),
        current=current,
        potential=potential,
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
    spikes, v, *observed = outputs = _allocate(a)
    problem = _problem(a, tuple(observed))
    problem.spikes, problem.v_last = spikes, v
    if spikes.numel():
        run(problem)
    return outputs


def backward(
    run: Callable[[Problem], None],
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    observed: list[Tensor],
    needed: list[bool],
    *arguments: Any,
) -> tuple[Tensor, ...]:
    """Gradients of `DIFFERENTIABLE`, empty where not needed.

    Arguments:
        run: the device's kernel.
        grad_spikes, grad_v: gradients of spikes and last potential; None is zero.
        observed: the four statistics that forward returned.
        needed: which gradients.
        arguments: those of `Arguments`.
    """
    a = Arguments(*arguments)
    last = _memory.is_channels_last(a.input)
    grads = _allocate_gradients(a, needed)
    problem = _problem(a, tuple(observed))
    if grad_spikes is not None:
        grad_spikes = grad_spikes.to(a.input.dtype)
        problem.grad_spikes = _memory.arranged(grad_spikes, last, steps_dense=True)
    if grad_v is not None:
        problem.grad_v_last = _memory.arranged(grad_v[None], last)[0]
    problem.grad_input = grads[0]
    problem.grad_shortcut = grads[1] if grads[1].numel() else None
    problem.grad_v = grads[2] if grads[2].numel() else None

    def in_memory(grad: Tensor) -> Tensor | None:
        if not grad.numel():
            return None
        return grad.movedim(0, -1) if last and grad.ndim > 1 else grad

    if problem.current is not None:
        problem.current.grad_gain, problem.current.grad_shift = map(in_memory, grads[3:5])
    problem.potential.grad_gain, problem.potential.grad_shift = map(in_memory, grads[5:])
    if grads[0].numel():
        run(problem)
    return grads


# ------------------------------------------------------------------ registration

_library = torch.library.Library("spikefold", "DEF")
_library.define(f"layer({_SCHEMA}) -> ({', '.join(['Tensor'] * 6)})")
_library.define(
    "layer_backward(Tensor? grad_spikes, Tensor? grad_v, Tensor[] observed, bool[] needed, "
    f"{_SCHEMA}) -> ({', '.join(['Tensor'] * 7)})"
)

KERNELS = {"cpu": _cpu, "cuda": _triton}


def _register(key: str, kernels: Any) -> None:
    _library.impl("layer", lambda *a: forward(kernels.forward, *a), key)
    _library.impl("layer_backward", lambda *a: backward(kernels.backward, *a), key)


for _device, _kernels in KERNELS.items():
    _register(_device.upper(), _kernels)


@torch.library.register_fake("spikefold::layer", lib=_library)
def _fake(*arguments: Any) -> tuple[Tensor, ...]:
    return _allocate(Arguments(*arguments))


@torch.library.register_fake("spikefold::layer_backward", lib=_library)
def _fake_backward(
    grad_spikes: Tensor | None,
    grad_v: Tensor | None,
    observed: list[Tensor],
    needed: list[bool],
    *arguments: Any,
) -> tuple[Tensor, ...]:
    return _allocate_gradients(Arguments(*arguments), needed)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep for backward the inputs and the statistics; not the spikes, which are recomputed."""
    a = Arguments(*inputs)
    tensors = {name: value for name, value in a._asdict().items() if isinstance(value, Tensor)}
    ctx.save_for_backward(*tensors.values(), *output[2:])
    ctx.names = list(tensors)
    ctx.arguments = a._replace(**dict.fromkeys(tensors))
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
    tensors = list(ctx.saved_tensors)
    saved = dict(zip(ctx.names, tensors, strict=False))
    a: Arguments = ctx.arguments._replace(**saved)
    needs = dict(zip(Arguments._fields, ctx.needs_input_grad, strict=True))
    needed = [needs[name] for name in DIFFERENTIABLE]
    if grads[0] is None and grads[1] is None:
        return (None,) * len(Arguments._fields)
    found = backward(grads[0], grads[1], tensors[len(saved) :], needed, *a)
    by_name = {
        name: grad for name, grad, need in zip(DIFFERENTIABLE, found, needed, strict=True) if need
    }
    if needs["shortcut"] and _shares_gradient(a):
        by_name["shortcut"] = found[0]
    return tuple(by_name.get(name) for name in Arguments._fields)


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return differentiate(torch.ops.spikefold.layer_backward.default, ctx, *grads)


torch.library.register_autograd(
    "spikefold::layer", _differentiate, setup_context=save, lib=_library
)
