"""Earlier names: they keep working, and a DeprecationWarning says what to write instead."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def _warn(old: str, new: str) -> None:
    # the caller of the function that calls this: the user's line
    warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=3)


class Attribute:
    """An attribute under its earlier name.

    Arguments:
        old: "Class.attribute", for the warning.
        new: its name now.
    """

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The attribute itself."""
        if instance is None:
            return self
        _warn(self.old, self.new)
        return getattr(instance, self.new)

    # without it a value would be stored beside the attribute, with no effect
    def __set__(self, instance: Any, value: Any) -> None:
        """Set the attribute itself."""
        _warn(self.old, self.new)
        setattr(instance, self.new, value)


def arguments(**new_names: str) -> Callable[[Function], Function]:
    """Let a function also take keyword arguments under their earlier names.

    Arguments:
        new_names: earlier name = name now.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def renaming(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                _warn(f"{function.__qualname__}: the argument {old}", new)
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}: {old} is {new}: give one of them")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return renaming  # type: ignore[return-value]

    return decorate


def names(module: str, **functions: Callable[..., Any]) -> Callable[[str], Any]:
    """A module's `__getattr__` that knows functions by their earlier names.

    Arguments:
        module: its `__name__`.
        functions: earlier name = the function.
    """

    def get(name: str) -> Any:
        if name not in functions:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{functions[name].__name__}")
        return functions[name]

    return get
