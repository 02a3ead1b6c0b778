"""The equations of a layer in Triton, each once; the kernels are made of them.

A program handles a tile `[ELEMENTS, GROUPS]` of a step: some of the rows x inner elements of some
groups, one group in planes (inner > 1), groups side by side in columns; see `place`.
"""

# ruff: noqa: N803 (compile-time constants are in capitals)
# mypy: allow-untyped-defs, allow-incomplete-defs

import inspect
from typing import Any, NamedTuple

import triton
import triton.language as tl


def jit(**options):
    """`triton.jit` of a function as written, without the type checks that tests put around it."""
    return lambda function: triton.jit(inspect.unwrap(function), **options)


# ------------------------------------------------------------------ what a kernel is asked
# A parameter is a pointer (None: there is none) and how far it is from a step to the next.


class Norm(NamedTuple):
    """See `_problem.Norm`; eps is a `tl.constexpr`, for it is added in float64."""

    gain: Any = None
    gain_step: Any = 0
    shift: Any = None
    shift_step: Any = 0
    mean: Any = None
    mean_step: Any = 0
    variance: Any = None
    variance_step: Any = 0
    eps: Any = tl.constexpr(0.0)


class Layer(NamedTuple):
    """What both passes read; see `_problem.Problem`."""

    input: Any
    input_step: Any
    shortcut: Any
    shortcut_step: Any
    current: Norm
    v: Any
    norm: Norm
    thresholds: Any
    thresholds_step: Any
    threshold: Any
    decays: Any
    decay: Any


class Surrogate(NamedTuple):
    """A `Form`; its shape is a compile-time constant."""

    scale: Any
    height: Any
    window: Any


# ------------------------------------------------------------------ where things are


