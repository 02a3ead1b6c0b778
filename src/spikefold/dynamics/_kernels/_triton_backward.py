"""The kernels of the backward pass; see `_triton_kernels`.

`potentials` is scratch that holds the potential of each step, recomputed; the gradient of a step's
currents takes its place when it is no longer needed (all in the last one's where the input is the
same at all steps). The host keeps scratch small enough to stay in the cache.
"""

# ruff: noqa: N803 (compile-time constants are in capitals)
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton.language as tl

from spikefold.dynamics._kernels._triton_equations import (
    affine,
    centre,
    charge,
    current,
    decay_of,
    discharge,
    fire,
    held,
    hold,
    jit,
    limit,
    normalize,
    of_step,
    parameter,
    place,
    read,
    read_or_zero,
    through_step,
    total,
    write,
)


@jit()
def recompute(
    samples, groups, first, count, steps, layer, potentials, potentials_step,
    NORMED: tl.constexpr, HARD: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """The potentials of all steps, into scratch; statistics are known."""
    offset, inside, group, known, _, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    decay = decay_of(layer, group, known)
    x_mean, x_scale, x_shift, _ = affine(layer.current, 0, group, known)
    potential = read_or_zero(layer.v, offset, inside)
    for t in range(steps):
        x = current(layer, t, offset, inside, x_mean, x_scale, x_shift, NORMED)
        u = charge(potential, x, decay)
        hold(of_step(potentials, t, potentials_step), scratch, u)
        potential = left_by(u, t, layer, group, known, HARD)


@jit()
def left_by(u, t, layer, group, known, HARD: tl.constexpr):
    """The potential that step t leaves, from what it was before firing."""
    u_mean, u_scale, u_shift, _ = affine(layer.norm, t, group, known)
    s = fire(normalize(u, u_mean, u_scale, u_shift), limit(layer, t, group, known))
    return discharge(u, s, layer.threshold, HARD)


@jit(do_not_specialize=["steps"])
def backward(
    samples, groups, first, count, steps, elements, layer, surrogate,
    potentials, potentials_step, grad_spikes, grad_v_last, grad_currents, grad_v,
    partials, current_partials, partials_step, decay_partials,
    NORMED: tl.constexpr, BATCH: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
    SHAPE: tl.constexpr, CONSTANT: tl.constexpr, KEEP: tl.constexpr, VARIES: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """All steps of a tile. BATCH: the tile is the whole group.

    Arguments:
        grad_currents: of each step, or None.
        partials: sums of the gradients of shift and gain (VARIES: a pair for each step), or None.
        current_partials: sums of the currents' gradients, and of these times the centered input.
        decay_partials: sums of the currents' gradients times the potential before, or None.
        CONSTANT: the input is the same at all steps.
        KEEP: the currents' gradients (CONSTANT: their sum) are left in scratch.
    """
    recompute(
        samples, groups, first, count, steps, layer, potentials, potentials_step,
        NORMED, HARD, INNER, ELEMENTS, GROUPS,
    )  # fmt: skip
    tl.debug_barrier()  # what a thread reads back, another may have written
    offset, inside, group, known, partial, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    decay = decay_of(layer, group, known)
    x_mean = parameter(layer.current.mean, 0, 0, group, known, 0.0)
    grad_potential = read_or_zero(grad_v_last, offset, inside)
    grads = tl.zeros(inside.shape, tl.float32)  # summed over the steps
    sums = tl.zeros(group.shape, tl.float32)
    products = tl.zeros(group.shape, tl.float32)
    grad_shift = tl.zeros(group.shape, tl.float32)
    grad_gain = tl.zeros(group.shape, tl.float32)
    grad_decay = tl.zeros(group.shape, tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        u = held(of_step(potentials, t, potentials_step), scratch)
        u_mean, u_scale, u_shift, deviation = affine(layer.norm, t, group, known)
        grad_s = read_or_zero(of_step(grad_spikes, t, elements), offset, inside)
        grad_h, passed = through_step(
            grad_s, grad_potential, u, normalize(u, u_mean, u_scale, u_shift),
            limit(layer, t, group, known), layer.threshold, surrogate, SHAPE, HARD, DETACH,
        )  # fmt: skip
        if BATCH or partials is not None:
            sum_h, product_h = total(grad_h), total(grad_h * (u - u_mean))
            if VARIES:
                pair = of_step(partials, 2 * t, partials_step)
                write(pair, partial, known, sum_h)
                write(of_step(pair, 1, partials_step), partial, known, product_h / deviation)
            else:
                grad_shift += sum_h
                grad_gain += product_h / deviation
        if BATCH:
            mean_grad = sum_h / samples
            mean_product = product_h / (deviation * deviation * samples)
            grad_h = centre(grad_h, u - u_mean, mean_grad, mean_product)
        grad = tl.where(inside, passed + u_scale * grad_h, 0.0)
        write(of_step(grad_currents, t, elements), offset, inside, grad)
        if current_partials is not None:
            x = read(of_step(layer.input, t, layer.input_step), offset, inside)
            sums += total(grad)
            products += total(tl.where(inside, grad * (x - x_mean), 0.0))
        if decay_partials is not None:
            before = read_or_zero(layer.v, offset, inside)
            if t > 0:
                u = held(of_step(potentials, t - 1, potentials_step), scratch)
                before = left_by(u, t - 1, layer, group, known, HARD)
            grad_decay += total(tl.where(inside, grad * before, 0.0))
        if KEEP:
            if CONSTANT:
                grads += grad
            else:
                hold(of_step(potentials, t, potentials_step), scratch, grad)
        grad_potential = grad * decay
    write(grad_v, offset, inside, grad_potential)
    if KEEP and CONSTANT:
        hold(of_step(potentials, steps - 1, potentials_step), scratch, grads)
    if partials is not None and not VARIES:
        write(partials, partial, known, grad_shift)
        write(of_step(partials, 1, partials_step), partial, known, grad_gain)
    if current_partials is not None:
        write(current_partials, partial, known, sums)
        write(of_step(current_partials, 1, partials_step), partial, known, products)
    write(decay_partials, partial, known, grad_decay)


@jit(do_not_specialize=["t", "steps"])
def backward_step(
    t, samples, groups, first, count, steps, elements, layer, surrogate,
    potentials, potentials_step, grad_spikes, grad_v_last, grad_currents, grad_v,
    carried, means, means_step, partials, current_partials, partials_step, decay_partials,
    HARD: tl.constexpr, DETACH: tl.constexpr, SHAPE: tl.constexpr,
    CONSTANT: tl.constexpr, KEEP: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Finish step t + 1, its means known now (unless FIRST), and begin step t (unless LAST).

    Arguments:
        carried: scratch; what is known of the gradient of step t + 1 before its means are.
        means: of step t + 1, for `centre`.
        current_partials, decay_partials: added to.
        others: see `backward`.
    """
    offset, inside, group, known, partial, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    if FIRST:
        grad_potential = read_or_zero(grad_v_last, offset, inside)
    else:
        done = t + 1
        kept = of_step(potentials, done, potentials_step)
        u_mean, u_scale, _, _ = affine(layer.norm, done, group, known)
        mean_grad = parameter(means, 0, 0, group - first, known, 0.0)
        mean_product = parameter(means, 1, means_step, group - first, known, 0.0)
        centered = held(kept, scratch) - u_mean
        grad = held(carried, scratch) + u_scale * centre(0.0, centered, mean_grad, mean_product)
        grad = tl.where(inside, grad, 0.0)
        write(of_step(grad_currents, done, elements), offset, inside, grad)
        if current_partials is not None:
            x = read(of_step(layer.input, done, layer.input_step), offset, inside)
            x_mean = parameter(layer.current.mean, 0, 0, group, known, 0.0)
            product = tl.where(inside, grad * (x - x_mean), 0.0)
            second = of_step(current_partials, 1, partials_step)
            sums = read(current_partials, partial, known) + total(grad)
            products = read(second, partial, known) + total(product)
            write(current_partials, partial, known, sums)
            write(second, partial, known, products)
        if decay_partials is not None:
            if LAST:
                before = read_or_zero(layer.v, offset, inside)
            else:
                u = held(of_step(potentials, t, potentials_step), scratch)
                before = left_by(u, t, layer, group, known, HARD)
            so_far = read(decay_partials, partial, known)
            of_step_done = total(tl.where(inside, grad * before, 0.0))
            write(decay_partials, partial, known, so_far + of_step_done)
        if KEEP and not CONSTANT:
            hold(kept, scratch, grad)
        if KEEP and CONSTANT:
            last = of_step(potentials, steps - 1, potentials_step)
            before_last = tl.where(done < steps - 1, held(last, scratch), 0.0)
            hold(last, scratch, before_last + grad)
        grad_potential = grad * decay_of(layer, group, known)
    if LAST:
        write(grad_v, offset, inside, grad_potential)
    else:
        u = held(of_step(potentials, t, potentials_step), scratch)
        u_mean, u_scale, u_shift, _ = affine(layer.norm, t, group, known)
        grad_s = read_or_zero(of_step(grad_spikes, t, elements), offset, inside)
        grad_h, passed = through_step(
            grad_s, grad_potential, u, normalize(u, u_mean, u_scale, u_shift),
            limit(layer, t, group, known), layer.threshold, surrogate, SHAPE, HARD, DETACH,
        )  # fmt: skip
        hold(carried, scratch, passed + u_scale * grad_h)
        write(partials, partial, known, total(grad_h))
        second = of_step(partials, 1, partials_step)
        write(second, partial, known, total(grad_h * (u - u_mean)))


@jit(do_not_specialize=["steps"])
def through_current(
    samples, groups, first, count, steps, elements, layer,
    kept, kept_step, means, means_step, grad_input,
    BATCH: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """From the currents' gradients, in scratch, through the norm to the input's."""
    offset, inside, group, known, _, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    x_mean, scale, _, _ = affine(layer.current, 0, group, known)
    mean_grad = parameter(means, 0, 0, group - first, known, 0.0)
    mean_product = parameter(means, 1, means_step, group - first, known, 0.0)
    for t in range(steps):
        grad = held(of_step(kept, t, kept_step), scratch)
        if BATCH:
            x = read(of_step(layer.input, t, layer.input_step), offset, inside)
            grad = centre(grad, x - x_mean, mean_grad, mean_product)
        write(of_step(grad_input, t, elements), offset, inside, scale * grad)
