"""The equations of a layer in Triton, each once; `_triton_kernels` makes kernels of them.

A program handles a tile `[elements, width]` of a step: some of the rows x inner elements of some
groups, one group in planes (inner > 1), groups side by side in columns; see `place`.
"""


# mypy: allow-untyped-defs, allow-incomplete-defs

import inspect
from typing import Any, NamedTuple

import triton
import triton.language as tl


def jit(**options):
    """`triton.jit` of a function as written, without the type checks that tests put around it.

    Before Triton 3.7 a function may take None, which is known when it is compiled, but not return
    it.
    """
    return lambda function: triton.jit(inspect.unwrap(function), **options)


# ------------------------------------------------------------------ what a kernel is asked
# A parameter is a pointer (None: there is none) and how far it is from a step to the next. What is
# marked constant is known when the kernel is compiled: but not of a tuple that was given a name.


class Tiles(NamedTuple):
    """Which groups a launch is about, and its tiles."""

    samples: Any  # rows x inner, less than 2^31
    groups: Any  # of the tensors
    first: Any
    count: Any
    inner: Any  # constant, as all that follow
    elements: Any
    width: Any


class Norm(NamedTuple):
    """See `_problem.Norm`."""

    gain: Any
    gain_step: Any
    shift: Any
    shift_step: Any
    mean: Any
    mean_step: Any
    variance: Any
    variance_step: Any
    eps: Any  # constant, for it is added in float64, as all that follow
    batch: Any
    varies: Any  # whether anything differs from step to step; of a condition, thresholds as well


class Layer(NamedTuple):
    """What both passes read; see `_problem.Problem`."""

    input: Any
    input_step: Any
    shortcut: Any
    shortcut_step: Any
    current: Any  # a Norm, or None
    v: Any
    norm: Any
    thresholds: Any
    thresholds_step: Any
    threshold: Any
    decays: Any
    decay: Any
    hard: Any  # constant, as all that follow
    constant: Any  # the input is the same at all steps
    waits: Any  # the input's gradient depends on that of all others: its norm is by the batch


class Surrogate(NamedTuple):
    """A `Form`, and whether gradients stop at the reset."""

    scale: Any
    height: Any
    window: Any
    shape: Any  # constant, as all that follow
    detach: Any


# ------------------------------------------------------------------ where things are


class Tile(NamedTuple):
    """Where a program's tile lies."""

    offset: Any  # of its elements in a step of a tensor
    step: Any  # from a step of a dense tensor to the next
    inside: Any  # which of the elements exist
    group: Any  # `[1, width]`
    known: Any  # which of the groups exist
    scratch: Any  # offsets in a step of scratch, which holds tile after tile
    scratch_step: Any
    partial: Any  # offsets in partial results `[slots, count]` of this launch
    partials: Any  # their number
    size: Any  # elements of a group that are here


