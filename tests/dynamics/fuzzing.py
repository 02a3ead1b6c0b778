"""Calls the operators with wrong arguments, in a process of its own: `test_kernels_fuzz` runs it.

python -m tests.dynamics.fuzzing SEED SECONDS. Whatever is handed over, the operators answer with an
error of their own, or compute what the reference computes. A crash ends the process; the seed and
the number of the call are printed before each call to standard error's last line.
"""

import random
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics import (
    PLAIN,
    SURROGATES,
    Condition,
    Currents,
    Neuron,
    Normalization,
    Statistics,
    simulate_reference,
)
from spikefold.dynamics._kernels._arguments import Arguments
from spikefold.errors import SpikefoldError

LAYER = torch.ops.spikefold.layer.default
BACKWARD = torch.ops.spikefold.layer_backward.default
# torch's own: arguments of a wrong kind, sizes beyond memory
REFUSALS = (SpikefoldError, RuntimeError, TypeError, ValueError, NotImplementedError)
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = [*FLOATS, torch.float64, torch.int64, torch.bool, torch.complex64, torch.uint8]


def tensor(chance: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Values in one of several layouts: dense, channels last, with gaps, expanded, transposed."""
    made = torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.ones(shape).to(dtype)
    layout = chance.randrange(6)
    if layout == 1 and made.ndim > 3:
        return made.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == 2 and made.ndim:
        return torch.stack([made, made], -1)[..., 0]
    if layout == 3 and made.ndim and made.shape[0] > 0:
        return made[:1].expand(made.shape)
    if layout == 4 and made.ndim > 1:
        return made.transpose(-1, -2).contiguous().transpose(-1, -2)
    return made


def right(chance: random.Random) -> dict[str, Any]:
    """Arguments that fit together."""
    steps, spatial = chance.randint(1, 4), chance.choice([(), (3, 4), (2, 5), (1, 1), (7,)])
    step = (chance.randint(1, 5), chance.randint(1, 18), *spatial)
    dtype = chance.choice(FLOATS)
    elementwise = chance.random() < 0.3
    sets = chance.choice([1, 1, steps])
    parameters = (sets, *(step[1:] if elementwise else step[1:2]))
    channels = (1, step[1])

    def parameter(shape: tuple[int, ...], low: float = -2.0) -> Tensor:
        return tensor(chance, shape, torch.float32).clamp(min=low)

    found: dict[str, Any] = dict.fromkeys(Arguments._fields)
    shown = chance.choice([1, steps])
    found |= {"input": tensor(chance, (shown, *step), dtype), "steps": steps}
    if chance.random() < 0.4:
        found["shortcut"] = tensor(chance, (steps, *step), dtype)
    if chance.random() < 0.4:
        found["v"] = tensor(chance, step, torch.float32)
    if not elementwise and chance.random() < 0.4:
        found |= {"current_gain": parameter(channels), "current_shift": parameter(channels)}
        found["current_eps"] = 1e-3
        if chance.random() < 0.5:
            found |= {"current_mean": parameter(channels)}
            found |= {"current_variance": parameter(channels, 0.1)}
    kind = chance.choice(["plain", "folded", "norm", "batch"])
    if kind == "folded":
        found["thresholds"] = parameter(parameters)
        if chance.random() < 0.5:
            found["gain"] = torch.randn(parameters).sign()
    elif kind != "plain":
        found |= {"gain": parameter(parameters), "shift": parameter(parameters), "eps": 1e-3}
        if kind == "norm":
            found |= {"mean": parameter(parameters), "variance": parameter(parameters, 0.1)}
    if chance.random() < 0.3:
        found["decays"] = torch.rand(chance.choice([(), step[1:2]]))
    found |= {"decay": chance.choice([0.0, 0.25, 1.0]), "threshold": 0.5}
    found |= {"reset": chance.choice(["hard", "soft"]), "detach_reset": chance.random() < 0.5}
    found |= chance.choice(list(SURROGATES.values()))().form()._asdict()
    return found


def spoil(chance: random.Random, value: Any) -> Any:
    """Something else in the place of an argument."""
    if isinstance(value, Tensor):
        kind = chance.randrange(8)
        if kind == 0:
            return None
        if kind == 1:
            return value.to(chance.choice(DTYPES))
        if kind == 2:
            shape = list(value.shape)
            if shape:
                shape[chance.randrange(len(shape))] += chance.choice([-1, 1, 5])
            return torch.randn([max(size, 0) for size in shape]).to(value.dtype)
        if kind == 3:
            return value.unsqueeze(chance.randrange(value.ndim + 1))
        if kind == 4:
            return value[..., 0] if value.ndim and value.shape[-1] else value.new_empty(0)
        if kind == 5:
            return value.to("meta")
        if kind == 6:
            return value.new_empty(0)
        sparse = value.is_floating_point() and not value.is_meta
        return value.to_sparse() if sparse else value.flatten()
    if isinstance(value, bool):
        return chance.choice([None, 3, "yes"])
    if isinstance(value, str):
        return chance.choice(["", "none", "box", "hard", None])
    if value is None:
        return chance.choice([1e-3, torch.randn(4), torch.randn(3, 2), torch.randn(2, 2, 4, 3, 4)])
    return chance.choice(
        [None, 0, -1, 2000, 2**31, 2**62, float("nan"), float("inf"), -1e30, 0.5, 1e-45]
    )


def expected(a: Arguments) -> Tensor | None:
    """The reference's spikes; None where summation may differ (statistics of the batch)."""
    if a.observes_current or a.observes_potential:
        return None
    if a.thresholds is not None and a.gain is not None and bool((a.gain.abs() != 1).any()):
        return None  # no polarity

    def norm(tensors: tuple[Tensor | None, ...], eps: float | None) -> Normalization:
        gain, shift, mean, variance = tensors
        like = next(t for t in tensors if t is not None)
        one, zero = torch.ones((1, *like.shape[1:])), torch.zeros((1, *like.shape[1:]))
        fixed = Statistics(mean, variance)  # type: ignore[arg-type]
        gain, shift = one if gain is None else gain, zero if shift is None else shift
        return Normalization(gain, shift, eps or 0.0, fixed)

    current = None if a.current_eps is None else norm(a.current, a.current_eps)
    condition = PLAIN
    if a.thresholds is not None:
        condition = Condition(None, a.thresholds, a.gain)
    elif a.eps is not None:
        condition = Condition(norm(a.potential[:4], a.eps))
    neuron = Neuron(a.decay, a.threshold, a.reset, detach_reset=bool(a.detach_reset))  # type: ignore[arg-type]
    currents = Currents(a.input, a.steps, current, a.shortcut)
    return simulate_reference(currents, condition, neuron, a.v, a.decays).spikes


def call(chance: random.Random, count: Counter[str]) -> None:
    """One call of each operator."""
    given = right(chance)
    spoilt: list[Any] = chance.sample(list(given), chance.choice([0, 1, 1, 1, 2, 3]))
    for name in spoilt:
        given[name] = spoil(chance, given[name])
    # what fits must not be larger than memory
    steps = given["steps"]
    if isinstance(steps, int) and steps > 4000 and chance.random() < 0.9:
        given["steps"] = 2000
    try:
        outputs = LAYER(*given.values())
    except REFUSALS:
        count["refused"] += 1
        return
    a = Arguments(**given)
    count["computed" if spoilt else "right"] += 1
    spikes = outputs[0]
    if spikes.device.type != "meta":
        values = spikes.float()
        assert bool(((values == 0) | (values == 1)).all()), "a spike is neither 0 nor 1"
        wanted = expected(a)
        if wanted is not None:
            assert torch.equal(spikes, wanted), f"not the reference's spikes: {spoilt}"
    grads: list[Any] = [torch.randn(o.shape).to(o.dtype) for o in outputs[:2]]
    grads += [*outputs[2:], [chance.random() < 0.7 for _ in range(8)]]
    places = chance.sample(range(4), chance.choice([0, 1, 1, 2]))
    for place in places:
        grads[place] = spoil(chance, grads[place])
    try:
        found = BACKWARD(*grads, *given.values())
    except REFUSALS:
        count["refused backward"] += 1
        return
    count["backward"] += 1
    if not spoilt and not places:  # then what is not finite was never written
        assert all(bool(torch.isfinite(grad.float()).all()) for grad in found), "uninitialized"


def main(seed: int, seconds: float) -> None:
    """Calls until the time is up; prints how many ended how."""
    count: Counter[str] = Counter()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        print(f"\rseed {seed} call {number}", end="", file=sys.stderr, flush=True)
        chance = random.Random(f"{seed} {number}")
        torch.manual_seed(number)
        call(chance, count)
    print("  ".join(f"{name}: {n}" for name, n in sorted(count.items())))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
