"""Shapes that fit together in a layer's neurons, checked once where they are run."""

from collections.abc import Sequence

from torch import Tensor

from spikefold.dynamics._norm import require_samples, sample_count
from spikefold.errors import ShapeError

Tensors = Sequence[Tensor | None]


def check_layer(
    x: Tensor,
    steps: int,
    shortcut: Tensor | None,
    v: Tensor | None,
    current: Tensors,
    potential: Tensors,
    *,
    decay: Tensor | None = None,
    takes_current: bool = False,
    takes_potential: bool = False,
) -> None:
    """Refuse shapes that do not fit together; the tensors' values are not looked at.

    Arguments:
        x: input `[T, N, C, *spatial]`, or `[1, N, C, *spatial]` for all steps.
        steps: T.
        shortcut: of the currents' shape.
        v: membrane potential before the first step, `[N, C, *spatial]`.
        current: parameters `[1, C]` or `[T, C]` of the norm after the connection.
        potential: parameters of the firing condition, `[1, *shape]` or `[T, *shape]`; shape is
            the same for all, `(C,)` or `(C, *spatial)`.
        decay: `[]` or `[C]`.
        takes_current, takes_potential: whether their statistics are those of the batch.

    Raises:
        ShapeError: with the shapes.
    """
    shape = x.shape
    if len(shape) < 3:
        raise ShapeError(
            f"a neuron needs [T, N, C, ...] or [T, N, F], got {list(shape)}: "
            "is the time or the batch dimension missing?"
        )
    if steps < 1:
        given = [steps, *shape[1:]]
        raise ShapeError(f"no time step in an input of shape {given}: T must be at least 1")
    if shape[0] != steps and shape[0] != 1:
        raise ShapeError(f"an input of {shape[0]} time steps {list(shape)} for {steps} steps")
    step = shape[1:]
    if shortcut is not None and (len(shortcut) != steps or shortcut.shape[1:] != step):
        raise ShapeError(f"shortcut of shape {list(shortcut.shape)} for currents {[steps, *step]}")
    if v is not None and v.shape != step:
        raise ShapeError(f"state of shape {list(v.shape)} for an input step {list(step)}")
    if decay is not None and decay.shape != () and decay.shape != step[1:2]:
        raise ShapeError(f"decay of shape {list(decay.shape)} for an input step {list(step)}")
    of_current = next((tensor for tensor in current if tensor is not None), None)
    parameter = next((tensor for tensor in potential if tensor is not None), None)
    # for a kernel they are of each element where the condition's are
    channels = step[1:2]
    if of_current is not None and parameter is not None and of_current.ndim == parameter.ndim:
        channels = step[1 : parameter.ndim]
    _check_parameters(current, channels, steps, "normalization of {} channels", step)
    if parameter is not None:
        expected = step[1 : parameter.ndim]
        _check_parameters(potential, expected, steps, "parameters of shape {}", step)
        if takes_potential:
            require_samples(sample_count(step, expected), step, expected)
    if takes_current:
        merged = (shape[0] * step[0], *step[1:])
        require_samples(sample_count(merged, step[1:2]), merged, step[1:2])


def _check_parameters(
    parameters: Tensors, expected: Sequence[int], steps: int, what: str, step: Sequence[int]
) -> None:
    for tensor in parameters:
        if tensor is None:
            continue
        if tensor.shape[1:] != expected or tensor.ndim == 0:
            shapes = [list(t.shape[1:]) for t in parameters if t is not None]
            same = all(shape == shapes[0] for shape in shapes)
            named = what.format(shapes[0] if same else shapes)
            raise ShapeError(f"{named} for an input step {list(step)}")
        if tensor.shape[0] != 1 and tensor.shape[0] != steps:
            raise ShapeError(
                f"parameters for {tensor.shape[0]} time steps, but the sequence has {steps}"
                + batch_first(tensor.shape[0], step[0])
            )


def batch_first(expected: int, batch: int) -> str:
    """What to add to a message about T where the batch is as long as T should be."""
    return ": is the batch before time? It is [T, N, ...]" if batch == expected else ""
