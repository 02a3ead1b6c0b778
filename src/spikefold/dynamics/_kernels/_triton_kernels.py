"""The kernels: which memory is read and written, and in what order; the equations lie beside.

Batch statistics of potentials tie all tiles of a group together at every step. Where one tile holds
a group, `forward` and `backward` do all steps at once, as they do without batch statistics.
Elsewhere a launch does a step (`forward_step`, `backward_step`) and a small one after it merges the
tiles' partial results in a fixed order (`merge`, `reduce`): the end of a launch is the only barrier
between programs that needs neither luck nor spinning.
"""

# ruff: noqa: N803 (compile-time constants are in capitals)
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton.language as tl

from spikefold.dynamics._kernels._triton_equations import (
    affine,
    charge,
    current,
    decay_of,
    discharge,
    fire,
    held,
    here,
    hold,
    jit,
    limit,
    normalize,
    of_step,
    parameter,
    place,
    read,
    read_or_zero,
    scale_of,
    statistics,
    total,
    write,
)

# ------------------------------------------------------------------ statistics


@jit(do_not_specialize=["steps"])
def observe(
    samples, groups, first, count, steps, input, input_step, partials, partials_step,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Mean and variance of each tile of the input over all steps."""
    offset, inside, _, known, partial, _ = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    mean = tl.zeros(inside.shape, tl.float32)
    squares = tl.zeros(inside.shape, tl.float32)
    for t in range(steps):  # Welford's, every element for itself
        x = read(of_step(input, t, input_step), offset, inside)
        deviation = x - mean
        mean += deviation / (t + 1)
        squares += deviation * (x - mean)
    size = here(samples, partial, count, ELEMENTS)
    mean, variance = statistics(mean, squares / steps, inside, size)
    write(partials, partial, known, mean)
    write(of_step(partials, 1, partials_step), partial, known, variance)


@jit()
def merge(
    partials, partials_step, slots, samples, first, count, mean, variance,
    TILE: tl.constexpr, SLOTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Mean and variance of groups from those of their tiles of TILE elements (Chan's formula)."""
    column = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)[None, :]
    known = column < count
    sums = tl.zeros((SLOTS, GROUPS), tl.float32)
    for start in range(0, slots, SLOTS):
        slot = start + tl.arange(0, SLOTS)[:, None]
        partial = tl.cast(slot, tl.int64) * count + column
        size = here(samples, partial - column, count, TILE)
        sums += size * tl.load(partials + partial, mask=known & (slot < slots), other=0.0)
    overall = total(sums) / samples
    squares = tl.zeros((SLOTS, GROUPS), tl.float32)
    for start in range(0, slots, SLOTS):
        slot = start + tl.arange(0, SLOTS)[:, None]
        partial = tl.cast(slot, tl.int64) * count + column
        size = here(samples, partial - column, count, TILE)
        inside = known & (slot < slots)
        deviation = tl.load(partials + partial, mask=inside, other=0.0) - overall
        spread = tl.load(partials + partials_step + partial, mask=inside, other=0.0)
        squares += tl.where(inside, size * (spread + deviation * deviation), 0.0)
    write(mean, first + column, known, overall)
    write(variance, first + column, known, total(squares) / samples)


