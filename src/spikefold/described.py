"""The fields of a dataclass as keyword arguments of others: each is described where it is defined.

Many functions take the fields of one dataclass by keyword. Their signatures and docstrings, as
`help` and editors show them, are made of the dataclass here, and not written once more.
"""

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter
from typing import Any, TypeVar

KindT = TypeVar("KindT", bound=type)
_HEADING = "\n\nArguments:\n"
_wrapper = textwrap.TextWrapper(100, 4 * " ", 8 * " ", break_on_hyphens=False)


def described(kind: Any) -> dict[str, str]:
    """What the docstrings of a dataclass and of its bases say of each field.

    Arguments:
        kind: the dataclass.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition(_HEADING)
        for entry in re.split(r"\n(?! {5})", section.partition("\n\n")[0]):
            name, _, text = entry.strip().partition(": ")
            found[name] = " ".join(text.split())
    return {field.name: found.get(field.name, "") for field in fields(kind)}


def with_arguments(doc: str | None, entries: dict[str, str]) -> str:
    """A docstring with further entries, at the end of its section of arguments.

    Arguments:
        doc: the docstring; without such a section it gets one, at its end.
        entries: texts by name.
    """
    head, _, tail = inspect.cleandoc(doc or "").partition(_HEADING)
    own, blank, rest = tail.partition("\n\n")
    lines = [own, *(_wrapper.fill(f"{name}: {text}") for name, text in entries.items())]
    return head + _HEADING + "\n".join(filter(None, lines)) + blank + rest


def takes(kind: Any, *left_out: str) -> Callable[[KindT], KindT]:
    """Show the fields of a dataclass instead of a class's `**keywords`.

    Arguments:
        kind: the dataclass.
        left_out: fields that the class does not take, besides those it defines itself.
    """

    def decorate(cls: KindT) -> KindT:
        init: Any = cls.__init__  # type: ignore[misc]
        signature = inspect.signature(init)
        own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        known = {*left_out, *(p.name for p in own)}
        added = [
            p.replace(kind=Parameter.KEYWORD_ONLY)
            for p in inspect.signature(kind).parameters.values()
            if p.name not in known
        ]
        init.__signature__ = signature.replace(parameters=[*own, *added])
        texts = described(kind)
        cls.__doc__ = with_arguments(cls.__doc__, {p.name: texts[p.name] for p in added})
        return cls

    return decorate
