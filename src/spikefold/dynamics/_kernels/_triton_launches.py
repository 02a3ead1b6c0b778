"""Which kernels to launch for a problem, over what, with what scratch."""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from spikefold.dynamics._kernels import _triton_backward, _triton_equations, _triton_kernels
from spikefold.dynamics._kernels._problem import Norm, Problem, step_of
from spikefold.dynamics._kernels._triton_tiles import Launch, Tiling

# ------------------------------------------------------------------ arguments


def _norm(norm: Norm | None) -> _triton_equations.Norm:
    if norm is None:
        return _triton_equations.Norm()
    parameters = (norm.gain, norm.shift, norm.mean, norm.variance)
    places = (part for p in parameters for part in (p, step_of(p)))
    return _triton_equations.Norm._make((*places, tl.constexpr(norm.eps)))


def _layer(p: Problem) -> _triton_equations.Layer:
    return _triton_equations.Layer(
        p.input,
        p.input_step,
        p.shortcut,
        p.shortcut_step,
        _norm(p.current),
        p.v,
        _norm(p.potential),
        p.thresholds,
        step_of(p.thresholds),
        p.threshold,
        p.decays,
        p.decay,
    )


def _varies(p: Problem) -> bool:
    """Whether the firing condition differs from step to step."""
    norm = p.potential
    tensors = (norm.gain, norm.shift, norm.mean, norm.variance, p.thresholds)
    return any(map(step_of, tensors))


def _common(problem: Problem) -> dict[str, Any]:
    """Of all kernels that charge and fire."""
    return {"layer": _layer(problem), "HARD": problem.hard}


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
        spikes=problem.spikes,
        v_last=problem.v_last,
        NORMED=problem.current is not None,
        BATCH=problem.potential.batch,
        VARIES=_varies(problem),
        **_common(problem),
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
            spikes=problem.spikes,
            v_last=problem.v_last,
            carried=carried,
            partials=partials,
            partials_step=partials.stride(0),
            NORMED=problem.current is not None,
            FIRST=t == 0,
            LAST=t == problem.steps,
            **_common(problem),
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
        self.decay_partials: Tensor | None = None
        if problem.grad_decay is not None:
            self.decay_partials = launch.partials(1).zero_()

    def run(self) -> None:
        if self.launch.tiling.together:
            self._together()
        else:
            self._by_steps()
        if self.decay_partials is not None and self.problem.grad_decay is not None:
            part = slice(self.launch.first, self.launch.first + self.launch.count)
            self.problem.grad_decay.flatten()[part] = self.decay_partials[0].sum(0)
        if self.keep:
            self._through_current()

    def _arguments(self) -> dict[str, Any]:
        """Of both kernels of gradients."""
        problem = self.problem
        shape, *form = problem.form
        partials = self.partials if self.partials is not None else self.current_partials
        return {
            "steps": problem.steps,
            "elements": _elements(problem),
            "surrogate": _triton_equations.Surrogate(*form),
            "SHAPE": shape,
            "DETACH": problem.detach_reset,
            "potentials": self.potentials,
            "potentials_step": self.potentials.stride(0),
            "grad_spikes": problem.grad_spikes,
            "grad_v_last": problem.grad_v_last,
            "grad_currents": problem.grad_shortcut if self.keep else problem.grad_input,
            "grad_v": problem.grad_v,
            "partials": self.partials,
            "current_partials": self.current_partials,
            "partials_step": 0 if partials is None else partials.stride(0),
            "decay_partials": self.decay_partials,
            "CONSTANT": self.constant,
            "KEEP": self.keep,
            **_common(problem),
        }

    def _together(self) -> None:
        problem, norm = self.problem, self.problem.potential
        varies = bool(step_of(norm.gain) or step_of(norm.shift)) and _learns(norm)
        steps = problem.steps if varies else 1
        self.partials = self.launch.partials(2 * steps) if _learns(norm) else None
        self.launch.run(
            _triton_backward.backward,
            NORMED=problem.current is not None,
            BATCH=norm.batch,
            VARIES=varies,
            **self._arguments(),
        )
        if self.partials is not None:
            for t in range(steps):
                self._reduce(self.partials[2 * t : 2 * t + 2], norm, t)

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
                carried=carried,
                means=means,
                means_step=means.stride(0),
                FIRST=t == problem.steps - 1,
                LAST=t < 0,
                **self._arguments(),
            )
            if t >= 0:
                self._reduce(self.partials, norm, t, norm.variance[t], means)

    def _recompute(self) -> None:
        problem = self.problem
        self.launch.run(
            _triton_backward.recompute,
            steps=problem.steps,
            potentials=self.potentials,
            potentials_step=self.potentials.stride(0),
            NORMED=problem.current is not None,
            **_common(problem),
        )

    def _reduce(
        self,
        partials: Tensor,
        norm: Norm,
        t: int,
        variance: Tensor | None = None,
        means: Tensor | None = None,
        samples: int | None = None,
    ) -> None:
        """Sums over tiles; adds to the norm's gradients of step t."""

        def of_step(grad: Tensor | None) -> Tensor | None:
            return None if grad is None else grad[0 if len(grad) == 1 else t]

        self.launch.run_merging(
            _triton_kernels.reduce,
            partials,
            samples or self.launch.tiling.samples,
            variance=variance,
            eps=norm.eps,
            means=means,
            means_step=self.launch.count,
            grad_gain=of_step(norm.grad_gain),
            grad_shift=of_step(norm.grad_shift),
        )

    def _through_current(self) -> None:
        problem, norm = self.problem, self.problem.current or Norm()
        steps = 1 if self.constant else problem.steps
        means: Tensor | None = None
        if self.current_partials is not None:
            means = self.launch.means()
            samples = self.launch.tiling.samples * steps
            variance = None if norm.variance is None else norm.variance[0]
            self._reduce(self.current_partials, norm, 0, variance, means, samples)
        self.launch.run(
            _triton_backward.through_current,
            steps=steps,
            elements=_elements(problem),
            layer=_layer(problem),
            kept=self.potentials[-steps:],
            kept_step=self.potentials.stride(0),
            means=means,
            means_step=self.launch.count,
            grad_input=problem.grad_input,
            BATCH=norm.batch,
        )


def _learns(norm: Norm) -> bool:
    return norm.grad_gain is not None or norm.grad_shift is not None
