"""The kernels: which memory is read and written, in what order; for equations `_triton_equations`.

Batch statistics of potentials tie all tiles of a group together at every step. Where one tile holds
a group, `forward` and `backward` do all steps at once, as they do without batch statistics.
Elsewhere a launch does a step (`forward_step`, `backward_step`), and the host adds up the tiles'
partial results after it in a fixed order (statistics: `merge`): the end of a launch is the only
barrier between programs that does not rely on scheduling or spinning.

`potentials` is scratch that holds the potential of each step, recomputed; the gradient of a step's
currents takes its place when it is no longer needed (all in the last one's where the input is the
same at all steps). The host keeps scratch small enough to stay in the cache.
"""

# ruff: noqa: N803 (compile-time constants are in capitals)
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import Any, NamedTuple

import triton.language as tl

from spikefold.dynamics._kernels._triton_equations import (
    centre,
    charge,
    current,
    decay_of,
    fire,
    held,
    hold,
    jit,
    limit,
    map_at,
    map_by,
    normalize,
    of_step,
    place,
    products,
    read,
    read_or_zero,
    reset,
    statistics,
    through_step,
    total,
    write,
    write_partial,
)

# ------------------------------------------------------------------ statistics


@jit(do_not_specialize=["steps"])
def observe(steps, tiles, input, input_step, partials):
    """Mean and variance of each tile of the input over all steps."""
    tile = place(tiles)
    mean = tl.zeros(tile.inside.shape, tl.float32)
    squares = tl.zeros(tile.inside.shape, tl.float32)
    for t in range(steps):  # Welford's, every element for itself
        x = read(input, t, input_step, tile)
        deviation = x - mean
        mean += deviation / (t + 1)
        squares += deviation * (x - mean)
    mean, variance = statistics(mean, squares / steps, tile.inside, tile.size)
    write_partial(partials, 0, tile, mean)
    write_partial(partials, 1, tile, variance)


@jit()
def some_slots(start, column, tiles, SLOTS: tl.constexpr):
    """From `start` on: where their partial results are, which exist, how many elements each has."""
    slot = start + tl.arange(0, SLOTS)[:, None]
    inside = (slot < tl.cdiv(tiles.samples, tiles.elements)) & (column < tiles.count)
    size = tl.minimum(tiles.samples - slot * tiles.elements, tiles.elements)
    return tl.cast(slot, tl.int64) * tiles.count + column, inside, size


@jit()
def merge(tiles, partials, mean, variance, SLOTS: tl.constexpr, GROUPS: tl.constexpr):
    """Mean and variance of groups from those of their tiles (Chan's formula)."""
    slots = tl.cdiv(tiles.samples, tiles.elements)
    column = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)[None, :]
    sums = tl.zeros((SLOTS, GROUPS), tl.float32)
    for start in range(0, slots, SLOTS):
        at, inside, size = some_slots(start, column, tiles, SLOTS)
        sums += size * tl.load(partials + at, mask=inside, other=0.0)
    overall = total(sums) / tiles.samples
    squares = tl.zeros((SLOTS, GROUPS), tl.float32)
    variances = of_step(partials, slots, tiles.count)
    for start in range(0, slots, SLOTS):
        at, inside, size = some_slots(start, column, tiles, SLOTS)
        deviation = tl.load(partials + at, mask=inside, other=0.0) - overall
        spread = tl.load(variances + at, mask=inside, other=0.0)
        squares += tl.where(inside, size * (spread + deviation * deviation), 0.0)
    group, known = tiles.first + column, column < tiles.count
    tl.store(mean + group, overall, mask=known)
    tl.store(variance + group, total(squares) / tiles.samples, mask=known)


# ------------------------------------------------------------------ forward


@jit(do_not_specialize=["steps"])
def forward(steps, tiles, layer, spikes, v_last):
    """All steps of a tile, its potentials in registers."""
    tile = place(tiles)
    decay = decay_of(layer, tile)
    of_input = None if layer.current is None else map_at(layer.current, 0, tile)
    of_potential = None if layer.norm.batch else map_at(layer.norm, 0, tile)
    threshold = limit(layer, 0, tile)
    potential = read_or_zero(layer.v, 0, tile.step, tile)
    for t in range(steps):
        x = current(layer, t, tile, of_input)
        u = charge(potential, x, decay)
        if layer.norm.batch:
            mean, variance = statistics(u, 0.0, tile.inside, tiles.samples)
            write_statistics(layer.norm, t, tile, mean, variance)
            s = fire(normalize(u, map_by(layer.norm, t, tile, mean, variance)), threshold)
        elif layer.norm.varies:
            s = fire(normalize(u, map_at(layer.norm, t, tile)), limit(layer, t, tile))
        else:
            s = fire(normalize(u, of_potential), threshold)
        write(spikes, t, tile.step, tile, s)
        potential = reset(u, s, layer)
    write(v_last, 0, tile.step, tile, potential)


