"""Numbers beyond reason, in every setting that is a number."""

import json
import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

import pytest

import spikefold as sf
from spikefold.errors import ConfigError, DataError, SpikefoldError
from spikefold.plain import from_plain, to_plain
from spikefold.ranges import require_one_of, require_within
from spikefold.training import DataConfig, Experiment, HardwareConfig


@dataclass(frozen=True)
class Numbers:
    """Some, at the edges."""

    low: int = 0
    high: int = 1
    middle: float = 0.5
    nothing: float | None = None
    nan: float = math.nan
    huge: int = 10**400
    word: Any = "1"
    truth: Any = True
    part: Any = 2.5


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


@dataclass(frozen=True)
class Whole:
    """A count, and choices."""

    count: int | None
    kind: Literal["a", "b"] = "a"
    other: Literal["c"] | None = None


def test_what_is_no_number_or_not_whole_is_refused() -> None:
    for name in ("word", "truth"):
        with pytest.raises(ConfigError, match=rf"numbers: {name} must be a number in \[0, 9\]"):
            require_within("numbers", Numbers(), **{name: "[0, 9]"})
    require_within("numbers", Numbers(), part="[0, 9]")
    require_within("whole", Whole(None), count="[0, 9]")
    for odd in (2.5, 2.0, True, "2"):
        with pytest.raises(ConfigError, match=r"count must be a whole number in \[0, 9\], got"):
            require_within("whole", Whole(odd), count="[0, 9]")  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [{"kind": "c"}, {"kind": None}, {"other": "a"}, {"kind": ["a"]}])
def test_what_is_none_of_the_choices_is_refused(odd: dict[str, Any]) -> None:
    require_one_of("whole", Whole(1, "b", None))
    with pytest.raises(
        ConfigError, match=f"whole: {next(iter(odd))} must be one of (a, b|c, None), got"
    ):
        require_one_of("whole", Whole(1, **odd))


@pytest.mark.usefixtures("as_user")
def test_settings_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"hardware: precision must be one of .*, got 'fp32'"):
        HardwareConfig(precision="fp32")  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match="data: frames_by must be one of time, count, None, got 'x'"
    ):
        DataConfig(frames_by="x")  # type: ignore[arg-type]
    for steps in (2.5, True, "4"):
        with pytest.raises(ConfigError, match="model: steps must be a whole number"):
            sf.models.small(steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="model: width must be a number"):
        sf.models.small(width="0.5")  # type: ignore[arg-type]


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
