"""Configurations as plain data, and back: the one converter of all that is written down.

A surrogate is written by its name, and with its parameters where they are not its class's own. A
field that is `inline` is written as if its fields were its owner's: `model.decay`, not
`model.neuron.decay`. The command line names settings as records do.
"""

from collections.abc import Callable, Iterable
from dataclasses import field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from spikefold.dynamics import SURROGATES, Surrogate
from spikefold.errors import ConfigError

T = TypeVar("T")
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


def inline(default: T) -> T:
    """A field of a dataclass whose own fields are written as its owner's."""
    return field(default=default, metadata={"inline": True})


def inline_types(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields that are `inline`, by name."""
    if not is_dataclass(kind):
        return {}
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind) if "inline" in f.metadata}


def _problem(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, ConfigError) else cattrs.v.format_exception(error, kind)


def _has_inline(kind: Any) -> bool:
    return bool(inline_types(kind))


def _left_out(names: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(names, override(omit=True))


@_converter.register_unstructure_hook_factory(_has_inline)
def _write_inline(kind: Any) -> Callable[[Any], dict[str, Any]]:
    inner = inline_types(kind)
    own = make_dict_unstructure_fn(kind, _converter, **_left_out(inner))

    def write(value: Any) -> dict[str, Any]:
        plain = own(value)
        for name in inner:
            plain |= to_plain(getattr(value, name))
        return plain

    return write


@_converter.register_structure_hook_factory(is_dataclass)
def _read_dataclass(kind: Any) -> Callable[[Any, Any], Any]:
    inner = inline_types(kind)
    own = make_dict_structure_fn(kind, _converter, **_left_out(inner))
    defaults = {f.name: to_plain(f.default) for f in fields(kind) if f.name in inner}

    def read(data: Any, _: Any) -> Any:
        if not isinstance(data, dict):
            raise ConfigError(f"expected names with values, got {data!r}")
        parts, rest = {}, dict(data)
        for name, part in inner.items():
            given = {key: rest.pop(key) for key in defaults[name].keys() & rest.keys()}
            parts[name] = _converter.structure({**defaults[name], **given}, part)
        value = own(rest, kind)
        return replace(value, **parts) if parts else value

    return read


def _read_choice(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ConfigError(f"expected one of {', '.join(get_args(kind))}, got {value!r}")
    return value


def _read_scalar(value: Any, kind: Any) -> Any:
    if type(value) not in ((int, float) if kind is float else (kind,)):
        raise ConfigError(f"expected a value of type {kind.__name__}, got {value!r}")
    return kind(value)


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
    if not isinstance(name, str) or name not in SURROGATES:
        raise ConfigError(f"unknown surrogate {name!r}: one of {', '.join(SURROGATES)}")
    try:
        return SURROGATES[name](**parameters)
    except TypeError as error:
        raise ConfigError(f"surrogate {name}: {error}") from error


_converter.register_unstructure_hook(Surrogate, _write_surrogate)
_converter.register_structure_hook(Surrogate, _read_surrogate)
_converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _read_choice)
for scalar in (bool, int, float, str):
    _converter.register_structure_hook(scalar, _read_scalar)
