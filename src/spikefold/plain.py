"""Configurations as plain data, and back: the one converter of all that is written down.

A surrogate is written by its name, and with its parameters where they are not its class's own.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, make_dataclass
from itertools import chain
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import cattrs
from cattrs.gen import make_dict_structure_fn

from spikefold.described import described
from spikefold.dynamics import SURROGATES, Surrogate
from spikefold.errors import ConfigError
from spikefold.registry import unknown

T = TypeVar("T")
# classes that are `flat`, and dataclasses of all the fields that they have at one level
LEVELS: dict[type, Any] = {}
_converter = cattrs.Converter(forbid_extra_keys=True)


def to_plain(value: Any) -> Any:
    """Plain data that `from_plain` turns back into the same value.

    Arguments:
        value: a dataclass of plain values, surrogates and other such dataclasses.

    Raises:
        ConfigError: if a surrogate's name would not lead back to it.
    """
    return _converter.unstructure(value)


def from_plain(data: Any, kind: type[T], root: str) -> T:
    """The value that `to_plain` wrote.

    Arguments:
        data: plain data; what is left out has its default.
        kind: the class of the value.
        root: what messages call the data.

    Raises:
        ConfigError: if a name is unknown, or a value of the wrong type or out of range.
    """
    try:
        return _converter.structure(data, kind)
    except (cattrs.BaseValidationError, ConfigError) as error:
        raise ConfigError("; ".join(cattrs.transform_error(error, root, _problem))) from error


def flat(kind: type[T]) -> type[T]:
    """Write a dataclass and the dataclasses in it at one level, as the command line has them.

    Arguments:
        kind: a dataclass whose fields have defaults: what is left out in data is of these.
    """
    types: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        types |= get_type_hints(hint) if is_dataclass(hint) else {name: hint}
    # a value by default is a value always: `int | None` is an int
    members = [
        (name, types[name] if value is None or not optional else type(value), value)
        for name, value in spread(kind()).items()
        for optional in [NoneType in get_args(types[name])]
    ]
    level = LEVELS[kind] = make_dataclass(kind.__name__, members)
    _converter.register_unstructure_hook(kind, lambda value: to_plain(level(**spread(value))))
    _converter.register_structure_hook(
        kind, lambda data, _: gathered(kind, **vars(_converter.structure(data, level)))
    )
    return kind


def spread(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name; dataclasses among them are replaced by their fields."""
    found: dict[str, Any] = {}
    for name, part in vars(value).items():
        found |= vars(part) if is_dataclass(part) else {name: part}
    return found


def explained(value: Any) -> dict[str, str]:
    """What each setting of a dataclass means, by the name that plain data have for it."""
    parts = [part for part in vars(value).values() if is_dataclass(part)]
    whole = [value, *parts] if type(value) in LEVELS else [value]
    return dict(chain(*(described(type(part)).items() for part in whole)))


def gathered(kind: type[T], **found: Any) -> T:
    """The dataclass that was `spread`."""
    parts: dict[str, Any] = {n: t for n, t in get_type_hints(kind).items() if is_dataclass(t)}
    made = {n: t(**{f.name: found.pop(f.name) for f in fields(t)}) for n, t in parts.items()}
    return kind(**found, **made)


def _problem(error: BaseException, kind: Any) -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        return "; ".join(unknown("setting", name, known) for name in sorted(error.extra_fields))
    return str(error) if isinstance(error, ConfigError) else cattrs.v.format_exception(error, kind)


@_converter.register_structure_hook_factory(is_dataclass)
def _read_dataclass(kind: Any) -> Callable[[Any, Any], Any]:
    make = make_dict_structure_fn(kind, _converter)

    def read(data: Any, _: Any) -> Any:
        if not isinstance(data, dict):
            raise ConfigError(f"expected names with values, got {data!r}")
        return make(data, kind)

    return read


def _read_choice(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ConfigError(f"expected one of {', '.join(get_args(kind))}, got {value!r}")
    return value


def _read_scalar(value: Any, kind: Any) -> Any:
    if type(value) not in ((int, float) if kind is float else (kind,)):
        raise ConfigError(f"expected a value of type {kind.__name__}, got {value!r}")
    try:
        return kind(value)
    except OverflowError as error:
        raise ConfigError("expected a float, got a number beyond its range") from error


def _write_surrogate(surrogate: Surrogate) -> str | dict[str, Any]:
    name, kind = surrogate.name, type(surrogate)
    if SURROGATES.get(name) is not kind:
        raise ConfigError(
            f"surrogate {name!r}: {kind.__name__} has to be registered before it can be saved: "
            "@sf.dynamics.register_surrogate"
        )
    if all(getattr(surrogate, f.name) == f.default for f in fields(surrogate)):
        return name
    plain = {
        key: value if isinstance(value, bool | int | str) else float(value)
        for key, value in vars(surrogate).items()
    }
    return {"name": name, **plain}


def _read_surrogate(data: Any, _: Any) -> Surrogate:
    parameters = dict(data) if isinstance(data, dict) else {"name": data}
    name = parameters.pop("name", None)
    kind = SURROGATES.find(name)
    try:
        return make_dict_structure_fn(kind, _converter)(parameters, kind)
    except (cattrs.BaseValidationError, TypeError) as error:
        told = "; ".join(cattrs.transform_error(error, "parameters", _problem))
        raise ConfigError(f"surrogate {name}: {told}") from error


_converter.register_unstructure_hook(Surrogate, _write_surrogate)
_converter.register_structure_hook(Surrogate, _read_surrogate)
_converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _read_choice)
for scalar in (bool, int, float, str):
    _converter.register_structure_hook(scalar, _read_scalar)
