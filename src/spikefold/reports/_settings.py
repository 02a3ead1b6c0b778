"""Runs taken together by their settings, and tables of these."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spikefold.errors import DataError
from spikefold.records import SUMMARY
from spikefold.reports._many import (
    OWN_DATA,
    accuracy_records,
    by_setting,
    data_root,
    differ,
    flattened,
    of_setting,
    percent,
    setting_key,
)
from spikefold.reports._means import COST_HEADER, MISSING, cost_cells, layer_rates
from spikefold.reports._runs import read_history, read_record, undamaged
from spikefold.reports._tables import data_name, run_title

Rows = list[tuple[str, ...]]
# between the values of what differs
AND = " / "
NORMS = ("model.current_norm", "model.norm")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: where its records lie.
        summary: of `summary.json`.
    """

    directory: Path
    summary: dict[str, Any]

    @property
    def seed(self) -> int:
        """Of its training."""
        seed: int = self.summary["experiment"]["seed"]
        return seed

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """What was measured after each epoch."""
        return read_history(self.directory)

    def read(self, name: str) -> dict[str, Any] | None:
        """A record by its file's name, or None if it was not recorded."""
        return read_record(self.directory / name)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed only.

    Attributes:
        label: what sets it apart from the other settings of a page.
        runs: in the order of their seeds.
    """

    label: str
    runs: list[Run]

    @property
    def first(self) -> dict[str, Any]:
        """The summary of the first run."""
        return self.runs[0].summary

    @cached_property
    def flat(self) -> dict[str, Any]:
        """Settings by their dotted names, but for the seed and where it ran."""
        return {"recipe": self.first["recipe"], **flattened(of_setting(self.first))}


def group(runs: Sequence[Run]) -> list[Setting]:
    """Runs by their settings, in the order in which they come.

    Raises:
        DataError: if they are of different data sets, or a summary is damaged.
    """
    for run in runs:
        _require_tables(run)
    _require_one_data_set(runs)
    of = {id(run.summary): run for run in runs}
    groups = [
        sorted((of[id(summary)] for summary in summaries), key=lambda run: run.seed)
        for summaries in by_setting(run.summary for run in runs)
    ]
    unnamed = [Setting("", group) for group in groups]
    names = _names(_differing_keys(unnamed))

    def label(flat: dict[str, Any]) -> str:
        return ", ".join(
            f"{name} {' + '.join(_shown(flat, key) for key in keys)}"
            for name, keys in names.items()
        )

    return [
        Setting(label(setting.flat) or run_title(setting.first), setting.runs)
        for setting in unnamed
    ]


def _require_tables(run: Run) -> None:
    """Refuse a summary of which no tables can be made: of many, its file would not be known."""
    alone = [Setting("", [run])]
    with undamaged(run.directory / SUMMARY):
        for table in (title, about, notes, summary_table, everything, hardware):
            table(alone)
        if not all(isinstance(name, str) for name in rates_of_layers(alone[0])):
            raise TypeError("a layer's name is no text")
        _ = {run.summary["recipe"], _data(run)}


def require_each_once(runs: Iterable[Run]) -> None:
    """Refuse a run and its copy: they would count as two.

    Raises:
        DataError: names both folders.
    """
    found: dict[tuple[str, int], Path] = {}
    for run in runs:
        first = found.setdefault((setting_key(run.summary), run.seed), run.directory)
        if first is not run.directory:
            raise DataError(
                f"{first} and {run.directory} have the same settings and seed {run.seed}: leave "
                "one out"
            )


def _require_one_data_set(runs: Iterable[Run]) -> None:
    found: dict[str, Path] = {}
    for run in runs:
        found.setdefault(_data(run), run.directory)
    if len(found) > 1:
        which = ", ".join(f"{name} ({directory})" for name, directory in found.items())
        raise DataError(f"a page is about runs on one data set, and these are on {which}")


def _data(run: Run) -> str:
    """What tells a data set from others."""
    data = run.summary["experiment"]["data"]
    return str(data_root(data) if data["name"] in OWN_DATA else data["name"])


def _differing_keys(groups: Sequence[Setting]) -> list[str]:
    return _that_differ([setting.flat for setting in groups])


def _that_differ(found: Sequence[dict[str, Any]]) -> list[str]:
    """Keys whose values, as they are shown, are not the same in all."""
    keys = dict.fromkeys(key for one in found for key in one)
    return [key for key in keys if len({_shown(one, key) for one in found}) > 1]


def _names(keys: Sequence[str]) -> dict[str, Sequence[str]]:
    """Settings by the last part of their names where that tells them apart; both norms are one."""
    both = set(NORMS) <= set(keys)
    alone = [key for key in keys if not (both and key in NORMS)]
    last = [key.rpartition(".")[2] for key in alone]
    short = (la if last.count(la) == 1 else key for la, key in zip(last, alone, strict=True))
    named: dict[str, Sequence[str]] = {name: (key,) for name, key in zip(short, alone, strict=True)}
    return {"norms": NORMS, **named} if both else named


def _shown(flat: dict[str, Any], key: str) -> str:
    if key not in flat:
        return MISSING
    value = flat[key]
    if value is None:
        return "-"
    # All digits of a number, for settings are told apart by what is shown.
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def title(groups: Sequence[Setting]) -> str:
    """What the page is about."""
    first = groups[0].first
    if len(groups) == 1:
        return f"{first['recipe']}: {groups[0].label}"
    data, recipes = first["experiment"]["data"], {s.first["recipe"] for s in groups}
    what = next(iter(recipes)) if len(recipes) == 1 else data_name(data)
    return f"{what}: {len(groups)} settings of {', '.join(_names(_differing_keys(groups)))}"


def about(groups: Sequence[Setting]) -> str:
    """How many runs, on how many samples."""
    runs = sum(len(setting.runs) for setting in groups)
    samples = [run.summary["samples"] for setting in groups for run in setting.runs]
    train, validation, test = (_span(s[split] for s in samples) for split in SPLITS)
    chosen = [bool(s["validation"]) for s in samples]
    how = "The last epoch is kept"
    if any(chosen):
        other = "" if all(chosen) else " where there are any, else the last is kept"
        how = f"The validation samples chose the epoch{other}"
    return (
        f"{runs} run{'s' if runs > 1 else ''} on {train} training, "
        f"{validation} validation and {test} test samples. "
        f"{how}, the test samples only report."
    )


def _span(counts: Iterable[int]) -> str:
    """The least and the greatest."""
    found = sorted(counts)
    return " to ".join(f"{count:,}" for count in dict.fromkeys((found[0], found[-1])))


def notes(groups: Sequence[Setting]) -> list[str]:
    """What the data sets said of themselves."""
    return list(dict.fromkeys(s.first["notes"] for s in groups if s.first.get("notes")))


def summary_table(groups: Sequence[Setting]) -> Rows:
    """A row a setting: accuracy, spikes, energy, training time, what remains at inference."""
    head = ("setting", "n", "validation (%)", "test (%)", *COST_HEADER, "differ after the fold")
    return [head, *(_summary_row(setting) for setting in groups)]


def _summary_row(setting: Setting) -> tuple[str, ...]:
    (record,) = accuracy_records(run.summary for run in setting.runs)
    return (
        setting.label,
        str(record["n"]),
        percent(record["validation"]),
        percent(record["test"]),
        *cost_cells(record["cost"], record["n"]),
        differ(record["fold"]),
    )


def rates_of_layers(setting: Setting) -> dict[str, list[float]]:
    """Firing rates of each layer in the runs that recorded them."""
    found: dict[str, list[float]] = {}
    for run in setting.runs:
        for name, rate in layer_rates(run.summary).items():
            found.setdefault(name, []).append(float(rate))
    return found


def differing(groups: Sequence[Setting]) -> Rows:
    """A row a setting with that in which they differ, under a header; nothing of one alone."""
    return _each(groups, _differing_keys(groups), lambda setting: [setting.flat])


def everything(groups: Sequence[Setting]) -> Rows:
    """Names and values under a header; of those that differ all values."""
    return _together([setting.flat for setting in groups])


def hardware(groups: Sequence[Setting]) -> Rows:
    """Machines and versions; of those that differ all."""
    return _together([machine for setting in groups for machine in _machines(setting)])


def differing_hardware(groups: Sequence[Setting]) -> Rows:
    """A row a setting with that in which the machines of a page differ; nothing where none does."""
    found = [machine for setting in groups for machine in _machines(setting)]
    return _each(groups, _that_differ(found), _machines)


def _together(found: Sequence[dict[str, Any]]) -> Rows:
    keys = dict.fromkeys(key for one in found for key in one)
    return [("", "value"), *((key, _values(found, key)) for key in keys)]


def _each(
    groups: Sequence[Setting],
    keys: Sequence[str],
    found: Callable[[Setting], Sequence[dict[str, Any]]],
) -> Rows:
    """A header and a row a setting: its values of some keys."""
    rows = [(s.label, *(_values(found(s), key) for key in keys)) for s in groups]
    return [("setting", *keys), *rows] if keys else []


def _values(found: Sequence[dict[str, Any]], key: str) -> str:
    """All values of a key, each once."""
    return AND.join(dict.fromkeys(_shown(one, key) for one in found))


def _machines(setting: Setting) -> list[dict[str, Any]]:
    return [_machine(run.summary) for run in setting.runs]


def _machine(summary: dict[str, Any]) -> dict[str, Any]:
    """What a run was made on, and how it was told to use it."""
    return {**(summary.get("hardware") or {}), **summary["experiment"].get("hardware", {})}