@jit()
def write_statistics(norm, t, tile, mean, variance):
    """Those of the batch, where others find them."""
    tl.store(of_step(norm.mean, t, norm.mean_step) + tile.group, mean, mask=tile.known)
    tl.store(of_step(norm.variance, t, norm.variance_step) + tile.group, variance, mask=tile.known)


@jit(do_not_specialize=["t"])
def forward_step(
    t, tiles, layer, spikes, v_last, carried, partials, FIRST: tl.constexpr, LAST: tl.constexpr
):
    """Fire step t - 1 (unless FIRST), charge step t and observe it (unless LAST)."""
    tile = place(tiles)
    if FIRST:
        potential = read_or_zero(layer.v, 0, tile.step, tile)
    else:
        u = held(carried, 0, tile)
        s = spikes_at(t - 1, u, layer, tile)
        write(spikes, t - 1, tile.step, tile, s)
        potential = reset(u, s, layer)
    if LAST:
        write(v_last, 0, tile.step, tile, potential)
    else:
        of_input = None if layer.current is None else map_at(layer.current, t, tile)
        x = current(layer, t, tile, of_input)
        u = charge(potential, x, decay_of(layer, tile))
        hold(carried, 0, tile, u)
        mean, variance = statistics(u, 0.0, tile.inside, tile.size)
        write_partial(partials, 0, tile, mean)
        write_partial(partials, 1, tile, variance)


@jit()
def spikes_at(t, u, layer, tile):
    """What step t fires; statistics are known."""
    return fire(normalize(u, map_at(layer.norm, t, tile)), limit(layer, t, tile))


# ------------------------------------------------------------------ backward


class Gradients(NamedTuple):
    """What backward reads and writes; None where it is not there, or not wanted.

    Partial results are those of `products`, `[T, 2, slots, count]`, of the norms before and after
    the charge; and sums of the currents' gradient times the potential before, `[T, slots, count]`.
    """

    spikes: Any
    v_last: Any
    input: Any
    shortcut: Any
    v: Any
    norm: Any
    current: Any
    decay: Any


@jit()
def recompute(steps, tiles, layer, potentials):
    """The potentials of all steps, into scratch; statistics are known."""
    tile = place(tiles)
    decay = decay_of(layer, tile)
    of_input = None if layer.current is None else map_at(layer.current, 0, tile)
    potential = read_or_zero(layer.v, 0, tile.step, tile)
    for t in range(steps):
        x = current(layer, t, tile, of_input)
        u = charge(potential, x, decay)
        hold(potentials, t, tile, u)
        potential = reset(u, spikes_at(t, u, layer, tile), layer)


@jit()
def through_fire(t, u, grad_v, tile, layer, surrogate, grads):
    """From the gradients of step t's spikes and of what it leaves to those of its potential.

    Returns:
        the gradient of h; of u, as far as it passed the reset; and the map from u to h.
    """
    by = map_at(layer.norm, t, tile)
    grad_s = read_or_zero(grads.spikes, t, tile.step, tile)
    h, threshold = normalize(u, by), limit(layer, t, tile)
    grad_h, passed = through_step(grad_s, grad_v, u, h, threshold, layer, surrogate)
    return grad_h, passed, by


