"""Functions that torch.fx records as one call instead of looking inside."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import fx

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def traceable(function: FunctionT) -> FunctionT:
    """A function whose call with a `torch.fx.Proxy` becomes a node of the traced graph.

    Arguments:
        function: that asks for values or shapes, which a proxy does not have.
    """

    @functools.wraps(function)
    def recorded(*args: Any) -> Any:
        for arg in args:
            if isinstance(arg, fx.Proxy):
                return arg.tracer.create_proxy("call_function", recorded, args, {})
        return function(*args)

    return cast(FunctionT, recorded)
