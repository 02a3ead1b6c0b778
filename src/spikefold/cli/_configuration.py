"""Configurations on the command line: the settings have the names that they have in records."""

from functools import partial
from typing import Any, get_type_hints

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from spikefold.dynamics import SURROGATES, Surrogate
from spikefold.plain import LEVELS, explained, from_plain, gathered, spread, to_plain

RULES = ConstructorRegistry()


@RULES.struct_rule
def _flat(info: StructTypeInfo) -> StructConstructorSpec | None:
    """What records have at one level is at one level here."""
    if info.type not in LEVELS:
        return None
    texts = explained(info.default)
    values = spread(info.default)
    hints = get_type_hints(LEVELS[info.type])
    specs = [StructFieldSpec(name, hints[name], values[name], texts[name]) for name in values]
    return StructConstructorSpec(partial(gathered, info.type), tuple(specs))


@RULES.primitive_rule
def _surrogate(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A surrogate is named, one of an installed package too."""
    if info.type is not Surrogate:
        return None

    def shown(surrogate: Surrogate) -> list[str]:
        plain = to_plain(surrogate)
        return [plain if isinstance(plain, str) else repr(surrogate)]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(SURROGATES)}}}",
        instance_from_str=lambda words: from_plain(words[0], Surrogate, "surrogate"),
        is_instance=lambda value: isinstance(value, Surrogate),
        str_from_instance=shown,
    )
