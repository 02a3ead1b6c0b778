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
    discharge,
    fire,
    held,
    hold,
    jit,
    limit_of,
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
    samples, groups, first, count, steps,
    input, input_step, shortcut, shortcut_step,
    current_gain, current_shift, current_mean, current_variance, current_eps: tl.constexpr,
    v, gain, shift, mean, variance, eps: tl.constexpr, statistics_step,
    thresholds, threshold, decay,
    potentials, potentials_step,
    NORMED: tl.constexpr, HARD: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """The potentials of all steps, into scratch; statistics are known."""
    offset, inside, group, known, _, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    x_mean, x_scale, x_shift, _ = affine(
        current_gain, current_shift, current_mean, current_variance, current_eps, group, known
    )
    limit = limit_of(thresholds, gain, group, known, threshold)
    potential = read_or_zero(v, offset, inside)
    for t in range(steps):
        x = current(
            of_step(input, t, input_step), of_step(shortcut, t, shortcut_step), offset, inside,
            x_mean, x_scale, x_shift, NORMED,
        )  # fmt: skip
        u = charge(potential, x, decay)
        hold(of_step(potentials, t, potentials_step), scratch, u)
        u_mean, u_scale, u_shift, _ = affine(
            gain, shift,
            of_step(mean, t, statistics_step), of_step(variance, t, statistics_step), eps,
            group, known,
        )  # fmt: skip
        s = fire(normalize(u, u_mean, u_scale, u_shift), limit)
        potential = discharge(u, s, threshold, HARD)


