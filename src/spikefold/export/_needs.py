"""Packages of the extras, which are imported when they are asked for."""

from importlib import import_module
from typing import Any

from spikefold.errors import ExportError


def needed(package: str, what: str, extra: str) -> Any:
    """A package of an extra.

    Arguments:
        package: to import.
        what: needs it, for the message.
        extra: of spikefold that installs it.

    Raises:
        ExportError: if it is not installed; says which extra.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ExportError(
            f"{what} needs {package}: pip install 'spikefold[{extra}]' ({error})"
        ) from error