@jit()
def through_charge(t, steps, grad, tile, layer, potentials, grads):
    """What becomes of the gradient of step t's currents; that of the potential before it.

    The input's own is written, or waits in scratch for `finish_input`.
    """
    grad = tl.where(tile.inside, grad, 0.0)
    write(grads.shortcut, t, tile.step, tile, grad)
    if grads.decay is not None:
        if t > 0:
            u = held(potentials, t - 1, tile)
            before = reset(u, spikes_at(t - 1, u, layer, tile), layer)
        else:
            before = read_or_zero(layer.v, 0, tile.step, tile)
        write_partial(grads.decay, t, tile, total(tl.where(tile.inside, grad * before, 0.0)))
    through = grad
    if layer.current is not None:
        by = map_at(layer.current, t, tile)
        if grads.current is not None:
            x = read(layer.input, t, layer.input_step, tile)
            shift, gain = products(grad, x, by, tile.inside)
            write_partial(grads.current, 2 * t, tile, shift)
            write_partial(grads.current, 2 * t + 1, tile, gain)
        if not layer.waits:
            through = grad * by.scale
    if layer.constant:
        tl.debug_barrier()  # a thread may read what another has written
        others = tl.where(t < steps - 1, held(potentials, steps - 1, tile), 0.0)
        hold(potentials, steps - 1, tile, others + through)
    elif layer.waits:
        hold(potentials, t, tile, through)
    else:
        write(grads.input, t, tile.step, tile, through)
    return grad * decay_of(layer, tile)


@jit(do_not_specialize=["steps"])
def backward(steps, tiles, layer, surrogate, potentials, grads):
    """All steps of a tile, which is the whole group where statistics are the batch's."""
    recompute(steps, tiles, layer, potentials)
    tl.debug_barrier()
    tile = place(tiles)
    grad_v = read_or_zero(grads.v_last, 0, tile.step, tile)
    for back in range(steps):
        t = steps - 1 - back
        u = held(potentials, t, tile)
        grad_h, passed, by = through_fire(t, u, grad_v, tile, layer, surrogate, grads)
        if layer.norm.batch or grads.norm is not None:
            shift, gain = products(grad_h, u, by, tile.inside)
            write_partial(grads.norm, 2 * t, tile, shift)
            write_partial(grads.norm, 2 * t + 1, tile, gain)
            if layer.norm.batch:
                grad_h = centre(grad_h, u, by, shift, gain, tiles.samples)
        grad = passed + by.scale * grad_h
        grad_v = through_charge(t, steps, grad, tile, layer, potentials, grads)
    write(grads.v, 0, tile.step, tile, grad_v)


@jit(do_not_specialize=["t", "steps"])
def backward_step(
    t, steps, tiles, layer, surrogate, potentials, carried, sums, grads,
    FIRST: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Finish step t + 1, its sums known now (unless FIRST), and begin step t (unless LAST).

    Arguments:
        carried: scratch; what is known of the gradient of step t + 1 before its sums are.
        sums: of step t + 1, `[2, count]`, for `centre`.
    """
    tile = place(tiles)
    if FIRST:
        grad_v = read_or_zero(grads.v_last, 0, tile.step, tile)
    else:
        done = t + 1
        u, by = held(potentials, done, tile), map_at(layer.norm, done, tile)
        shift, gain = sums_of(sums, tiles, tile)
        grad = held(carried, 0, tile) + by.scale * centre(0.0, u, by, shift, gain, tiles.samples)
        grad_v = through_charge(done, steps, grad, tile, layer, potentials, grads)
    if LAST:
        write(grads.v, 0, tile.step, tile, grad_v)
    else:
        u = held(potentials, t, tile)
        grad_h, passed, by = through_fire(t, u, grad_v, tile, layer, surrogate, grads)
        hold(carried, 0, tile, passed + by.scale * grad_h)
        shift, gain = products(grad_h, u, by, tile.inside)
        write_partial(grads.norm, 2 * t, tile, shift)
        write_partial(grads.norm, 2 * t + 1, tile, gain)


@jit()
def sums_of(sums, tiles, tile):
    """Two numbers of each group of this launch, `[2, count]`."""
    at = sums + tile.group - tiles.first
    return (
        tl.load(at, mask=tile.known, other=0.0),
        tl.load(at + tiles.count, mask=tile.known, other=0.0),
    )


@jit(do_not_specialize=["steps"])
def finish_input(steps, tiles, layer, kept, sums, grad_input):
    """The input's gradient, of what `through_charge` left in scratch.

    Arguments:
        steps: of the input.
        kept: the gradients of what the norm made of it, with a norm by the batch's statistics.
        sums: of all steps, `[2, count]`, for `centre`.
    """
    tile = place(tiles)
    for t in range(steps):
        grad = held(kept, t, tile)
        if layer.waits:
            by = map_at(layer.current, 0, tile)
            x = read(layer.input, t, layer.input_step, tile)
            shift, gain = sums_of(sums, tiles, tile)
            grad = by.scale * centre(grad, x, by, shift, gain, tiles.samples * steps)
        write(grad_input, t, tile.step, tile, grad)
