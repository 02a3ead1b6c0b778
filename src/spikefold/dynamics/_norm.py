"""Membrane potential batch normalization: its equations, each once."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from spikefold.errors import ShapeError


def of_step(parameter: Float[Tensor, "steps *shape"], t: int) -> Float[Tensor, "*shape"]:
    """A parameter at time step t; one with a time axis of length 1 is the same at all steps.

    Arguments:
        parameter: `[1, *shape]` or `[T, *shape]`.
        t: from 0.
    """
    return parameter[0] if len(parameter) == 1 else parameter[t]


def per_neuron(parameter: Float[Tensor, "*shape"], ndim: int) -> Float[Tensor, "..."]:
    """View a tensor per channel `[C]` or per element `[C, H, W]` to broadcast to `[N, C, H, W]`.

    Arguments:
        parameter: one number per channel or per element.
        ndim: number of dimensions of the potential `[N, C, *spatial]` it is to broadcast against.
    """
    return parameter.reshape(parameter.shape + (1,) * (ndim - 1 - parameter.ndim))


class _Sum(torch.autograd.Function):
    """Sum over processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: distributed.ProcessGroup) -> Tensor:
        ctx.group = group
        total = local.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        total = grads[0].clone()
        distributed.all_reduce(total, group=ctx.group)
        return total, None


def sample_count(potential: Sequence[int], shape: Sequence[int]) -> int:
    """How many values of this process one mean is taken of: N·H·W channel-wise, N element-wise.

    Arguments:
        potential: shape `(N, C, *spatial)` of one time step's potentials.
        shape: the shape of the normalization's parameters.
    """
    return potential[0] * math.prod(potential[1 + len(shape) :])


def counts_together(
    counts: Sequence[int], group: distributed.ProcessGroup, device: torch.device
) -> list[int]:
    """The sums of some numbers over processes, in one exchange.

    Arguments:
        counts: this process's.
        group: the processes.
        device: on which they exchange.
    """
    totals = torch.tensor(counts, device=device)
    distributed.all_reduce(totals, group=group)
    return [int(total) for total in totals.tolist()]