@jit(do_not_specialize=["steps"])
def backward(
    samples, groups, first, count, steps, elements,
    input, input_step, shortcut, shortcut_step,
    current_gain, current_shift, current_mean, current_variance, current_eps: tl.constexpr,
    v, gain, shift, mean, variance, eps: tl.constexpr, statistics_step,
    thresholds, threshold, decay,
    potentials, potentials_step, slope, factor,
    grad_spikes, grad_v_last, grad_currents, grad_v,
    partials, current_partials, partials_step,
    NORMED: tl.constexpr, BATCH: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
    KIND: tl.constexpr, CONSTANT: tl.constexpr, KEEP: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """All steps of a tile. BATCH: the tile is the whole group.

    Arguments:
        grad_currents: of each step, or None.
        partials: sums of the gradients of shift and gain, or None.
        current_partials: sums of the currents' gradients, and of these times the centered input.
        CONSTANT: the input is the same at all steps.
        KEEP: the currents' gradients (CONSTANT: their sum) are left in scratch.
    """
    recompute(
        samples, groups, first, count, steps,
        input, input_step, shortcut, shortcut_step,
        current_gain, current_shift, current_mean, current_variance, current_eps,
        v, gain, shift, mean, variance, eps, statistics_step, thresholds, threshold, decay,
        potentials, potentials_step,
        NORMED, HARD, INNER, ELEMENTS, GROUPS,
    )  # fmt: skip
    tl.debug_barrier()  # what a thread reads back, another may have written
    offset, inside, group, known, partial, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    limit = limit_of(thresholds, gain, group, known, threshold)
    x_mean = parameter(current_mean, group, known, 0.0)
    grad_potential = read_or_zero(grad_v_last, offset, inside)
    grads = tl.zeros(inside.shape, tl.float32)  # summed over the steps
    sums = tl.zeros(group.shape, tl.float32)
    products = tl.zeros(group.shape, tl.float32)
    grad_shift = tl.zeros(group.shape, tl.float32)
    grad_gain = tl.zeros(group.shape, tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        u = held(of_step(potentials, t, potentials_step), scratch)
        u_mean, u_scale, u_shift, deviation = affine(
            gain, shift,
            of_step(mean, t, statistics_step), of_step(variance, t, statistics_step), eps,
            group, known,
        )  # fmt: skip
        grad_s = read_or_zero(of_step(grad_spikes, t, elements), offset, inside)
        grad_h, passed = through_step(
            grad_s, grad_potential, u, normalize(u, u_mean, u_scale, u_shift), limit,
            threshold, slope, factor, KIND, HARD, DETACH,
        )  # fmt: skip
        if BATCH or partials is not None:
            sum_h, product_h = total(grad_h), total(grad_h * (u - u_mean))
            grad_shift += sum_h
            grad_gain += product_h / deviation
        if BATCH:
            mean_grad = sum_h / samples
            mean_product = product_h / (deviation * deviation * samples)
            grad_h = centre(grad_h, u - u_mean, mean_grad, mean_product)
        grad = tl.where(inside, passed + u_scale * grad_h, 0.0)
        write(of_step(grad_currents, t, elements), offset, inside, grad)
        if current_partials is not None:
            x = read(of_step(input, t, input_step), offset, inside)
            sums += total(grad)
            products += total(tl.where(inside, grad * (x - x_mean), 0.0))
        if KEEP:
            if CONSTANT:
                grads += grad
            else:
                hold(of_step(potentials, t, potentials_step), scratch, grad)
        grad_potential = grad * decay
    write(grad_v, offset, inside, grad_potential)
    if KEEP and CONSTANT:
        hold(of_step(potentials, steps - 1, potentials_step), scratch, grads)
    if partials is not None:
        write(partials, partial, known, grad_shift)
        write(of_step(partials, 1, partials_step), partial, known, grad_gain)
    if current_partials is not None:
        write(current_partials, partial, known, sums)
        write(of_step(current_partials, 1, partials_step), partial, known, products)


@jit(do_not_specialize=["t", "steps"])
def backward_step(
    t, samples, groups, first, count, steps, elements,
    input, input_step, current_mean,
    gain, shift, mean, variance, eps: tl.constexpr, thresholds, threshold, decay,
    potentials, potentials_step, slope, factor,
    grad_spikes, grad_v_last, grad_currents, grad_v, carried, means, means_step,
    partials, current_partials, partials_step,
    HARD: tl.constexpr, DETACH: tl.constexpr, KIND: tl.constexpr,
    CONSTANT: tl.constexpr, KEEP: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Finish step t + 1, its means known now (unless FIRST), and begin step t (unless LAST).

    Arguments:
        carried: scratch; what is known of the gradient of step t + 1 before its means are.
        means: of step t + 1, for `centre`.
        current_partials: added to.
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
        u_mean, u_scale, _, _ = affine(
            gain, shift, of_step(mean, done, groups), of_step(variance, done, groups), eps,
            group, known,
        )  # fmt: skip
        mean_grad = parameter(means, group - first, known, 0.0)
        mean_product = parameter(of_step(means, 1, means_step), group - first, known, 0.0)
        centered = held(kept, scratch) - u_mean
        grad = held(carried, scratch) + u_scale * centre(0.0, centered, mean_grad, mean_product)
        grad = tl.where(inside, grad, 0.0)
        write(of_step(grad_currents, done, elements), offset, inside, grad)
        if current_partials is not None:
            x = read(of_step(input, done, input_step), offset, inside)
            x_mean = parameter(current_mean, group, known, 0.0)
            product = tl.where(inside, grad * (x - x_mean), 0.0)
            second = of_step(current_partials, 1, partials_step)
            sums = read(current_partials, partial, known) + total(grad)
            products = read(second, partial, known) + total(product)
            write(current_partials, partial, known, sums)
            write(second, partial, known, products)
        if KEEP and not CONSTANT:
            hold(kept, scratch, grad)
        if KEEP and CONSTANT:
            last = of_step(potentials, steps - 1, potentials_step)
            before = tl.where(done < steps - 1, held(last, scratch), 0.0)
            hold(last, scratch, before + grad)
        grad_potential = grad * decay
    if LAST:
        write(grad_v, offset, inside, grad_potential)
    else:
        u = held(of_step(potentials, t, potentials_step), scratch)
        u_mean, u_scale, u_shift, _ = affine(
            gain, shift, of_step(mean, t, groups), of_step(variance, t, groups), eps, group, known
        )
        limit = limit_of(thresholds, gain, group, known, threshold)
        grad_s = read_or_zero(of_step(grad_spikes, t, elements), offset, inside)
        grad_h, passed = through_step(
            grad_s, grad_potential, u, normalize(u, u_mean, u_scale, u_shift), limit,
            threshold, slope, factor, KIND, HARD, DETACH,
        )  # fmt: skip
        hold(carried, scratch, passed + u_scale * grad_h)
        write(partials, partial, known, total(grad_h))
        second = of_step(partials, 1, partials_step)
        write(second, partial, known, total(grad_h * (u - u_mean)))


@jit(do_not_specialize=["steps"])
def through_current(
    samples, groups, first, count, steps, elements, input, input_step,
    gain, mean, variance, eps: tl.constexpr, kept, kept_step, means, means_step, grad_input,
    BATCH: tl.constexpr,
    INNER: tl.constexpr, ELEMENTS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """From the currents' gradients, in scratch, through the norm to the input's."""
    offset, inside, group, known, _, scratch = place(
        samples, groups, first, count, INNER, ELEMENTS, GROUPS
    )
    x_mean, scale, _, _ = affine(gain, None, mean, variance, eps, group, known)
    mean_grad = parameter(means, group - first, known, 0.0)
    mean_product = parameter(of_step(means, 1, means_step), group - first, known, 0.0)
    for t in range(steps):
        grad = held(of_step(kept, t, kept_step), scratch)
        if BATCH:
            x = read(of_step(input, t, input_step), offset, inside)
            grad = centre(grad, x - x_mean, mean_grad, mean_product)
        write(of_step(grad_input, t, elements), offset, inside, scale * grad)
