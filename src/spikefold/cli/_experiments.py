"""Commands on recipes: run, train, show, recipes."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from spikefold.cli._configuration import RULES
from spikefold.cli._output import print_json, print_rows
from spikefold.cli._progress import shown_progress
from spikefold.errors import ConfigError
from spikefold.plain import to_plain
from spikefold.recipes import RECIPES, Recipe, find_recipe, load_data, run
from spikefold.reports import plot_run, run_table, run_title
from spikefold.training import LAST, Experiment, train

OptionsT = TypeVar("OptionsT")
Overrides = Annotated[Experiment, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class RunOptions:
    """Options of `run` and `train`, and the recipe's configuration to override."""

    experiment: Overrides
    out: Path | None = None
    """directory of the run; default: runs/RECIPE"""
    resume: bool = False
    """go on with an interrupted run"""
    overwrite: bool = False
    """replace a run that is there"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


@dataclass(frozen=True)
class ShowOptions:
    """Options of `show`, and the recipe's configuration to override."""

    experiment: Overrides
    json: bool = False
    """print one JSON object and nothing else on standard output"""


@dataclass(frozen=True)
class RecipesOptions:
    """List the recipes."""

    json: bool = False
    """print one JSON object and nothing else on standard output"""


def _parse(
    command: str, words: list[str], options: Callable[[Experiment], OptionsT]
) -> tuple[Recipe, OptionsT]:
    """The recipe, which is the first word, and the options that follow it."""
    if not words or words[0].startswith("-"):
        print(f"usage: spikefold {command} RECIPE [OPTIONS]\n\nrecipes:")
        print_rows("", [(recipe.name, recipe.summary) for recipe in RECIPES.values()])
        print(f"spikefold {command} RECIPE --help lists the options, with the recipe's values.")
        raise SystemExit(0 if words and words[0] in ("-h", "--help") else 2)
    recipe = find_recipe(words[0])
    default = options(recipe.experiment)
    parsed = tyro.cli(
        type(default),
        default=default,
        args=words[1:],
        prog=f"spikefold {command} {recipe.name}",
        description=recipe.summary,
        registry=RULES,
    )
    return recipe, parsed


def _is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _directory(recipe: Recipe, options: RunOptions) -> Path:
    """The run's directory, free for this run; the first process sees to that."""
    directory = options.out or Path("runs") / recipe.name
    if not _is_first():
        return directory
    if options.resume and options.overwrite:
        raise ConfigError("--resume goes on with a run, --overwrite replaces it: give one of them")
    if (directory / LAST).exists():
        if options.overwrite:
            shutil.rmtree(directory)
        elif not options.resume:
            raise ConfigError(
                f"{directory} holds a run: --resume goes on with it, --overwrite replaces it, "
                "--out DIRECTORY puts the new one elsewhere"
            )
    elif options.resume:
        raise ConfigError(f"{directory} holds no run to resume")
    return directory


def _interruptible(
    work: Callable[[], dict[str, Any]], command: str, recipe: Recipe, directory: Path
) -> dict[str, Any]:
    """Do the work; when interrupted, say how to go on."""
    try:
        return work()
    except KeyboardInterrupt as error:
        raise type(error)(
            f"interrupted; to go on from the last epoch: spikefold {command} {recipe.name} "
            f"--resume --out {directory} (with the same settings)"
        ) from error


def run_command(words: list[str]) -> None:
    """Train, fold, fuse, verify, evaluate and report a recipe."""
    recipe, options = _parse("run", words, RunOptions)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError(
            "run: torchrun's processes can only train: torchrun ... spikefold train, then fold, "
            "verify and evaluate its best checkpoint"
        )
    directory = _directory(recipe, options)

    def work() -> dict[str, Any]:
        return run(
            recipe.name,
            options.experiment,
            directory,
            resume=options.resume,
            progress=shown_progress(),
        )

    summary = _interruptible(work, "run", recipe, directory)
    pictures = plot_run(directory)
    if options.json:
        print_json(summary)
    else:
        print_rows(f"{run_title(summary)}: {directory}", run_table(summary))
        print(f"pictures: {', '.join(str(path) for path in pictures)}")


def train_command(words: list[str]) -> None:
    """Only train a recipe."""
    recipe, options = _parse("train", words, RunOptions)
    directory = _directory(recipe, options)
    dataset = load_data(options.experiment)

    def work() -> dict[str, Any]:
        train(
            options.experiment,
            dataset,
            directory,
            resume=options.resume,
            progress=shown_progress(),
        )
        return {"directory": str(directory), "best": str(directory / "best.safetensors")}

    record = _interruptible(work, "train", recipe, directory)
    if not _is_first():
        return
    if options.json:
        print_json(record)
    else:
        print(f"best checkpoint: {record['best']}")


def show_command(words: list[str]) -> None:
    """The full configuration of a recipe."""
    recipe, options = _parse("show", words, ShowOptions)
    record = to_plain(options.experiment)
    if options.json:
        print_json({**_about(recipe), "experiment": record})
    else:
        print_rows(f"{recipe.name}: {recipe.summary}", _flatten(record))
        print(f"measured: {recipe.measured}\ncommand: spikefold run {recipe.name}")


def _flatten(record: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in record.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"--{prefix}{key}".replace("_", "-"), str(value)))
    return rows


def recipes_command(words: list[str]) -> None:
    """List the recipes."""
    options = tyro.cli(RecipesOptions, args=words, prog="spikefold recipes")
    if options.json:
        print_json([_about(recipe) for recipe in RECIPES.values()])
    else:
        rows = [("name", "what", "measured")]
        rows += [(recipe.name, recipe.summary, recipe.measured) for recipe in RECIPES.values()]
        print_rows("recipes", rows)


def _about(recipe: Recipe) -> dict[str, str]:
    return {
        "recipe": recipe.name,
        "summary": recipe.summary,
        "measured": recipe.measured,
        "command": f"spikefold run {recipe.name}",
    }
