"""Layers of neurons, and pools, of fixed geometry, whose outputs are written to the same memory."""

from itertools import zip_longest
from typing import Any

from torch import Tensor

from spikefold.dynamics._kernels import _cpu
from spikefold.dynamics._kernels._arguments import TENSORS, Arguments, Tensors, check_call
from spikefold.dynamics._kernels._operators import whole
from spikefold.dynamics._kernels._plan import Plan, plan_of
from spikefold.dynamics._kernels._pool import is_known
from spikefold.errors import ConfigError


class PreparedLayer:
    """The operator for repeated calls, in which only the geometry is still checked.

    Arguments:
        arguments: those of the operator.
        last: whether the last potential is needed; where it is not, its place may be empty.

    Attributes:
        tensors: how many of the arguments are tensors, the first.
        as_they_are: whether they are read where they lie, not copied.
        outputs: those of the operator, overwritten by every call.

    Raises:
        ConfigError: if the kernels cannot do this.
    """

    tensors = TENSORS

    def __init__(self, *arguments: Any, last: bool = True) -> None:
        a = check_call(Arguments._make(arguments))
        plan = plan_of(a)
        assert isinstance(plan, Plan)
        made = tuple(spec and spec.empty() for spec in plan.outputs)
        if not last and a.input.is_cpu:  # Triton's kernels always write it
            made = (made[0], None, *made[2:])
        self.outputs = whole(made, a.input.device)
        self.as_they_are = not plan.copies
        self._plan = plan
        # detached, so that only changes of the originals' values reach these, not of their geometry
        self._stay: Tensors = tuple(t if t is None else t.detach() for t in arguments[:TENSORS])
        self._placed = plan.kernels.placed(plan.numbers, (*plan.arranged(self._stay), *made))
        self._geometry: list[Any] = []

    def expect(self, *changing: Tensor | None) -> None:
        """Fix the geometry of the tensors that calls will give, the first ones; None: not given.

        If they are read without a copy, they may be other views of such memory than the arguments.
        """
        self._geometry = [_geometry(tensor) for tensor in changing]

    def __call__(self, *changing: Tensor | None) -> None:
        """Write the outputs.

        Raises:
            ConfigError: if a tensor lies otherwise than expected: a kernel reads by address.
        """
        for tensor, expected in zip(changing, self._geometry, strict=True):
            if _geometry(tensor) != expected:
                raise _otherwise(tensor, expected)
        if self._plan.empty:
            return
        if not self.as_they_are:
            given = zip_longest(changing, self._stay)
            merged = tuple(stays if other is None else other for other, stays in given)
            changing = self._plan.arranged(merged)
        self._placed(changing)


class PreparedPool:
    """Averages of 2x2 windows, always written to the same memory; the same bits as torch's.

    Arguments:
        x: of the geometry of all inputs; read where no other is given.

    Attributes:
        output: overwritten by every call.
    """

    def __init__(self, x: Tensor) -> None:
        *rest, height, width = x.shape
        self.output = x.new_empty(*rest, height // 2, width // 2)
        self._stays, self._expected = x, _geometry(x)

    takes = staticmethod(is_known)

    def __call__(self, x: Tensor | None = None) -> None:
        """Write the output.

        Raises:
            ConfigError: if the input lies otherwise than the example: it is read by address.
        """
        if x is not None and _geometry(x) != self._expected:
            raise _otherwise(x, self._expected)
        _cpu.average(self._stays if x is None else x, self.output)


def _otherwise(x: Tensor | None, expected: Any) -> ConfigError:
    return ConfigError(f"a tensor {_geometry(x)} where {expected} was prepared: prepare again")


def _geometry(x: Tensor | None) -> tuple[Any, ...] | None:
    return None if x is None else (x.shape, x.stride(), x.dtype, x.device)
