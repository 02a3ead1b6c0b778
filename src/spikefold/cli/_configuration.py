"""Configurations on the command line: the settings have the names that they have in records."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from spikefold.data import DATASETS
from spikefold.dynamics import SURROGATES, Surrogate
from spikefold.models import MODELS
from spikefold.plain import LEVELS, explained, from_plain, gathered, spread, to_plain
from spikefold.training import DataConfig, ModelConfig

RULES = ConstructorRegistry()


def one_of(names: Iterable[str]) -> str:
    """How help shows choices."""
    return f"{{{','.join(names)}}}"


DataName = Annotated[str, tyro.conf.arg(metavar=one_of(DATASETS))]
ModelName = Annotated[str, tyro.conf.arg(metavar=one_of(MODELS))]
# by class, the type of its field `name`
NAMES: dict[Any, Any] = {DataConfig: DataName, ModelConfig: ModelName}


@RULES.struct_rule
def _named(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Help lists the names; what records have at one level is at one level here."""
    if info.type not in NAMES:
        return None
    texts = explained(info.default)
    level = LEVELS.get(info.type)
    make = info.type if level is None else partial(gathered, info.type)
    values = vars(info.default) if level is None else spread(info.default)
    hints = {**get_type_hints(level or info.type), "name": NAMES[info.type]}
    specs = [StructFieldSpec(name, hints[name], values[name], texts[name]) for name in values]
    return StructConstructorSpec(make, tuple(specs))


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
        metavar=one_of(SURROGATES),
        instance_from_str=lambda words: from_plain(words[0], Surrogate, "surrogate"),
        is_instance=lambda value: isinstance(value, Surrogate),
        str_from_instance=shown,
    )
