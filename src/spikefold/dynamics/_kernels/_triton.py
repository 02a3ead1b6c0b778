"""The kernels on a GPU, in Triton, which comes with torch where there is one: the host's side.

A problem is cut into tiles; which kernels of `_triton_kernels` are launched over them, and with
what scratch, is decided here. Triton is imported when it is first used, for spikefold does without
it elsewhere.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels._arguments import TENSORS, Arguments, Tensors
from spikefold.dynamics._kernels._problem import Norm, Problem, problem_of, step_of


@cache
def missing() -> str | None:
    """Why there are no kernels for the GPU, or None."""
    return None if importlib.util.find_spec("triton") else "triton is not installed"


@cache
def _kernels() -> ModuleType:
    return importlib.import_module("spikefold.dynamics._kernels._triton_kernels")


@cache
def _equations() -> ModuleType:
    return importlib.import_module("spikefold.dynamics._kernels._triton_equations")


@lru_cache(4096, typed=True)
def _constant(value: object) -> Any:
    """Known when the kernel is compiled."""
    return _equations().tl.constexpr(value)


def numbers(a: Arguments) -> tuple[Any, ...]:
    """A layer as the kernels take it, without its tensors."""
    return a[TENSORS:]


def _problem(numbers: tuple[Any, ...], tensors: Tensors) -> Problem:
    return problem_of(Arguments._make((*tensors[:TENSORS], *numbers)), tensors[TENSORS:])


# ------------------------------------------------------------------ tiles


@dataclass(frozen=True)
class Blocks:
    """Sizes that decide about speed only; powers of two.

    Attributes:
        tile: elements a program handles, 8 a thread: enough loads in flight, and no register is
            spilled.
        whole: elements up to which one program takes all of a group's samples, so that batch
            statistics need no other program: all steps are one launch.
        width: groups side by side in a column tile: 128 bytes in a row of float32.
        scratch: bytes a layer may have beside its tensors. One that needs more is done some groups
            after the others, in as many times the launches, each of which takes the host longer
            (about 60 us on an H100's) than the GPU reads 100 MB.
    """

    tile: int = 4096
    whole: int = 8192
    width: int = 32
    scratch: int = 256 << 20


blocks = Blocks()

# By default Triton contracts a product and a sum to one rounding: spikes would differ.
_OPTIONS = {"enable_fp_fusion": False}
_MERGED = {"SLOTS": 128, "GROUPS": 8}  # the tile of the kernel that merges partial results


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


@dataclass(frozen=True)
class Tiling:
    """A problem cut into tiles `[elements, width]`; see `_triton_equations.place`."""

    problem: Problem
    elements: int
    width: int

    @classmethod
    def of(cls, problem: Problem) -> "Tiling":
        width = min(blocks.width, _power_of_two(problem.groups)) if problem.inner == 1 else 1
        samples = _power_of_two(problem.rows * problem.inner)
        fits = samples * width <= blocks.whole
        most = blocks.whole if problem.potential.batch and fits else blocks.tile
        return cls(problem, min(samples, max(1, most // width)), width)

    @property
    def samples(self) -> int:
        return self.problem.rows * self.problem.inner

    @property
    def slots(self) -> int:
        """Tiles that share a group."""
        return math.ceil(self.samples / self.elements)

    @property
    def together(self) -> bool:
        """Whether a program can do all steps without results of others."""
        return not self.problem.potential.batch or self.slots == 1

    def launches(self, held: int) -> Iterator["Launch"]:
        """All groups, or some after the others if scratch would not stay in the cache.

        Arguments:
            held: numbers held for each element of a step.
        """
        groups = self.problem.groups
        fitting = blocks.scratch // (4 * self.samples * held) if held else groups
        count = max(1, fitting // self.width) * self.width
        for first in range(0, groups, count):
            yield Launch(self, first, min(count, groups - first))


@dataclass(frozen=True)
class Launch:
    """Launches over the tiles of the groups from `first` on, `count` of them."""

    tiling: Tiling
    first: int
    count: int

    @property
    def programs(self) -> int:
        return self.tiling.slots * math.ceil(self.count / self.tiling.width)

    def scratch(self, held: int) -> Tensor:
        """`held` numbers for each element of a step, tile after tile."""
        return self._floats(held, self.programs * self.tiling.elements * self.tiling.width)

    def partials(self, *numbers: int) -> Tensor:
        """Some numbers of each tile's groups, `[*numbers, slots, count]`."""
        return self._floats(*numbers, self.tiling.slots, self.count)

    def of_groups(self, parameter: Tensor) -> Tensor:
        """The part of `[..., groups]` that this is about."""
        return parameter.view(len(parameter), -1)[:, self.first : self.first + self.count]

    def run(self, kernel: Any, **arguments: Any) -> None:
        """A program for each tile."""
        warps = min(32, max(1, self.tiling.elements * self.tiling.width // 256))
        kernel[(self.programs,)](tiles=self._tiles, num_warps=warps, **_OPTIONS, **arguments)

    def merge(self, partials: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Mean and variance of the groups `[groups]` from those of their tiles."""
        programs = math.ceil(self.count / _MERGED["GROUPS"])
        arguments = {"partials": partials, "mean": mean, "variance": variance}
        kernel = _kernels().merge[(programs,)]
        kernel(tiles=self._tiles, **arguments, **_MERGED, **_OPTIONS)

    def _floats(self, *shape: int) -> Tensor:
        return self.tiling.problem.input.new_empty(shape, dtype=torch.float32)

    @cached_property
    def _tiles(self) -> Any:
        tiling = self.tiling
        sizes = (tiling.problem.inner, tiling.elements, tiling.width)
        shared = (tiling.samples, tiling.problem.groups, self.first, self.count)
        return _equations().Tiles(*shared, *map(_constant, sizes))


# ------------------------------------------------------------------ arguments


def _norm(norm: Norm, *others: Tensor | None) -> Any:
    parameters = (norm.gain, norm.shift, norm.mean, norm.variance)
    places = [part for p in parameters for part in (p, step_of(p))]
    varies = any(map(step_of, (*parameters, *others)))
    return _equations().Norm(*places, *map(_constant, (norm.eps, norm.batch, varies)))


def _layer(p: Problem) -> Any:
    return _equations().Layer(
        p.input,
        p.input_step,
        p.shortcut,
        p.shortcut_step,
        None if p.current is None else _norm(p.current),
        p.v,
        _norm(p.potential, p.thresholds),
        p.thresholds,
        step_of(p.thresholds),
        p.threshold,
        p.decays,
        p.decay,
        hard=_constant(p.hard),
        constant=_constant(p.input_step == 0),
        waits=_constant(p.current is not None and p.current.batch),
    )


def _surrogate(p: Problem) -> Any:
    shape, *numbers = p.form
    return _equations().Surrogate(*numbers, _constant(shape), _constant(p.detach_reset))


# ------------------------------------------------------------------ forward


def forward(numbers: tuple[Any, ...], tensors: Tensors) -> None:
    """Spikes, last potential and batch statistics."""
    problem = _problem(numbers, tensors)
    tiling = Tiling.of(problem)
    with torch.cuda.device_of(problem.input):
        for launch in tiling.launches(held=0 if tiling.together else 1):
            _observe_currents(problem, launch)
            written = {"spikes": problem.spikes, "v_last": problem.v_last}
            if tiling.together:
                _forward(problem, launch, written)
            else:
                _forward_by_steps(problem, launch, written)


def _observe_currents(problem: Problem, launch: Launch) -> None:
    norm = problem.current
    if norm is None or not norm.batch:
        return
    assert norm.mean is not None
    assert norm.variance is not None
    partials = launch.partials(2)
    launch.run(
        _kernels().observe,
        steps=problem.steps if problem.input_step else 1,
        input=problem.input,
        input_step=problem.input_step,
        partials=partials,
    )
    launch.merge(partials, norm.mean[0], norm.variance[0])


def _forward(problem: Problem, launch: Launch, written: dict[str, Any]) -> None:
    """Memory: input (and shortcut) read once, spikes written once."""
    launch.run(_kernels().forward, steps=problem.steps, layer=_layer(problem), **written)


def _forward_by_steps(problem: Problem, launch: Launch, written: dict[str, Any]) -> None:
    """Memory: the same, and the potential, written and read through the cache at each step."""
    norm = problem.potential
    assert norm.mean is not None
    assert norm.variance is not None
    carried, partials, layer = launch.scratch(1), launch.partials(2), _layer(problem)
    for t in range(problem.steps + 1):
        launch.run(
            _kernels().forward_step,
            t=t,
            layer=layer,
            carried=carried,
            partials=partials,
            FIRST=t == 0,
            LAST=t == problem.steps,
            **written,
        )
        if t < problem.steps:
            launch.merge(partials, norm.mean[t], norm.variance[t])


# ------------------------------------------------------------------ backward


def placed(numbers: tuple[Any, ...], tensors: Tensors) -> Callable[[Tensors], None]:
    """A forward pass to be repeated: only the tensors that a call gives (not None) are replaced."""

    def run(changing: Tensors) -> None:
        given = zip(changing, tensors, strict=False)
        first = tuple(stays if other is None else other for other, stays in given)
        forward(numbers, (*first, *tensors[len(first) :]))

    return run


def backward(numbers: tuple[Any, ...], tensors: Tensors) -> None:
    """Gradients.

    Memory: input (and shortcut) and the spikes' gradient read once, the input's gradient written
    once; the potentials go through the cache, and the input once more if it was normalized.
    """
    problem = _problem(numbers, tensors)
    tiling = Tiling.of(problem)
    with torch.cuda.device_of(problem.input):
        for launch in tiling.launches(held=problem.steps + (not tiling.together)):
            _backward(problem, launch)


def _backward(problem: Problem, launch: Launch) -> None:
    """The gradients of some groups."""
    steps, current = problem.steps, problem.current
    by_batch = current is not None and current.batch
    potentials = launch.scratch(steps)
    of_norm = of_current = of_decay = None
    if problem.potential.batch or _learns(problem.potential):
        of_norm = launch.partials(steps, 2)
    if current is not None and (by_batch or _learns(current)):
        of_current = launch.partials(steps, 2)
    if problem.grad_decay is not None:
        of_decay = launch.partials(steps)
    grads = _kernels().Gradients(
        spikes=problem.grad_spikes,
        v_last=problem.grad_v_last,
        input=problem.grad_input,
        shortcut=problem.grad_shortcut,
        v=problem.grad_v,
        norm=of_norm,
        current=of_current,
        decay=of_decay,
    )
    arguments = {
        "steps": steps,
        "layer": _layer(problem),
        "surrogate": _surrogate(problem),
        "potentials": potentials,
        "grads": grads,
    }
    if launch.tiling.together:
        launch.run(_kernels().backward, **arguments)
    else:
        _backward_by_steps(problem, launch, arguments)
    _finish_norm(launch, problem.potential, of_norm)
    sums = None if current is None else _finish_norm(launch, current, of_current)
    if problem.grad_decay is not None and of_decay is not None:
        launch.of_groups(problem.grad_decay[None])[0] = of_decay.sum((0, 1))
    if by_batch or problem.input_step == 0:
        _finish_input(problem, launch, potentials, sums)


def _learns(norm: Norm) -> bool:
    return norm.grad_gain is not None or norm.grad_shift is not None


def _backward_by_steps(problem: Problem, launch: Launch, arguments: dict[str, Any]) -> None:
    shared = ("steps", "layer", "potentials")
    launch.run(_kernels().recompute, **{name: arguments[name] for name in shared})
    carried, sums = launch.scratch(1), None
    for t in reversed(range(-1, problem.steps)):
        launch.run(
            _kernels().backward_step,
            t=t,
            carried=carried,
            sums=sums,
            FIRST=t == problem.steps - 1,
            LAST=t < 0,
            **arguments,
        )
        if t >= 0:
            sums = arguments["grads"].norm[t].sum(1)


def _finish_norm(launch: Launch, norm: Norm, partials: Tensor | None) -> Tensor | None:
    """A norm's gradients: sums over tiles, and over the steps that share parameters.

    Returns:
        the gradients of shift and gain as if all steps shared them, `[2, count]`.
    """
    if partials is None:
        return None
    by_step = partials.sum(2)
    overall = by_step.sum(0)
    for grad, at in ((norm.grad_shift, 0), (norm.grad_gain, 1)):
        if grad is not None:
            part = launch.of_groups(grad)
            part.copy_(overall[at] if len(grad) == 1 else by_step[:, at])
    return overall


def _finish_input(
    problem: Problem, launch: Launch, potentials: Tensor, sums: Tensor | None
) -> None:
    """The input's gradient, of what waits in scratch."""
    steps = 1 if problem.input_step == 0 else problem.steps
    launch.run(
        _kernels().finish_input,
        steps=steps,
        layer=_layer(problem),
        kept=potentials[-steps:],
        sums=sums,
        grad_input=problem.grad_input,
    )
