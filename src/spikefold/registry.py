"""Models, surrogates, data sets and recipes by name; your own packages can register more.

A package registers what it has when it is imported. One that is installed names the module that
does so in the entry-point group `spikefold`; it is imported when a name is unknown, never because a
network file names something: a file must not choose which code runs.
"""

import difflib
import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from spikefold.errors import ConfigError, SpikefoldError

T = TypeVar("T")
GROUP = "spikefold"
IMPORTED: list[str] = []  # by `import_extension`, so that other processes can do so too
_may_import = ContextVar("may_import", default=True)


class Registry(dict[str, T]):
    """Things of one kind by name.

    Arguments:
        kind: what one of them is, in messages.
        error: raised where a name is unknown or taken.
    """

    def __init__(self, kind: str, error: type[SpikefoldError] = ConfigError) -> None:
        super().__init__()
        self.kind = kind
        self.error = error

    def add(self, name: str, thing: T) -> T:
        """Register a thing; the same one again is fine.

        Raises:
            SpikefoldError: if the name is another's.
        """
        if self.setdefault(name, thing) is not thing:
            raise self.error(f"{self.kind} {name!r} is already registered: choose another name")
        return thing

    def find(self, name: Any) -> T:
        """The thing of this name, from an installed package if necessary.

        Raises:
            SpikefoldError: if there is none; names the nearest.
        """
        failures: tuple[str, ...] = ()
        if not isinstance(name, str):
            raise self.error(unknown(self.kind, name, self))
        if name not in self:
            if not _may_import.get():
                raise self.error(
                    f"unknown {self.kind} {name!r}: it has to be registered first; import the "
                    "package that does so (spikefold --import PACKAGE ...)"
                )
            failures = _import_installed()
        if name not in self:
            told = unknown(self.kind, name, self)
            if "did you mean" not in told:
                told += ", or what a module registers that you import (spikefold --import MODULE)"
            raise self.error("; ".join([told, *failures]))
        return self[name]


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    """What to say of a name that is not known: the nearest one, or all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) if isinstance(name, str) else []
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
    return f"unknown {kind} {name!r}: {hint}"


@contextmanager
def registered_only() -> Iterator[None]:
    """Import nothing for a name that is unknown."""
    token = _may_import.set(False)
    try:
        yield
    finally:
        _may_import.reset(token)


def import_extension(module: str) -> None:
    """Import a module for what it registers; it may lie in the current directory.

    Arguments:
        module: its name, with dots.

    Raises:
        ConfigError: if it cannot be imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"cannot import {module}: {_said(error)}") from error
    if module not in IMPORTED:
        IMPORTED.append(module)


@cache
def _import_installed() -> tuple[str, ...]:
    """Import what installed packages name, once; what went wrong."""
    failures = []
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except (Exception, SystemExit) as error:
            package = f"{point.dist.name} " if point.dist else ""
            failures.append(
                f"the installed package {package}cannot be imported ({point.value}: {_said(error)})"
            )
    return tuple(failures)


def _said(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SpikefoldError) else f"{type(error).__name__}: {text}"
