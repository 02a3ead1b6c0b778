"""What a kernel is asked to do, the same on every device.

A step of a tensor lies in memory as `[rows, groups, inner]`: `[N, C, H·W]` contiguous,
`[N·H·W, C, 1]` channels last or `[N, F, 1]`; element-wise parameters make every element a group,
`[N, C·H·W, 1]`. Parameters and statistics are one float32 a group, a statistic is taken over rows
and inner. All tensors are dense in this order, so a kernel needs their addresses only.
"""

from dataclasses import dataclass

from torch import Tensor

from spikefold.dynamics._neuron import Neuron


@dataclass(slots=True)
class Norm:
    """(a - mean) · gain / sqrt(variance + eps) + shift; what is None is left out.

    Attributes:
        gain, shift: `[groups]` or None.
        mean, variance: `[groups]`, or None: nothing is subtracted, divided.
        eps: added to the variance.
        batch: the statistics are the batch's: forward writes `mean` and `variance`
            (`[steps, groups]` of potentials, `[groups]` of currents), backward reads them.
        grad_gain, grad_shift: `[groups]`, zeros that backward adds to, or None.
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
    currents, if not None) and `grad_v` (if not None).

    Attributes:
        steps, rows, groups, inner: sizes.
        input_step: elements from one step of the input to the next; 0: the same at all steps,
            `grad_input` then is the sum over the steps.
        shortcut_step: the same of the shortcut.
        neuron: the constants.
        current: the norm between input and shortcut, or None; its statistics are taken over the
            steps as well (once, if input_step is 0).
        potential: the norm before the firing condition.
        thresholds: theta `[groups]`, the potential's gain then being the polarity; or None:
            `neuron.threshold` for all.
        input, shortcut, spikes, grad_spikes, grad_input, grad_shortcut: float32, bfloat16 or
            float16, all the same.
        v, v_last, grad_v, grad_v_last: float32.
    """

    steps: int
    rows: int
    groups: int
    inner: int
    input_step: int
    shortcut_step: int
    neuron: Neuron
    current: Norm | None
    potential: Norm
    thresholds: Tensor | None
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
