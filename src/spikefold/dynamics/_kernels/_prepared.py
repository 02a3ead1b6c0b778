"""A layer of neurons whose geometry is fixed, and whose outputs are written to the same memory."""

from itertools import zip_longest
from typing import Any

from torch import Tensor

from spikefold.dynamics._kernels._arguments import TENSORS, Arguments, Tensors, check_call
from spikefold.dynamics._kernels._operators import whole
from spikefold.dynamics._kernels._plan import Plan, plan_of
from spikefold.errors import ConfigError


class PreparedLayer:
    """What the operator does again and again, with nothing left to ask but the geometry.

    Arguments:
        arguments: those of the operator.

    Attributes:
        tensors: how many of the arguments are tensors, the first.
        as_they_are: whether they are read where they lie, not copied.
        outputs: those of the operator, written anew by every call.

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
        # tensors of our own: what is done to the others but to their values, does not reach them
        self._stay: Tensors = tuple(t if t is None else t.detach() for t in arguments[:TENSORS])
        self._placed = plan.kernels.placed(plan.numbers, (*plan.arranged(self._stay), *made))
        self._geometry: list[Any] = []

    def expect(self, *changing: Tensor | None) -> None:
        """Say how those of the first tensors lie that will be given; None: it stays.

        If they are read as they are, the same memory may be seen otherwise than in the arguments.
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
