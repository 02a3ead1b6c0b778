"""A layer of neurons whose geometry is fixed, and whose outputs are written to the same memory."""

from itertools import zip_longest
from typing import Any

from torch import Tensor

from spikefold.dynamics._kernels._arguments import TENSORS, Arguments, Tensors, check_call
from spikefold.dynamics._kernels._operators import whole
from spikefold.dynamics._kernels._plan import Plan, plan_of
from spikefold.errors import ConfigError


class PreparedLayer:
    """The operator for repeated calls, in which only the geometry is still checked.

    Arguments:
        arguments: those of the operator.

    Attributes:
        tensors: how many of the arguments are tensors, the first.
        as_they_are: whether they are read where they lie, not copied.
        outputs: those of the operator, overwritten by every call.

    Raises:
        ConfigError: if the kernels cannot do this.
    """

    tensors = TENSORS

    def __init__(self, *arguments: Any) -> None:
        a = check_call(Arguments._make(arguments))
        plan = plan_of(a)
        assert isinstance(plan, Plan)
        made = tuple(spec and spec.empty() for spec in plan.outputs)
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
                raise ConfigError(
                    f"a tensor {_geometry(tensor)} where {expected} was prepared: prepare again"
                )
        if self._plan.empty:
            return
        if not self.as_they_are:
            given = zip_longest(changing, self._stay)
            merged = tuple(stays if other is None else other for other, stays in given)
            changing = self._plan.arranged(merged)
        self._placed(changing)


def _geometry(x: Tensor | None) -> tuple[Any, ...] | None:
    return None if x is None else (x.shape, x.stride(), x.dtype, x.device)
