"""Which kernels to launch for a problem, over what, with what scratch."""

import math
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels import _triton_backward, _triton_kernels
from spikefold.dynamics._kernels._problem import Norm, Problem
from spikefold.dynamics._kernels._triton_tiles import Launch, Tiling
from spikefold.dynamics._surrogate import Surrogate, slope

# ------------------------------------------------------------------ arguments


def _currents(problem: Problem) -> dict[str, Any]:
    norm = problem.current or Norm()
    return {
        "input": problem.input,
        "input_step": problem.input_step,
        "shortcut": problem.shortcut,
        "shortcut_step": problem.shortcut_step,
        "current_gain": norm.gain,
        "current_shift": norm.shift,
        "current_mean": norm.mean,
        "current_variance": norm.variance,
        "current_eps": norm.eps,
        "NORMED": problem.current is not None,
    }


def _condition(problem: Problem) -> dict[str, Any]:
    norm, neuron = problem.potential, problem.neuron
    return {
        "gain": norm.gain,
        "shift": norm.shift,
        "mean": norm.mean,
        "variance": norm.variance,
        "eps": norm.eps,
        "thresholds": problem.thresholds,
        "threshold": neuron.threshold,
        "decay": neuron.decay,
        "HARD": neuron.reset == "hard",
    }


def _factor(surrogate: Surrogate) -> float:
    """What `_triton_equations.derivative` takes beside the surrogate's parameter."""
    a = slope(surrogate)
    return {
        "tanh": lambda: 2 * a / math.tanh(a / 2),
        "rectangle": lambda: 1 / a,
        "triangle": lambda: 1 / a**2,
        "sigmoid": lambda: a,
        "atan": lambda: math.pi / 2 * a,
    }[surrogate.name]()


def _surrogate(problem: Problem) -> dict[str, Any]:
    surrogate = problem.neuron.surrogate
    return {
        "slope": slope(surrogate),
        "factor": _factor(surrogate),
        "KIND": surrogate.name,
        "DETACH": problem.neuron.detach_reset,
    }


# ------------------------------------------------------------------ forward


def forward(problem: Problem) -> None:
    """Spikes, last potential and batch statistics."""
    tiling = Tiling.of(problem)
    with torch.cuda.device_of(problem.input):
        for launch in tiling.launches(held=0 if tiling.together else 1):
            _observe_currents(problem, launch)
            if tiling.together:
                _forward(problem, launch)
            else:
                _forward_by_steps(problem, launch)


def _observe_currents(problem: Problem, launch: Launch) -> None:
    norm = problem.current
    if norm is None or not norm.batch:
        return
    partials = launch.partials()
    launch.run(
        _triton_kernels.observe,
        steps=problem.steps if problem.input_step else 1,
        input=problem.input,
        input_step=problem.input_step,
        partials=partials,
        partials_step=partials.stride(0),
    )
    _merge(launch, partials, norm.mean, norm.variance)


def _merge(launch: Launch, partials: Tensor, mean: Tensor | None, variance: Tensor | None) -> None:
    tiling = launch.tiling
    launch.run_merging(
        _triton_kernels.merge,
        partials,
        tiling.samples,
        mean=mean,
        variance=variance,
        TILE=tiling.elements,
    )


def _forward(problem: Problem, launch: Launch) -> None:
    """Memory: input (and shortcut) read once, spikes written once."""
    launch.run(
        _triton_kernels.forward,
        steps=problem.steps,
        elements=_elements(problem),
        v=problem.v,
        spikes=problem.spikes,
        v_last=problem.v_last,
        BATCH=problem.potential.batch,
        **_currents(problem),
        **_condition(problem),
    )


def _forward_by_steps(problem: Problem, launch: Launch) -> None:
    """Memory: the same, and the potential, written and read through the cache at each step."""
    norm = problem.potential
    assert norm.mean is not None
    assert norm.variance is not None
    carried, partials = launch.scratch(1), launch.partials()
    for t in range(problem.steps + 1):
        launch.run(
            _triton_kernels.forward_step,
            t=t,
            elements=_elements(problem),
            v=problem.v,
            spikes=problem.spikes,
            v_last=problem.v_last,
            carried=carried,
            partials=partials,
            partials_step=partials.stride(0),
            FIRST=t == 0,
            LAST=t == problem.steps,
            **_currents(problem),
            **_condition(problem),
        )
        if t < problem.steps:
            _merge(launch, partials, norm.mean[t], norm.variance[t])


def _elements(problem: Problem) -> int:
    return problem.rows * problem.groups * problem.inner


# ------------------------------------------------------------------ backward


def backward(problem: Problem) -> None:
    """Gradients."""
    tiling = Tiling.of(problem)
    with torch.cuda.device_of(problem.input):
        for launch in tiling.launches(held=problem.steps + (not tiling.together)):
            _Backward(problem, launch).run()


