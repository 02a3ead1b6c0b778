"""What settings may be: anything else is a mistake that would fail later, or exhaust memory."""

import re
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from spikefold.errors import ConfigError, SpikefoldError

_RANGE = re.compile(r"([\[(])(.+), (.+)([\])])")


def require_within(
    what: str, owner: Any, error: type[SpikefoldError] = ConfigError, **ranges: str
) -> None:
    """Refuse numbers outside of their ranges, and what is no number; None is not checked.

    Arguments:
        what: the numbers belong to, in messages.
        owner: a dataclass that has them; those of type int must be whole.
        error: that is raised.
        ranges: by name, as mathematics writes them: "[1, 1000]", "[0, 1)".

    Raises:
        SpikefoldError: of the class `error`, with name, range and value; of NaN, too.
    """
    types = {field.name: field.type for field in fields(owner)}
    for name, text in ranges.items():
        value = getattr(owner, name)
        if value is not None:
            require_in(what, name, value, text, types[name] in (int, int | None), error)


def require_in(
    what: str,
    name: str,
    value: Any,
    text: str,
    whole: bool = False,
    error: type[SpikefoldError] = ConfigError,
) -> None:
    """Refuse a number outside of its range, and what is no number.

    Arguments:
        what: the number belongs to, in messages.
        name: of the number.
        value: that it has.
        text: the range as mathematics writes it.
        whole: whether it must be a whole number.
        error: that is raised.

    Raises:
        SpikefoldError: of the class `error`, with name, range and value; of NaN, too.
    """
    found = _RANGE.fullmatch(text)
    assert found is not None, text
    if not _is_number(value, whole):
        number = "a whole number" if whole else "a number"
        raise error(f"{what}: {name} must be {number} in {text}, got {value!r}")
    low, high = float(found[2]), float(found[3])
    above = value >= low if found[1] == "[" else value > low
    below = value <= high if found[4] == "]" else value < high
    if not (above and below):
        raise error(f"{what}: {name} must lie in {text}, got {value}")


def _is_number(value: Any, whole: bool) -> bool:
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def require_one_of(what: str, owner: Any, error: type[SpikefoldError] = ConfigError) -> None:
    """Refuse attributes that are none of the literals of their type.

    Arguments:
        what: they belong to, in messages.
        owner: a dataclass.
        error: that is raised.

    Raises:
        SpikefoldError: of the class `error`, with name, choices and value.
    """
    for field in fields(owner):
        value, known = getattr(owner, field.name), _literals(field.type)
        if (
            known
            and value not in known
            and not (value is None and type(None) in get_args(field.type))
        ):
            names = ", ".join(map(str, known))
            raise error(f"{what}: {field.name} must be one of {names}, got {value!r}")


def _literals(kind: Any) -> tuple[Any, ...]:
    """The values that a type names; of a union those of its parts, which may be None."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    values = tuple(value for part in get_args(kind) for value in _literals(part))
    return (*values, None) if values and NoneType in get_args(kind) else values
