"""The command that runs many."""

import itertools
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from spikefold.cli._cluster import CLUSTERS, JobOptions, Run
from spikefold.cli._configuration import RULES
from spikefold.cli._jobs import Engine, run_jobs
from spikefold.cli._output import print_error, print_json, print_rows
from spikefold.cli._parsing import NEEDED, NONE_GIVEN, Json, parse
from spikefold.cli._processes import Processes
from spikefold.cli._progress import shown_progress
from spikefold.errors import ConfigError
from spikefold.plain import from_plain, to_plain
from spikefold.recipes import find_recipe, run
from spikefold.records import LAST, SUMMARY
from spikefold.registry import IMPORTED, import_extension
from spikefold.reports import (
    accuracy_records,
    accuracy_table,
    plot_run,
    read_summaries,
    undamaged,
)
from spikefold.training import Experiment, Progress


@dataclass(frozen=True)
class SweepOptions:
    """Run recipes x settings x seeds; finished runs are not run again, broken ones go on."""

    recipes: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE ..."), NEEDED
    ]
    """names of recipes (spikefold recipes lists them), or their files"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run each"""
    vary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE,..."), NONE_GIVEN] = ()
    """settings to vary, for instance model.norm=mpbn,none; all combinations are run"""
    out: Path = Path("runs/sweep")
    """directory of the runs"""
    jobs: int | None = None
    """runs at once, each a process of its own with its share of the cores (or a GPU), or a job of a
    cluster; default: one, and on a cluster all"""
    on: Literal["here", "slurm", "local"] = "here"
    """where: processes of this machine, jobs of Slurm (extra cluster), or, to rehearse that, such
    jobs on this machine"""
    cluster: JobOptions = field(default_factory=JobOptions)
    json: Json = False


@dataclass(frozen=True)
class _Planned:
    """One run of a sweep."""

    recipe: str
    experiment: Experiment
    directory: Path
    extensions: tuple[str, ...] = ()


def _choices(setting: str) -> list[tuple[str, str]]:
    """What `KEY=VALUE,...` varies, each value with its key."""
    key, equals, values = setting.partition("=")
    key = key.replace("_", "-")
    if not (key and equals and values):
        raise ConfigError(f"sweep: --vary {setting}: expected KEY=VALUE,VALUE,...")
    if key == "seed":
        raise ConfigError(f"sweep: seeds are given by --seeds {values.replace(',', ' ')}")
    return [(key, value) for value in values.split(",")]


def _words(experiment: Experiment, key: str, value: str) -> list[str]:
    """A setting as the command line has it, where what is true or false is a flag."""
    group, _, name = key.rpartition(".")
    now = to_plain(experiment)
    for part in key.replace("-", "_").split("."):
        now = now.get(part) if isinstance(now, dict) else None
    if not isinstance(now, bool):
        return [f"--{key}", value]
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"sweep: --vary {key} must be true or false, got {value}")
    return [f"--{key}" if value.lower() == "true" else f"--{group}.no-{name}"]


def plan(options: SweepOptions) -> list[_Planned]:
    """All runs of a sweep.

    Raises:
        ConfigError: if a recipe, key or value is unknown.
    """
    if not options.recipes:
        raise ConfigError("sweep: name at least one recipe (spikefold recipes lists them)")
    varied = [_choices(setting) for setting in options.vary]
    keys = [key for (key, _), *_ in varied]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"sweep: --vary {key} is given twice: put all its values behind one")
    recipes = [find_recipe(word) for word in options.recipes]
    names = [recipe.name for recipe in recipes]
    runs: list[_Planned] = []
    for name, recipe in zip(names, recipes, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"sweep: two recipes are called {name!r}")
        for settings in itertools.product(*varied):
            words = [word for setting in settings for word in _words(recipe.experiment, *setting)]
            experiment = parse(
                Experiment,
                words,
                f"spikefold run {name}",
                default=recipe.experiment,
                registry=RULES,
            )
            label = ",".join(f"{key}={value}" for key, value in settings) or "default"
            # a value may be a path; a run's folder has one name
            label = label.replace("/", "_")
            runs += [
                _Planned(
                    name,
                    replace(experiment, seed=seed),
                    options.out / name / label / f"seed-{seed}",
                    tuple(IMPORTED),
                )
                for seed in options.seeds
            ]
    directories = [planned.directory for planned in runs]
    for directory in directories:
        if directories.count(directory) > 1:
            raise ConfigError(
                f"sweep: {directory} would hold two runs: is a value or a seed given twice?"
            )
    return runs