class _Backward:
    """The gradients of some groups.

    Memory: input (and shortcut) and the spikes' gradient read once, the input's gradient written
    once; the potentials go through the cache, and the input once more if it was normalized.
    """

    def __init__(self, problem: Problem, launch: Launch) -> None:
        norm = problem.current
        self.problem = problem
        self.launch = launch
        self.constant = problem.input_step == 0
        # the input's gradient takes another pass, over the currents' gradients
        self.keep = norm is not None or self.constant
        self.potentials = launch.scratch(problem.steps)
        self.partials: Tensor | None = None
        self.current_partials: Tensor | None = None
        if norm is not None and (norm.batch or _learns(norm)):
            self.current_partials = launch.partials().zero_()

    def run(self) -> None:
        if self.launch.tiling.together:
            self._together()
        else:
            self._by_steps()
        if self.keep:
            self._through_current()

    def _arguments(self) -> dict[str, Any]:
        """Of both kernels of gradients."""
        problem = self.problem
        partials = self.partials if self.partials is not None else self.current_partials
        return {
            "steps": problem.steps,
            "elements": _elements(problem),
            "potentials": self.potentials,
            "potentials_step": self.potentials.stride(0),
            "grad_spikes": problem.grad_spikes,
            "grad_v_last": problem.grad_v_last,
            "grad_currents": problem.grad_shortcut if self.keep else problem.grad_input,
            "grad_v": problem.grad_v,
            "partials": self.partials,
            "current_partials": self.current_partials,
            "partials_step": 0 if partials is None else partials.stride(0),
            "CONSTANT": self.constant,
            "KEEP": self.keep,
            **_condition(problem),
            **_surrogate(problem),
        }

    def _together(self) -> None:
        problem, norm = self.problem, self.problem.potential
        self.partials = self.launch.partials() if _learns(norm) else None
        self.launch.run(
            _triton_backward.backward,
            v=problem.v,
            statistics_step=problem.groups if norm.batch else 0,
            BATCH=norm.batch,
            **_currents(problem),
            **self._arguments(),
        )
        if self.partials is not None:
            self._reduce(self.partials, norm)

    def _by_steps(self) -> None:
        problem, norm = self.problem, self.problem.potential
        assert norm.variance is not None
        self._recompute()
        carried, means = self.launch.scratch(1), self.launch.means()
        self.partials = self.launch.partials()
        for t in reversed(range(-1, problem.steps)):
            self.launch.run(
                _triton_backward.backward_step,
                t=t,
                input=problem.input,
                input_step=problem.input_step,
                current_mean=None if problem.current is None else problem.current.mean,
                carried=carried,
                means=means,
                means_step=means.stride(0),
                FIRST=t == problem.steps - 1,
                LAST=t < 0,
                **self._arguments(),
            )
            if t >= 0:
                self._reduce(self.partials, norm, norm.variance[t], means)

    def _recompute(self) -> None:
        problem = self.problem
        self.launch.run(
            _triton_backward.recompute,
            steps=problem.steps,
            v=problem.v,
            statistics_step=problem.groups,
            potentials=self.potentials,
            potentials_step=self.potentials.stride(0),
            **_currents(problem),
            **_condition(problem),
        )

    def _reduce(
        self,
        partials: Tensor,
        norm: Norm,
        variance: Tensor | None = None,
        means: Tensor | None = None,
        samples: int | None = None,
    ) -> None:
        """Sums over tiles; adds to the norm's gradients."""
        self.launch.run_merging(
            _triton_kernels.reduce,
            partials,
            samples or self.launch.tiling.samples,
            variance=variance,
            eps=norm.eps,
            means=means,
            means_step=self.launch.count,
            grad_gain=norm.grad_gain,
            grad_shift=norm.grad_shift,
        )

    def _through_current(self) -> None:
        problem, norm = self.problem, self.problem.current or Norm()
        steps = 1 if self.constant else problem.steps
        means: Tensor | None = None
        if self.current_partials is not None:
            means = self.launch.means()
            samples = self.launch.tiling.samples * steps
            self._reduce(self.current_partials, norm, norm.variance, means, samples)
        self.launch.run(
            _triton_backward.through_current,
            steps=steps,
            elements=_elements(problem),
            input=problem.input,
            input_step=problem.input_step,
            gain=norm.gain,
            mean=norm.mean,
            variance=norm.variance,
            eps=norm.eps,
            kept=self.potentials[-steps:],
            kept_step=self.potentials.stride(0),
            means=means,
            means_step=self.launch.count,
            grad_input=problem.grad_input,
            BATCH=norm.batch,
        )


def _learns(norm: Norm) -> bool:
    return norm.grad_gain is not None or norm.grad_shift is not None