def require_samples(count: int, potential: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse to take a statistic of fewer than two values.

    Arguments:
        count: values one statistic is taken of.
        potential: shape of the potentials, for the message.
        shape: the shape of the normalization's parameters.

    Raises:
        ShapeError: with both shapes.
    """
    if count < 2:
        raise ShapeError(
            f"batch statistics of shape {list(shape)} need more than one value each, but the "
            f"potential is {list(potential)}: use a larger batch"
        )


class Observed(NamedTuple):
    """Statistics that were taken of a batch.

    Attributes:
        mean: of `[*shape]`, or `[T, *shape]`.
        variance: likewise, biased.
        samples: values each was taken of, of all processes together.
    """

    mean: Tensor
    variance: Tensor
    samples: int


def statistics(
    u: Float[Tensor, "N C *spatial"],
    shape: tuple[int, ...],
    group: distributed.ProcessGroup | None = None,
    samples: int | None = None,
) -> Observed:
    """Mean and biased variance of one time step's potentials.

    Channel-wise (shape `(C,)`): over N and space; element-wise (shape `(C, H, W)`): over N.

    Arguments:
        u: potentials of one time step.
        shape: the shape of the normalization's parameters.
        group: processes whose batches count together, gradients included; None counts this
            one's only.
        samples: values each is taken of, if that is known; else the processes exchange it.

    Raises:
        ShapeError: if there is only one value to take a statistic of.

    Source: Guo et al., ICCV 2023, section 4.1.
    """
    if samples is None:
        samples = sample_count(u.shape, shape)
        if group is not None:
            (samples,) = counts_together([samples], group, u.device)
    require_samples(samples, tuple(u.shape), shape)
    reduced = (0, *range(1 + len(shape), u.ndim))
    if group is None:
        variance, mean = torch.var_mean(u, dim=reduced, correction=0)
        return Observed(mean, variance, samples)
    # two sums over the processes, one after the other: E[u²] - E[u]² would cancel
    mean = _Sum.apply(u.sum(reduced), group) / samples
    deviation = u - per_neuron(mean, u.ndim)
    variance = _Sum.apply((deviation * deviation).sum(reduced), group) / samples
    return Observed(mean, variance, samples)


def scale(
    gamma: Float[Tensor, "*shape"], variance: Float[Tensor, "*shape"], eps: float
) -> Float[Tensor, "*shape"]:
    """Gamma / sqrt(variance + eps), rounded once from float64.

    torch's float32 square root is a rounding off on some processors and not on others; this is the
    same everywhere.

    Arguments:
        gamma, variance: one number per channel or per element.
        eps: added to the variance.
    """
    return (gamma.double() / torch.sqrt(variance.double() + eps)).to(gamma.dtype)


def normalize(
    u: Float[Tensor, "N C *spatial"],
    mean: Float[Tensor, "*shape"],
    variance: Float[Tensor, "*shape"],
    gamma: Float[Tensor, "*shape"],
    beta: Float[Tensor, "*shape"],
    eps: float,
) -> Float[Tensor, "N C *spatial"]:
    """H = (u - mean) · scale + beta, with scale = gamma / sqrt(variance + eps).

    Each operation is one correctly rounded elementwise kernel, so that h depends neither on
    memory format nor device, and is monotone in u: the exact fold stands on this.

    Arguments:
        u: potentials of one time step.
        mean, variance, gamma, beta: one number per channel `[C]` or per element `[C, *spatial]`.
        eps: added to the variance.

    Source: Guo et al., ICCV 2023, eq. 8.
    """
    factor = per_neuron(scale(gamma, variance, eps), u.ndim)
    return (u - per_neuron(mean, u.ndim)) * factor + per_neuron(beta, u.ndim)


@torch.no_grad()
def reference_update(
    running: tuple[Float[Tensor, "*sets"], Float[Tensor, "*sets"]],
    observed: tuple[Float[Tensor, "T *shape"], Float[Tensor, "T *shape"]],
    momentum: float | None,
    seen: Tensor,
    samples: int,
) -> None:
    """Update running mean and variance, and their count, by the observations of T time steps.

    One set for all steps takes them one after another, one set a step each its own:

        r <- r + m (o[t] - r);  all T:  r <- (1 - m)^T r + sum over t of m (1 - m)^(T - 1 - t) o[t]

    Arguments:
        running: mean and (unbiased) variance so far, `[*shape]` or `[1, *shape]`; or `[T, *shape]`.
        observed: mean and biased variance of each time step, `[T, *shape]`.
        momentum: m, or None for the cumulative mean, m = 1 / number of observations.
        seen: observations made before these, `[]` or `[T]`; counted on.
        samples: values each statistic was taken of; the variance is made unbiased.
    """
    steps = observed[0].numel() // running[0].numel()
    whole = (r if r.ndim == o.ndim else r[None] for r, o in zip(running, observed, strict=True))
    pairs = tuple(zip(whole, observed, (1.0, samples / (samples - 1)), strict=True))
    _update(pairs, steps, momentum, seen)
    seen.add_(steps)


def _update(
    pairs: tuple[tuple[Tensor, Tensor, float], ...],
    steps: int,
    momentum: float | None,
    seen: Tensor,
) -> None:
    if momentum is None:
        for r, o, unbiased in pairs:
            total = o.to(r.dtype).sum(0, keepdim=True) if len(r) == 1 else o.to(r.dtype)
            before = seen.reshape(-1, *(1,) * (r.ndim - 1))
            r.add_((unbiased * total - steps * r) / (before + steps))
        return
    first = pairs[0][0]
    if len(first) > 1:
        for r, o, unbiased in pairs:
            r.lerp_(unbiased * o.to(r.dtype), momentum)
        return
    # in closed form: one operation for all steps instead of T
    keep = (1 - momentum) ** steps
    weight = first.new_tensor([momentum * (1 - momentum) ** (steps - 1 - t) for t in range(steps)])
    for r, o, unbiased in pairs:
        new = o.flatten(1).to(r.dtype).t()
        flat = r.flatten().addmv_(new, weight, beta=keep, alpha=unbiased)
        if not r.is_contiguous():  # then flat is a copy
            r.copy_(flat.view(r.shape))