@jit()
def reduce(
    partials, partials_step, slots, samples, first, count,
    variance, eps: tl.constexpr, means, means_step, grad_gain, grad_shift,
    SLOTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Sums over tiles of g and g · centered: means for `centre`, gradients of gain and shift.

    Arguments:
        variance, eps: the gain was multiplied by centered / deviation; None: by centered.
        means: two numbers a group, of this launch's groups; or None.
        grad_gain, grad_shift: added to; or None.
    """
    column = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)[None, :]
    known = column < count
    sums = tl.zeros((SLOTS, GROUPS), tl.float32)
    products = tl.zeros((SLOTS, GROUPS), tl.float32)
    for start in range(0, slots, SLOTS):
        slot = start + tl.arange(0, SLOTS)[:, None]
        partial = tl.cast(slot, tl.int64) * count + column
        inside = known & (slot < slots)
        sums += tl.load(partials + partial, mask=inside, other=0.0)
        products += tl.load(partials + partials_step + partial, mask=inside, other=0.0)
    grad, product, group = total(sums), total(products), first + column
    if variance is None:
        deviation = tl.zeros(group.shape, tl.float32) + 1.0
    else:
        spread = parameter(variance, 0, 0, group, known, 1.0)
        deviation = scale_of(spread, spread, eps)[1]
    if means is not None:
        write(means, column, known, grad / samples)
        write(means + means_step, column, known, product / (deviation * deviation * samples))
    if grad_gain is not None:
        product = product / deviation
        write(grad_gain, group, known, read(grad_gain, group, known) + product)
    if grad_shift is not None:
        write(grad_shift, group, known, read(grad_shift, group, known) + grad)


# ------------------------------------------------------------------ forward


@jit(do_not_specialize=["steps"])
def forward(
    samples, groups, first, count, steps, elements, layer, spikes, v_last,
    NORMED: tl.constexpr, BATCH: tl.constexpr, HARD: tl.constexpr, VARIES: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """All steps of a tile, its potentials in registers.

    Arguments:
        BATCH: the tile is the whole group.
        VARIES: the condition differs from step to step.
    """
    offset, inside, group, known, _, _ = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    norm, decay = layer.norm, decay_of(layer, group, known)
    if not BATCH:
        u_mean, u_scale, u_shift, _ = affine(norm, 0, group, known)
    threshold = limit(layer, 0, group, known)
    x_mean, x_scale, x_shift, _ = affine(layer.current, 0, group, known)
    potential = read_or_zero(layer.v, offset, inside)
    for t in range(steps):
        x = current(layer, t, offset, inside, x_mean, x_scale, x_shift, NORMED)
        u = charge(potential, x, decay)
        if BATCH:
            u_mean, u_variance = statistics(u, 0.0, inside, samples)
            write(of_step(norm.mean, t, norm.mean_step), group, known, u_mean)
            write(of_step(norm.variance, t, norm.variance_step), group, known, u_variance)
            gain = parameter(norm.gain, t, norm.gain_step, group, known, 1.0)
            u_shift = parameter(norm.shift, t, norm.shift_step, group, known, 0.0)
            u_scale, _ = scale_of(gain, u_variance, norm.eps)
        elif VARIES:
            u_mean, u_scale, u_shift, _ = affine(norm, t, group, known)
            threshold = limit(layer, t, group, known)
        s = fire(normalize(u, u_mean, u_scale, u_shift), threshold)
        write(of_step(spikes, t, elements), offset, inside, s)
        potential = discharge(u, s, layer.threshold, HARD)
    write(v_last, offset, inside, potential)


@jit(do_not_specialize=["t"])
def forward_step(
    t, samples, groups, first, count, elements, layer, spikes, v_last,
    carried, partials, partials_step,
    NORMED: tl.constexpr, HARD: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Fire step t - 1 (unless FIRST), charge step t and observe it (unless LAST)."""
    offset, inside, group, known, partial, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    if FIRST:
        potential = read_or_zero(layer.v, offset, inside)
    else:
        u = held(carried, scratch)
        u_mean, u_scale, u_shift, _ = affine(layer.norm, t - 1, group, known)
        s = fire(normalize(u, u_mean, u_scale, u_shift), limit(layer, t - 1, group, known))
        write(of_step(spikes, t - 1, elements), offset, inside, s)
        potential = discharge(u, s, layer.threshold, HARD)
    if LAST:
        write(v_last, offset, inside, potential)
    else:
        x_mean, x_scale, x_shift, _ = affine(layer.current, 0, group, known)
        x = current(layer, t, offset, inside, x_mean, x_scale, x_shift, NORMED)
        u = charge(potential, x, decay_of(layer, group, known))
        hold(carried, scratch, u)
        size = here(samples, partial, count, ELEMENTS)
        tile_mean, tile_variance = statistics(u, 0.0, inside, size)
        write(partials, partial, known, tile_mean)
        write(of_step(partials, 1, partials_step), partial, known, tile_variance)