@jit()
def place(tiles):
    """Where this program's tile lies."""
    program = tl.program_id(0)
    across = tl.cdiv(tiles.count, tiles.width)
    slot = program // across
    column = (program % across) * tiles.width + tl.arange(0, tiles.width)[None, :]
    group = tiles.first + column
    row = tl.arange(0, tiles.elements)[:, None]
    element = slot * tiles.elements + row
    known = column < tiles.count
    stride = tl.cast(tiles.groups, tl.int64) * tiles.inner
    offset = (element // tiles.inner) * stride
    offset += tl.cast(group, tl.int64) * tiles.inner + element % tiles.inner
    scratch = tl.cast(program, tl.int64) * (tiles.elements * tiles.width) + row * tiles.width
    slots = tl.cast(tl.cdiv(tiles.samples, tiles.elements), tl.int64)
    return Tile(
        offset=offset,
        step=tl.cast(tiles.samples, tl.int64) * tiles.groups,
        inside=(element < tiles.samples) & known,
        group=group,
        known=known,
        scratch=scratch + tl.arange(0, tiles.width)[None, :],
        scratch_step=tl.cast(tl.num_programs(0), tl.int64) * (tiles.elements * tiles.width),
        partial=tl.cast(slot, tl.int64) * tiles.count + column,
        partials=slots * tiles.count,
        size=tl.minimum(tiles.samples - slot * tiles.elements, tiles.elements),
    )


@jit()
def of_step(pointer, t, step):
    """Where step t of a tensor begins."""
    return pointer + tl.cast(t, tl.int64) * step


# Streams pass through the cache once; scratch comes back soon.


@jit()
def read(pointer, t, step, tile):
    """float32 of what lies in memory at step t; zero outside."""
    at = of_step(pointer, t, step) + tile.offset
    return tl.load(at, mask=tile.inside, other=0.0, eviction_policy="evict_first").to(tl.float32)


@jit()
def read_or_zero(pointer, t, step, tile):
    """The same; all zero if there is no tensor."""
    if pointer is None:
        return tl.zeros(tile.inside.shape, tl.float32)
    else:
        return read(pointer, t, step, tile)


@jit()
def write(pointer, t, step, tile, value):
    """To memory at step t, if there is a tensor, rounded to its dtype."""
    if pointer is not None:
        at = of_step(pointer, t, step) + tile.offset
        value = value.to(pointer.dtype.element_ty)
        tl.store(at, value, mask=tile.inside, eviction_policy="evict_first")


@jit()
def hold(scratch, t, tile, value):
    """Into scratch, at step t."""
    at = of_step(scratch, t, tile.scratch_step) + tile.scratch
    tl.store(at, value, eviction_policy="evict_last")


@jit()
def held(scratch, t, tile):
    """From scratch."""
    return tl.load(
        of_step(scratch, t, tile.scratch_step) + tile.scratch, eviction_policy="evict_last"
    )


@jit()
def write_partial(partials, at, tile, value):
    """One number for each of this tile's groups, `[1, width]`, as the `at`-th; if it is wanted."""
    if partials is not None:
        to = of_step(partials, at, tile.partials) + tile.partial
        tl.store(to, value, mask=tile.known)


@jit()
def parameter(pointer, t, step, group, known, neutral):
    """One number a group at step t, `[1, width]`; `neutral` if there is none."""
    if pointer is None:
        return tl.zeros(group.shape, tl.float32) + neutral
    else:
        return tl.load(of_step(pointer, t, step) + group, mask=known, other=1.0)


@jit()
def total(a):
    """Sum over a tile's elements, `[1, width]`."""
    return tl.sum(a, axis=0, keep_dims=True)


# ------------------------------------------------------------------ norms


class Map(NamedTuple):
    """A norm at a step, `[1, width]` each; its scale is gain / deviation."""

    mean: Any
    scale: Any
    shift: Any
    deviation: Any


@jit()
def map_by(norm, t, tile, mean, variance):
    """A norm's map at step t, by these statistics; no variance leaves the gain alone.

    The scale is rounded once from float64.
    """
    gain = parameter(norm.gain, t, norm.gain_step, tile.group, tile.known, 1.0)
    shift = parameter(norm.shift, t, norm.shift_step, tile.group, tile.known, 0.0)
    if variance is None:
        return Map(mean, gain, shift, tl.zeros(gain.shape, tl.float32) + 1.0)
    else:
        deviation = tl.sqrt(variance.to(tl.float64) + norm.eps)
        scale = (gain.to(tl.float64) / deviation).to(tl.float32)
        return Map(mean, scale, shift, deviation.to(tl.float32))


@jit()
def map_at(norm, t, tile):
    """A norm's map at step t, by the statistics it has."""
    mean = parameter(norm.mean, t, norm.mean_step, tile.group, tile.known, 0.0)
    variance = None
    if norm.variance is not None:
        step = norm.variance_step
        variance = parameter(norm.variance, t, step, tile.group, tile.known, 1.0)
    return map_by(norm, t, tile, mean, variance)


@jit()
def map_now(norm, t, tile, first):
    """The same, where `first` is the map at step 0."""
    if norm.varies:
        return map_at(norm, t, tile)
    else:
        return first


@jit()
def normalize(a, by):
    """`(a - mean) · scale + shift`."""
    return (a - by.mean) * by.scale + by.shift


@jit()
def statistics(a, spread, inside, samples):
    """Mean and biased variance of a tile's elements, `[1, width]`.

    Arguments:
        a, spread: mean and variance of what each element stands for.
        inside: which elements there are.
        samples: how many.
    """
    mean = total(tl.where(inside, a, 0.0)) / samples
    deviation = a - mean
    return mean, total(tl.where(inside, deviation * deviation + spread, 0.0)) / samples


@jit()
def products(grad, a, by, inside):
    """The gradients of a norm's shift and gain, as far as this tile makes them."""
    grad = tl.where(inside, grad, 0.0)
    return total(grad), total(tl.where(inside, grad * (a - by.mean), 0.0)) / by.deviation


@jit()
def centre(grad, a, by, grad_shift, grad_gain, samples):
    """What is left of a normalized value's gradient because mean and variance follow the value a.

    Arguments:
        grad: the gradient; times the norm's scale, the result is the value's.
        by: the norm's map.
        grad_shift, grad_gain: `products` of all samples.
    """
    mean_product = grad_gain / (by.deviation * samples)
    return grad - grad_shift / samples - (a - by.mean) * mean_product


# ------------------------------------------------------------------ the neuron


@jit()
def current(layer, t, tile, of_input):
    """`norm(input) + shortcut` at step t; `of_input`: the norm's map at step 0, if any."""
    x = read(layer.input, t, layer.input_step, tile)
    if layer.current is not None:
        x = normalize(x, map_now(layer.current, t, tile, of_input))
    if layer.shortcut is not None:
        x = x + read(layer.shortcut, t, layer.shortcut_step, tile)
    return x


@jit()
def decay_of(layer, tile):
    """Share of the potential that remains after a step, `[1, width]`."""
    return parameter(layer.decays, 0, 0, tile.group, tile.known, layer.decay)


@jit()
def charge(v, x, decay):
    """`decay · v + x`."""
    return v * decay + x


@jit()
def limit(layer, t, tile):
    """What is compared with gain · u: polarity · theta where thresholds were folded."""
    if layer.thresholds is None:
        return tl.zeros(tile.group.shape, tl.float32) + layer.threshold
    else:
        step, gain_step = layer.thresholds_step, layer.norm.gain_step
        theta = parameter(layer.thresholds, t, step, tile.group, tile.known, 0.0)
        return theta * parameter(layer.norm.gain, t, gain_step, tile.group, tile.known, 1.0)


@jit()
def fire(h, threshold):
    """1 where h > threshold, else 0; NaN never fires."""
    return tl.where(h > threshold, 1.0, 0.0)


@jit()
def reset(u, s, layer):
    """The potential after the reset."""
    if layer.hard:
        return u * (1.0 - s)
    else:
        return u - layer.threshold * s


@jit()
def through_step(grad_s, grad_v, u, h, threshold, layer, surrogate):
    """From the gradients of spikes and of the potential after the reset to those before.

    Returns:
        the gradient of h; and of u, as far as it passed the reset.
    """
    if not surrogate.detach:
        grad_s = grad_s - grad_v * (u if layer.hard else layer.threshold)
    if layer.hard:
        grad_v = grad_v * (1.0 - fire(h, threshold))
    return grad_s * derivative(h - threshold, surrogate), grad_v


@jit()
def derivative(z, surrogate):
    """Height · shape(scale · z) where |z| <= window, else 0."""
    y = surrogate.scale * z
    if surrogate.shape == "logistic":  # e / (1 + e)², the derivative of the sigmoid
        e = tl.exp(-tl.abs(y))
        slope = e / ((1.0 + e) * (1.0 + e)) * surrogate.height
    elif surrogate.shape == "box":
        slope = tl.zeros(z.shape, tl.float32) + surrogate.height
    elif surrogate.shape == "triangle":
        slope = tl.maximum(1.0 - tl.abs(y), 0.0) * surrogate.height
    elif surrogate.shape == "rational":
        slope = surrogate.height / (1.0 + y * y)
    return tl.where(tl.abs(z) > surrogate.window, 0.0, slope)
