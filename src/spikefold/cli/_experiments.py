"""Commands on recipes: run, train, show, recipes."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from spikefold.cli._configuration import RULES
from spikefold.cli._output import print_json, print_rows
from spikefold.cli._parsing import Json, parse
from spikefold.cli._progress import shown_progress
from spikefold.cli._runs import (
    RunFlags,
    directory_of,
    interruptible,
    make_free,
    recorded,
    spelled_out,
)
from spikefold.errors import ConfigError
from spikefold.plain import to_plain
from spikefold.recipes import RECIPES, Recipe, find_recipe, load_data, run, to_toml
from spikefold.records import BEST, CONFIG
from spikefold.reports import Run, plot_run, run_table, run_title, write_page
from spikefold.saving import is_first
from spikefold.training import Experiment, is_launched, require_continued, train

OptionsT = TypeVar("OptionsT")
Overrides = Annotated[Experiment, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class RunOptions:
    """Options of `run` and `train`, and the recipe's configuration to override."""

    experiment: Overrides
    flags: Annotated[RunFlags, tyro.conf.arg(name="")] = field(default_factory=RunFlags)


@dataclass(frozen=True)
class ShowOptions:
    """Options of `show`, and the recipe's configuration to override."""

    experiment: Overrides
    json: Json = False


@dataclass(frozen=True)
class RecipesOptions:
    """List the recipes."""

    json: Json = False


def _require_recipe(command: str, words: list[str]) -> None:
    """The first word names the recipe; without one, say which there are."""
    if words and not words[0].startswith("-"):
        return
    print(f"usage: spikefold {command} RECIPE [OPTIONS]\n\nRECIPE: a TOML file, or one of")
    print_rows("", [(recipe.name, recipe.summary) for recipe in RECIPES.values()])
    print(f"spikefold {command} RECIPE --help lists the options, with the recipe's values.")
    raise SystemExit(0 if words and words[0] in ("-h", "--help") else 2)


def _parse(
    command: str, words: list[str], recipe: Recipe, options: Callable[[Experiment], OptionsT]
) -> OptionsT:
    """The options that follow the recipe's name."""
    default = options(recipe.experiment)
    return parse(
        type(default),
        words[1:],
        f"spikefold {command} {words[0]}",
        default=default,
        description=recipe.summary,
        registry=RULES,
    )


def _plan(command: str, words: list[str]) -> tuple[Recipe, RunFlags, Path]:
    """What is run, how and where; a run that goes on does so with its own settings."""
    words = spelled_out(words)
    _require_recipe(command, words)
    recipe = find_recipe(words[0])
    flags, _ = tyro.cli(RunFlags, args=words[1:], return_unknown_args=True, add_help=False)
    if flags.resume and flags.overwrite:
        raise ConfigError("--resume goes on with a run, --overwrite replaces it: give one of them")
    directory = directory_of(words[0], recipe, flags)
    helps = {"-h", "--help"} & set(words)
    if flags.resume and not helps:
        recipe = recorded(directory, words[0], recipe)
    experiment = _parse(command, words, recipe, RunOptions).experiment
    if flags.resume:
        require_continued(recipe.experiment, experiment, directory / CONFIG)
    return replace(recipe, experiment=experiment), flags, directory


def run_command(words: list[str]) -> None:
    """Train, fold, fuse, verify, evaluate and report a recipe."""
    recipe, flags, directory = _plan("run", words)
    if is_launched():
        raise ConfigError(
            "run: torchrun's processes can only train: torchrun ... spikefold train, then fold, "
            "verify and evaluate its best checkpoint"
        )
    make_free(directory, recipe.experiment, flags)

    def work() -> dict[str, Any]:
        return run(
            recipe.name,
            recipe.experiment,
            directory,
            resume=flags.resume,
            progress=shown_progress(),
        )

    summary = interruptible(work, "run", directory)
    pictures, page = plot_run(directory), directory / "report.html"
    write_page([Run(directory, summary)], page)
    if flags.json:
        print_json(summary)
    else:
        print_rows(f"{run_title(summary)}: {directory}", run_table(summary))
        print(f"pictures: {', '.join(str(path) for path in pictures)}")
        print(f"report: {page}")


def train_command(words: list[str]) -> None:
    """Only train a recipe."""
    recipe, flags, directory = _plan("train", words)
    make_free(directory, recipe.experiment, flags)

    def work() -> dict[str, Any]:
        train(
            recipe.experiment,
            load_data(recipe.experiment),
            directory,
            resume=flags.resume,
            progress=shown_progress(),
            recipe=recipe.name,
        )
        return {"directory": str(directory), "best": str(directory / BEST)}

    record = interruptible(work, "train", directory)
    if not is_first():
        return
    if flags.json:
        print_json(record)
    else:
        print(f"best checkpoint: {record['best']}")


def show_command(words: list[str]) -> None:
    """A recipe with all its settings, as a file to start from."""
    _require_recipe("show", words)
    recipe = find_recipe(words[0])
    options = _parse("show", words, recipe, ShowOptions)
    recipe = replace(recipe, experiment=options.experiment)
    if options.json:
        print_json({**_about(recipe, words[0]), "experiment": to_plain(recipe.experiment)})
    else:
        print(to_toml(recipe), end="")


def recipes_command(words: list[str]) -> None:
    """List the recipes."""
    options = parse(RecipesOptions, words, "spikefold recipes")
    if options.json:
        print_json([_about(recipe, recipe.name) for recipe in RECIPES.values()])
    else:
        rows = [("name", "what", "measured")]
        rows += [(recipe.name, recipe.summary, recipe.measured) for recipe in RECIPES.values()]
        print_rows("recipes", rows)


def _about(recipe: Recipe, word: str) -> dict[str, str]:
    return {
        "recipe": recipe.name,
        "summary": recipe.summary,
        "measured": recipe.measured,
        "command": f"spikefold run {shlex.quote(word)}",
    }
