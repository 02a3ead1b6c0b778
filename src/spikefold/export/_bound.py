"""How far rounding may move a potential, and which flips are first.

Two programs that sum the same terms in other orders both lie within γ(k) · S of the exact value,
where S is the sum of the terms' magnitudes, γ(k) = k u / (1 - k u), u = 2⁻²⁴, and k the number of
roundings that a term passes through (Higham, Accuracy and Stability of Numerical Algorithms, 2nd
ed., section 4.2). So they differ by at most k · eps · S, eps = 2⁻²³. For a neuron

    S = sum |w x| + |b| + |shortcut| + |decay v|,   batch norm: (S + |mean|) · |factor| + |shift|

and k is at most: 1 for the product and m for the sum of m terms and the bias, where m counts the
inputs that are not zero (adding a zero rounds nothing, and only spikes come in); 4 for batch norm
(subtract, multiply, add, and its factor, which may be multiplied into the weights instead); 1 for
the shortcut; 2 for each step's decay · v + x. Pools add the size of their windows. That holds for
sums in any order, with or without fused multiply-add; not for Winograd's or Fourier's convolutions.

A flip is first if nothing that reaches the neuron differs: its inputs, its shortcut, and its own
spikes since its potential was zero. All others are cascades.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from spikefold.dynamics import per_neuron
from spikefold.export._affine import affine, window
from spikefold.export._known import ADAPTIVE_MAXIMA, MAXIMA
from spikefold.export._walk import Operation, Walk

EPS = 2.0**-23


class Terms(NamedTuple):
    """What is known of a value, all `[T, N, *shape]`, T = 1 where it stands still.

    Attributes:
        size: S, the sum of the magnitudes of its terms.
        roundings: k.
        touched: whether anything that reaches it differs.
    """

    size: Tensor
    roundings: Tensor
    touched: Tensor


class Flips(NamedTuple):
    """Of the neurons of one call, all `[T, N, *shape]`.

    Attributes:
        first: where they differ though nothing that reaches them does.
        bound: how far rounding may have moved the potential.
    """

    first: Tensor
    bound: Tensor


@torch.no_grad()
def flips(
    walk: Walk, x: Tensor, spikes: dict[str, Tensor], differ: dict[str, Tensor]
) -> dict[str, Flips]:
    """First flips and bounds of every call of neurons, by name of the operation.

    Arguments:
        walk: of the network.
        x: input, images `[N, ...]` or frames `[T, N, ...]`.
        spikes: of the network, `[T, N, *shape]`.
        differ: where the other's are others.
    """
    first, *others, _ = walk.nodes
    size = x.double().abs()
    if first.value.time == "still":
        size = size[None]
    none = torch.zeros_like(size)
    terms = {first.name: Terms(size, none, none > 0)}
    found: dict[str, Flips] = {}
    for operation in others:
        taken = [terms[name] for name in operation.inputs]
        if operation.kind != "neurons":
            terms[operation.name] = _RULES[operation.kind](operation, walk, taken)
            continue
        fired, other = spikes[operation.name], differ[operation.name]
        found[operation.name] = _neurons(operation, taken[0], fired, other)
        size = fired.double()
        terms[operation.name] = Terms(size, torch.zeros_like(size), other)
    return found


def _neurons(operation: Operation, x: Terms, fired: Tensor, differ: Tensor) -> Flips:
    module, shape = operation.module, fired.shape
    learnt, hard = module.decay(), module.constants.reset == "hard"
    decay = module.constants.decay
    if learnt is not None:
        decay = per_neuron(learnt.double(), fired.ndim - 1)
    size, roundings, touched = (value.expand(shape) for value in x)
    v = Terms(*(torch.zeros_like(value[0]) for value in (size, roundings, touched)))
    first, bound = [], []
    for t in range(len(fired)):
        u = Terms(
            size[t] + decay * v.size,
            torch.maximum(roundings[t], v.roundings) + 2 * (t > 0),
            touched[t] | v.touched,
        )
        first.append(differ[t] & ~u.touched)
        bound.append(u.roundings * EPS * u.size)
        if hard:  # both at zero again: nothing is left of what differed
            silent = ~(fired[t] & ~differ[t])
            v = Terms(u.size * ~fired[t], u.roundings, u.touched & silent | differ[t])
        else:
            taken = abs(module.constants.threshold) * fired[t]
            v = Terms(u.size + taken, u.roundings + 1, u.touched | differ[t])
    return Flips(torch.stack(first), torch.stack(bound))


def _connection(operation: Operation, _: Walk, taken: list[Terms]) -> Terms:
    (x,), module = taken, operation.module
    weight = module.weight.double().abs()
    bias = None if module.bias is None else module.bias.double().abs()

    def summed(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        tensors = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return _each(lambda y: functional_call(module, tensors, (y,)), value)

    none = None if bias is None else torch.zeros_like(bias)
    terms = summed((x.size != 0).double(), torch.ones_like(weight), none)
    touched = summed(x.touched.double(), (weight != 0).double(), none) > 0
    return Terms(summed(x.size, weight, bias), x.roundings.amax() + terms + 1, touched)


def _norm(operation: Operation, _: Walk, taken: list[Terms]) -> Terms:
    (x,) = taken
    parts = affine(operation.module, x.size.ndim - 2)
    mean, factor, shift = (part.double().abs().unsqueeze(1) for part in parts)
    return Terms((x.size + mean) * factor + shift, x.roundings + 4, x.touched)


def _standardize(operation: Operation, _: Walk, taken: list[Terms]) -> Terms:
    (x,), module = taken, operation.module
    mean, deviation = (v.double()[:, None, None] for v in (module.mean, module.deviation))
    return Terms((x.size + mean.abs()) / deviation, x.roundings + 2, x.touched)


def _pool(operation: Operation, walk: Walk, taken: list[Terms]) -> Terms:
    (x,), module = taken, operation.module
    # a sum may be divided by a negative number
    size, touched = _each(module, x.size).abs(), _each(module, x.touched.double()) != 0
    more = 0
    if not isinstance(module, MAXIMA + ADAPTIVE_MAXIMA):
        more = prod(window(operation, walk[operation.inputs[0]].value.shape).kernel) + 1
    return Terms(size, torch.full_like(size, float(x.roundings.amax()) + more), touched)


def _reshape(operation: Operation, _: Walk, taken: list[Terms]) -> Terms:
    (x,) = taken
    return Terms(*(value.reshape(*value.shape[:2], *operation.value.shape) for value in x))


def _add(_: Operation, __: Walk, taken: list[Terms]) -> Terms:
    one, other = taken
    roundings = torch.maximum(one.roundings, other.roundings) + 1
    return Terms(one.size + other.size, roundings, one.touched | other.touched)


def _concatenate(_: Operation, __: Walk, taken: list[Terms]) -> Terms:
    steps = max(len(x.size) for x in taken)
    shown = [[v.expand(steps, *v.shape[1:]) for v in values] for values in zip(*taken, strict=True)]
    return Terms(*(torch.cat(values, 2) for values in shown))


def _mean_over_space(operation: Operation, _: Walk, taken: list[Terms]) -> Terms:
    (x,) = taken
    dims, keep = tuple(range(3, x.size.ndim)), len(operation.value.shape) > 1
    more = prod(x.size.shape[3:]) + 1
    return Terms(
        x.size.mean(dims, keepdim=keep),
        x.roundings.amax(dims, keepdim=keep) + more,
        x.touched.flatten(3).any(-1).reshape(x.size.mean(dims, keepdim=keep).shape),
    )


def _mean_over_time(_: Operation, __: Walk, taken: list[Terms]) -> Terms:
    (x,) = taken
    size, touched = x.size.mean(0, keepdim=True), x.touched.any(0, keepdim=True)
    return Terms(size, x.roundings.amax(0, keepdim=True) + len(x.size) + 1, touched)


def _each(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A module for `[N, ...]` at every step."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


_RULES: dict[str, Any] = {
    "connection": _connection,
    "norm": _norm,
    "standardize": _standardize,
    "pool": _pool,
    "reshape": _reshape,
    "add": _add,
    "concatenate": _concatenate,
    "mean over space": _mean_over_space,
    "mean over time": _mean_over_time,
}