@jit()
def place(
    samples, groups, first, count, INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr
):
    """Where this program's tile lies.

    Arguments:
        samples: rows x inner, less than 2^31.
        groups: of the tensors.
        first, count: the groups that this launch is about.
        INNER, ELEMENTS, GROUPS: inner size, and the tile's shape.

    Returns:
        offsets in a step, which of the tile exists; groups `[1, GROUPS]`, which of them exist;
        place in partial results of this launch; offsets in scratch, which holds tile after tile.
    """
    program = tl.program_id(0)
    across = tl.cdiv(count, GROUPS)
    slot = program // across
    column = (program % across) * GROUPS + tl.arange(0, GROUPS)[None, :]
    group = first + column
    row = tl.arange(0, ELEMENTS)[:, None]
    element = slot * ELEMENTS + row
    known = column < count
    inside = (element < samples) & known
    stride = tl.cast(groups, tl.int64) * INNER
    offset = (element // INNER) * stride + tl.cast(group, tl.int64) * INNER + element % INNER
    scratch = tl.cast(program, tl.int64) * (ELEMENTS * GROUPS) + row * GROUPS
    scratch += tl.arange(0, GROUPS)[None, :]
    partial = tl.cast(slot, tl.int64) * count + column
    return offset, inside, group, known, partial, scratch


@jit()
def of_step(pointer, t, step):
    """Where step t of a tensor begins; None if there is no tensor."""
    if pointer is None:
        return None
    else:
        return pointer + tl.cast(t, tl.int64) * step


# Streams pass through the cache once; scratch comes back soon.


@jit()
def read(pointer, offset, inside):
    """float32 of what lies in memory; zero outside."""
    found = tl.load(pointer + offset, mask=inside, other=0.0, eviction_policy="evict_first")
    return found.to(tl.float32)


@jit()
def read_or_zero(pointer, offset, inside):
    """The same; all zero if there is no tensor."""
    if pointer is None:
        return tl.zeros(inside.shape, tl.float32)
    else:
        return read(pointer, offset, inside)


@jit()
def write(pointer, offset, inside, value):
    """To memory, if there is a tensor, rounded to its dtype."""
    if pointer is not None:
        value = value.to(pointer.dtype.element_ty)
        tl.store(pointer + offset, value, mask=inside, eviction_policy="evict_first")


@jit()
def hold(pointer, scratch, value):
    """Into scratch."""
    tl.store(pointer + scratch, value, eviction_policy="evict_last")


@jit()
def held(pointer, scratch):
    """From scratch."""
    return tl.load(pointer + scratch, eviction_policy="evict_last")


@jit()
def parameter(pointer, t, step, group, known, neutral):
    """One number a group at step t, `[1, GROUPS]`; `neutral` if there is none."""
    if pointer is None:
        return tl.zeros(group.shape, tl.float32) + neutral
    else:
        return tl.load(of_step(pointer, t, step) + group, mask=known, other=1.0)


@jit()
def limit(layer, t, group, known):
    """What is compared with gain · u: polarity · theta where thresholds were folded."""
    if layer.thresholds is None:
        return parameter(layer.thresholds, 0, 0, group, known, layer.threshold)
    else:
        theta = parameter(layer.thresholds, t, layer.thresholds_step, group, known, 0.0)
        return theta * parameter(layer.norm.gain, t, layer.norm.gain_step, group, known, 1.0)


@jit()
def decay_of(layer, group, known):
    """What is left of the potential after a step, `[1, GROUPS]`."""
    return parameter(layer.decays, 0, 0, group, known, layer.decay)


# ------------------------------------------------------------------ norms


@jit()
def scale_of(gain, variance, eps):
    """`gain / sqrt(variance + eps)`, rounded once from float64, and the root."""
    deviation = tl.sqrt(variance.to(tl.float64) + eps)
    return (gain.to(tl.float64) / deviation).to(tl.float32), deviation.to(tl.float32)


@jit()
def affine(norm, t, group, known):
    """A norm's mean, scale, shift and deviation, `[1, GROUPS]`; what is None is left out."""
    mean = parameter(norm.mean, t, norm.mean_step, group, known, 0.0)
    gain = parameter(norm.gain, t, norm.gain_step, group, known, 1.0)
    shift = parameter(norm.shift, t, norm.shift_step, group, known, 0.0)
    if norm.variance is None:
        return mean, gain, shift, tl.zeros(group.shape, tl.float32) + 1.0
    else:
        variance = parameter(norm.variance, t, norm.variance_step, group, known, 1.0)
        scale, deviation = scale_of(gain, variance, norm.eps)
        return mean, scale, shift, deviation


@jit()
def normalize(a, mean, scale, shift):
    """`(a - mean) · scale + shift`."""
    return (a - mean) * scale + shift


@jit()
def total(a):
    """Sum over a tile's elements, `[1, GROUPS]`."""
    return tl.sum(a, axis=0, keep_dims=True)


@jit()
def here(samples, partial, count, ELEMENTS: tl.constexpr):
    """How many elements of a group are in the tile whose place is `partial`, `[1, GROUPS]`."""
    before = (partial // count) * ELEMENTS
    return tl.minimum(samples - before, ELEMENTS).to(tl.float32)


@jit()
def statistics(a, spread, inside, samples):
    """Mean and biased variance of a tile's elements, `[1, GROUPS]`.

    Arguments:
        a, spread: mean and variance of what each element stands for.
        inside: which elements there are.
        samples: how many.
    """
    mean = total(tl.where(inside, a, 0.0)) / samples
    deviation = a - mean
    return mean, total(tl.where(inside, deviation * deviation + spread, 0.0)) / samples


@jit()
def centre(grad, centered, mean_grad, mean_product):
    """What is left of a normalized value's gradient because mean and variance follow the value.

    Arguments:
        grad: the gradient; times the norm's scale, the result is the value's.
        centered: value less mean.
        mean_grad, mean_product: of grad, and of grad · centered / variance.
    """
    return grad - mean_grad - centered * mean_product


# ------------------------------------------------------------------ the neuron


@jit()
def current(layer, t, offset, inside, mean, scale, shift, NORMED: tl.constexpr):
    """`norm(input) + shortcut` at step t."""
    x = read(of_step(layer.input, t, layer.input_step), offset, inside)
    if NORMED:
        x = normalize(x, mean, scale, shift)
    if layer.shortcut is not None:
        x = x + read(of_step(layer.shortcut, t, layer.shortcut_step), offset, inside)
    return x


@jit()
def charge(v, x, decay):
    """`decay · v + x`."""
    return v * decay + x


@jit()
def fire(h, threshold):
    """1 where h > threshold, else 0; NaN never fires."""
    return tl.where(h > threshold, 1.0, 0.0)


@jit()
def discharge(u, s, reset_by, HARD: tl.constexpr):
    """The potential after the reset."""
    if HARD:
        return u * (1.0 - s)
    else:
        return u - reset_by * s


@jit()
def through_step(
    grad_s, grad_v, u, h, threshold, reset_by, surrogate,
    SHAPE: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
):  # fmt: skip
    """From the gradients of spikes and of the potential after the reset to those before.

    Returns:
        the gradient of h; and of u, as far as it passed the reset.
    """
    if not DETACH:
        grad_s = grad_s - grad_v * (u if HARD else reset_by)
    if HARD:
        grad_v = grad_v * (1.0 - fire(h, threshold))
    return grad_s * derivative(h - threshold, surrogate, SHAPE), grad_v


@jit()
def logistic_slope(y):
    """`e / (1 + e)²` with `e = exp(-|y|)`: the derivative of the sigmoid."""
    e = tl.exp(-tl.abs(y))
    return e / ((1.0 + e) * (1.0 + e))


@jit()
def derivative(z, surrogate, SHAPE: tl.constexpr):
    """Height · shape(scale · z) where |z| <= window, else 0."""
    y = surrogate.scale * z
    if SHAPE == "logistic":
        slope = logistic_slope(y) * surrogate.height
    elif SHAPE == "box":
        slope = tl.zeros(z.shape, tl.float32) + surrogate.height
    elif SHAPE == "triangle":
        slope = tl.maximum(1.0 - tl.abs(y), 0.0) * surrogate.height
    else:
        slope = surrogate.height / (1.0 + y * y)
    return tl.where(tl.abs(z) > surrogate.window, 0.0, slope)
