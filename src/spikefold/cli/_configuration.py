"""Configurations on the command line: the settings have the names that they have in records."""

from dataclasses import fields
from itertools import chain
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from spikefold.described import described
from spikefold.dynamics import SURROGATES, Surrogate
from spikefold.plain import from_plain, inline_types

T = TypeVar("T")
_registry = ConstructorRegistry()


def parse(
    kind: type[T], default: T, words: list[str], prog: str, description: str | None = None
) -> T:
    """The configuration with the settings that the words give.

    Arguments:
        kind: of the configuration.
        default: what the words do not change.
        words: options and values.
        prog: what usage and errors call the program.
        description: for its help.
    """
    return tyro.cli(
        kind, default=default, args=words, prog=prog, description=description, registry=_registry
    )


@_registry.struct_rule
def _inline(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The fields of an inline field are options of its owner."""
    inner = inline_types(info.type)
    if not inner:
        return None
    own = [spec for spec in _options(info.type, info.default) if spec.name not in inner]
    parts = {name: _options(kind, getattr(info.default, name)) for name, kind in inner.items()}

    def make(**settings: Any) -> Any:
        made = {
            name: inner[name](**{spec.name: settings.pop(spec.name) for spec in specs})
            for name, specs in parts.items()
        }
        return info.type(**settings, **made)

    return StructConstructorSpec(make, tuple(chain(own, *parts.values())))


def _options(kind: Any, default: Any) -> list[StructFieldSpec]:
    """An option for each field of a dataclass."""
    hints, texts, values = get_type_hints(kind), described(kind), vars(default)
    return [
        StructFieldSpec(
            f.name,
            # what has a value here keeps one: None is for who calls the models
            type(values[f.name]) if NoneType in get_args(hints[f.name]) else hints[f.name],
            values[f.name],
            texts[f.name],
        )
        for f in fields(kind)
    ]


@_registry.primitive_rule
def _surrogate(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A surrogate is named."""
    if info.type is not Surrogate:
        return None
    names = tuple(SURROGATES)
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=lambda words: from_plain(words[0], Surrogate, "surrogate"),
        is_instance=lambda value: isinstance(value, Surrogate),
        str_from_instance=lambda surrogate: [surrogate.name],
        choices=names,
    )
