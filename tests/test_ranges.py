"""Numbers beyond reason, in every setting that is a number."""

import json
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from spikefold.errors import ConfigError, DataError, SpikefoldError
from spikefold.plain import from_plain, to_plain
from spikefold.ranges import require_within
from spikefold.training import Experiment


class Numbers:
    """Some, at the edges."""

    low, high, middle, nothing = 0, 1, 0.5, None
    nan, huge = math.nan, 10**400


@pytest.mark.parametrize(
    ("name", "text", "fits"),
    [
        ("low", "[0, 1]", True),
        ("low", "(0, 1]", False),
        ("high", "[0, 1]", True),
        ("high", "[0, 1)", False),
        ("middle", "(0, 1)", True),
        ("nothing", "(0, 1)", True),
        ("nan", "[0, 1]", False),
        ("huge", "[0, 1e18]", False),
        ("huge", "[-1000000, 1e18]", False),
    ],
)
def test_ends_belong_to_a_range_or_not(name: str, text: str, fits: bool) -> None:
    if fits:
        require_within("numbers", Numbers(), **{name: text})
        return
    with pytest.raises(DataError) as caught:
        require_within("numbers", Numbers(), DataError, **{name: text})
    assert f"numbers: {name} must lie in {text}, got " in str(caught.value)


def numbers(plain: Any, path: str = "") -> list[str]:
    """Paths of the settings that are numbers."""
    found = []
    for key, value in plain.items():
        if isinstance(value, dict):
            found += numbers(value, f"{path}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(f"{path}{key}")
    return found


SETTINGS = numbers(to_plain(Experiment()))


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_number_has_a_range(setting: str) -> None:
    assert len(SETTINGS) > 20
    for odd in (math.nan, math.inf, -math.inf, -1, 10**26, -(10**400)):
        plain = json.loads(json.dumps(to_plain(Experiment())))
        *groups, name = setting.split(".")
        part = plain
        for group in groups:
            part = part[group]
        part[name] = odd
        if setting == "model.threshold" and odd in (-1, 10**26):
            continue  # any finite one
        with pytest.raises(SpikefoldError) as caught:
            from_plain(plain, Experiment, "settings")
        assert name in str(caught.value) or "beyond its range" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_all_groups_of_settings_are_looked_at() -> None:
    groups = {f.name for f in fields(Experiment) if is_dataclass(getattr(Experiment(), f.name))}
    assert groups == {setting.split(".")[0] for setting in SETTINGS if "." in setting}
    with pytest.raises(ConfigError, match=r"experiment: seed must lie in \[0, 1e12\], got -1"):
        replace(Experiment(), seed=-1)
