"""What a kernel is asked to do, the same on every device.

A step of a tensor lies in memory as `[rows, groups, inner]`: `[N, C, H·W]` contiguous,
`[N·H·W, C, 1]` channels last or `[N, F, 1]`; element-wise parameters make every element a group,
`[N, C·H·W, 1]`. A parameter or statistic is one float32 a group and, where it differs from step to
step, a row of them for each; a statistic is taken over rows and inner. All tensors are dense in
this order, so a kernel needs their addresses, and how far it is from a step to the next (0: the
same at all).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from spikefold.dynamics._kernels import _memory
from spikefold.dynamics._kernels._arguments import Arguments
from spikefold.dynamics._surrogate import Form


def step_of(parameter: Tensor | None) -> int:
    """From a step of a parameter `[1, groups]` or `[T, groups]` to the next; 0: the same at all."""
    return 0 if parameter is None or parameter.shape[0] == 1 else parameter.stride(0)


@dataclass(slots=True)
class Norm:
    """(a - mean) · gain / sqrt(variance + eps) + shift; what is None is left out.

    Attributes:
        gain, shift: `[1, groups]` or `[T, groups]`, or None.
        mean, variance: likewise, or None: nothing is subtracted, divided.
        eps: added to the variance.
        batch: the statistics are the batch's: forward writes `mean` and `variance`
            (`[T, groups]` of potentials, `[1, groups]` of currents), backward reads them.
        grad_gain, grad_shift: of gain's and shift's shape; backward writes them, if not None.
    """

    gain: Tensor | None = None
    shift: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    eps: float = 0.0
    batch: bool = False
    grad_gain: Tensor | None = None
    grad_shift: Tensor | None = None


@dataclass(slots=True)
class Problem:
    """One layer of neurons over all steps.

    Forward reads `input`, `shortcut` and `v`, and writes `spikes`, `v_last` and batch statistics.
    Backward reads `input`, `shortcut`, `v` and the statistics again, with `grad_spikes` and
    `grad_v_last` (None: zeros), and writes `grad_input`, `grad_shortcut` (the gradient of the
    currents, if not None), `grad_v` and `grad_decay` (if not None).

    Attributes:
        steps, rows, groups, inner: sizes.
        input_step: elements from one step of the input to the next; 0: the same at all steps,
            `grad_input` then is the sum over the steps.
        shortcut_step: the same of the shortcut.
        decay: of the potential, where `decays` has not one a group.
        threshold: where `thresholds` has none; what a soft reset subtracts.
        hard, detach_reset: see `Neuron`.
        form: of the surrogate.
        current: the norm between input and shortcut, or None; its statistics are taken over the
            steps as well (once, if input_step is 0).
        potential: the norm before the firing condition.
        thresholds: theta, `[1, groups]` or `[T, groups]`, the potential's gain then being the
            polarity; or None.
        decays: `[groups]`, or None.
        input, shortcut, spikes, grad_spikes, grad_input, grad_shortcut: float32, bfloat16 or
            float16, all the same.
        v, v_last, grad_v, grad_v_last, grad_decay: float32.
    """

    steps: int
    rows: int
    groups: int
    inner: int
    input_step: int
    shortcut_step: int
    decay: float
    threshold: float
    hard: bool
    detach_reset: bool
    form: Form
    current: Norm | None
    potential: Norm
    thresholds: Tensor | None
    decays: Tensor | None
    input: Tensor
    shortcut: Tensor | None
    v: Tensor | None
    spikes: Tensor | None = None
    v_last: Tensor | None = None
    grad_spikes: Tensor | None = None
    grad_v_last: Tensor | None = None
    grad_input: Tensor | None = None
    grad_shortcut: Tensor | None = None
    grad_v: Tensor | None = None
    grad_decay: Tensor | None = None


def problem_of(a: Arguments, made: Sequence[Tensor | None] = ()) -> Problem:
    """The kernel's view of a layer.

    Arguments:
        a: the arguments, arranged in memory.
        made: spikes, last potential, statistics of currents and of potentials; for the backward
            pass also gradients of the first two, and of the first arguments.
    """
    absent: list[Tensor | None] = [None] * (14 - len(made))
    spikes, v_last, current, potential, grad_spikes, grad_v_last, *grads = [*made, *absent]
    channels_last = _memory.is_channels_last(a.input)
    rows, groups, inner = _memory.sizes(a.sequence[1:], channels_last, len(a.parameters) > 1)

    def norm(
        tensors: Sequence[Tensor | None],
        eps: float | None,
        batch: bool,
        observed: Tensor | None,
        grads: Sequence[Tensor | None],
    ) -> Norm:
        statistics = observed if batch and observed is not None else tensors[2:]
        gain, shift, mean, variance, grad_gain, grad_shift = (
            _memory.flat(each, channels_last) for each in (*tensors[:2], *statistics, *grads)
        )
        return Norm(gain, shift, mean, variance, eps or 0.0, batch, grad_gain, grad_shift)

    return Problem(
        steps=a.steps,
        rows=rows,
        groups=groups,
        inner=inner,
        input_step=rows * groups * inner if a.steps == 1 else _step(a.input),
        shortcut_step=0 if a.shortcut is None else a.shortcut.stride(0),
        decay=a.decay,
        threshold=a.threshold,
        hard=a.reset == "hard",
        detach_reset=a.detach_reset,
        form=Form(*a[-4:]),
        current=None
        if a.current_eps is None
        else norm(a.current, a.current_eps, a.observes_current, current, grads[4:6]),
        potential=norm(a.potential[:4], a.eps, a.observes_potential, potential, grads[6:8]),
        thresholds=_memory.flat(a.thresholds, channels_last),
        decays=a.decays,
        input=a.input,
        shortcut=a.shortcut,
        v=a.v,
        spikes=spikes,
        v_last=v_last,
        grad_spikes=grad_spikes,
        grad_v_last=grad_v_last,
        grad_input=grads[0],
        grad_shortcut=grads[1],
        grad_v=grads[2],
        grad_decay=grads[3] if grads[3] is None else _memory.in_memory(grads[3], channels_last, 0),
    )


def _step(x: Tensor) -> int:
    return 0 if x.shape[0] == 1 else x.stride(0)