def sweep_command(words: list[str]) -> None:
    """Run many."""
    options = parse(SweepOptions, words, "spikefold sweep")
    _require_consistent(options)
    runs = plan(options)
    for planned in filter(_is_finished, runs):
        _require_same(planned)
    try:
        _run_all([planned for planned in runs if not _is_finished(planned)], options)
    except KeyboardInterrupt as error:
        done = sum(map(_is_finished, runs))
        raise type(error)(
            f"interrupted; {done} of {len(runs)} runs are finished, {error}the same command goes on"
        ) from error
    records = accuracy_records(read_summaries([planned.directory for planned in runs]))
    if options.json:
        print_json(records)
    else:
        print_rows(str(options.out), accuracy_table(records))


def _is_finished(planned: _Planned) -> bool:
    return (planned.directory / SUMMARY).exists()


def _require_consistent(options: SweepOptions) -> None:
    if options.jobs is not None and options.jobs < 1:
        raise ConfigError(f"sweep: --jobs must be at least 1, got {options.jobs}")
    if options.on == "here" and options.cluster != JobOptions():
        raise ConfigError("sweep: --cluster.gpus and the like are for jobs: add --on slurm")


def _run_all(left: list[_Planned], options: SweepOptions) -> None:
    """One after the other, or so many at once."""
    if options.on == "here" and options.jobs in (None, 1):
        for number, planned in enumerate(left, start=1):
            print_error(f"run {number} of {len(left)}: {planned.directory}")
            run_planned(planned, shown_progress())
        return
    names = [str(planned.directory.relative_to(options.out)) for planned in left]
    failed = run_jobs(_engine(left, names, options), names)
    if failed:
        raise ConfigError(
            f"sweep: {len(failed)} of {len(left)} runs failed (the same command "
            f"continues them): {', '.join(names[number] for number in failed)}"
        )


def _engine(left: list[_Planned], names: list[str], options: SweepOptions) -> Engine[Any]:
    """What runs so many at once."""
    works = [partial(run_planned, planned) for planned in left]
    if options.on == "here":
        gpus = torch.cuda.device_count() if any(map(_wants_gpu, left)) else 0
        return Processes(works, options.jobs or 1, gpus)
    runs = [
        Run(name, work, planned.directory / LAST, planned.directory / SUMMARY)
        for name, work, planned in zip(names, works, left, strict=True)
    ]
    at_once = options.jobs or len(runs)
    return CLUSTERS[options.on](runs, options.out / "jobs", options.cluster, at_once)


def run_planned(planned: _Planned, progress: Progress) -> None:
    """One run of a sweep, from where it stands."""
    for module in planned.extensions:  # which the process of a run has not seen
        import_extension(module)
    if _is_finished(planned):  # by another job, since this one was queued
        return
    resume = (planned.directory / LAST).exists()
    run(planned.recipe, planned.experiment, planned.directory, resume=resume, progress=progress)
    plot_run(planned.directory)


def _wants_gpu(planned: _Planned) -> bool:
    return planned.experiment.hardware.accelerator != "cpu"


def _require_same(planned: _Planned) -> None:
    """A finished run must be of the settings that are asked for."""
    path = planned.directory / SUMMARY
    # not `read_summary`, whose question marks stand for what cannot be printed of a folder's name
    with undamaged(path):
        stored = json.loads(path.read_text(encoding="utf-8"))["experiment"]
    if from_plain(stored, Experiment, f"{path}: experiment") != planned.experiment:
        raise ConfigError(
            f"{planned.directory} holds a run with other settings: choose another --out"
        )
