"""Ranges of settings: numbers beyond them are mistakes that would fail later, or exhaust memory."""

import re
from typing import Any

from spikefold.errors import ConfigError, SpikefoldError

_RANGE = re.compile(r"([\[(])(.+), (.+)([\])])")


def require_within(
    what: str, owner: Any, error: type[SpikefoldError] = ConfigError, **ranges: str
) -> None:
    """Refuse attributes outside of their ranges; None is not checked.

    Arguments:
        what: the numbers belong to, in messages.
        owner: has them.
        error: that is raised.
        ranges: by name, as mathematics writes them: "[1, 1000]", "[0, 1)".

    Raises:
        SpikefoldError: of the class `error`, with name, range and value; of NaN, too.
    """
    for name, text in ranges.items():
        value, found = getattr(owner, name), _RANGE.fullmatch(text)
        assert found is not None, text
        if value is None:
            continue
        low, high = float(found[2]), float(found[3])
        above = value >= low if found[1] == "[" else value > low
        below = value <= high if found[4] == "]" else value < high
        if not (above and below):
            raise error(f"{what}: {name} must lie in {text}, got {value}")
