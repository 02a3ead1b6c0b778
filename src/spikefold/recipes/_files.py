"""Recipes as files: TOML for people, and the `config.json` of an existing run."""

import json
import textwrap
import tomllib
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.items import Item, Table

from spikefold.errors import ConfigError
from spikefold.plain import explained, from_plain, to_plain
from spikefold.recipes._recipes import NOT_YET, RECIPES, Recipe
from spikefold.records import CONFIG
from spikefold.training import Experiment

REQUIRED = (
    "data",
    "model",
)  # sections whose name must be given, never assumed


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file; what it leaves out has its default.

    Arguments:
        path: of a TOML file, as `to_toml` writes it, of the `config.json` of a run, or of the run's
            directory. It may have a `summary`, and a `recipe`, its name (default: the file's,
            or the directory's of a run).

    Raises:
        ConfigError: if it cannot be read, or a setting is unknown, missing or wrong; says where.
    """
    if path.is_dir():
        path = path / CONFIG
    data = _parse(path)
    name = path.resolve().parent.name if path.name == CONFIG else path.stem
    try:
        about = {"recipe": name, "summary": f"settings of {path}"}
        for key in about.keys() & data.keys():
            about[key] = from_plain(data.pop(key), str, key)
        if Path(about["recipe"]).name != about["recipe"] or about["recipe"] in ("", ".."):
            raise ConfigError(f"recipe: expected a name, got {about['recipe']!r}")
        experiment = from_plain(data, Experiment, "settings")
        for section in REQUIRED:
            if "name" not in data.get(section, {}):
                raise ConfigError(f"{section}.name is missing: a recipe says what it is about")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return Recipe(about["recipe"], about["summary"], experiment)


def is_file(word: str) -> bool:
    """Whether the name of a recipe means a file, or the directory of a run."""
    path = Path(word)
    return word not in RECIPES and (path.suffix in (".toml", ".json") or path.name != word)


def find_recipe(word: str) -> Recipe:
    """The recipe of this name, or of this file.

    Raises:
        ConfigError: if there is none; names the nearest.
    """
    return read_recipe(Path(word)) if is_file(word) else RECIPES.find(word)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected names with values, got {data!r}")
    return data


def to_toml(recipe: Recipe) -> str:
    """A recipe as a file that `read_recipe` reads, each setting with what it means.

    Arguments:
        recipe: registered or not.
    """
    document = tomlkit.document()
    measured = "" if recipe.measured == NOT_YET else f" (measured there: {recipe.measured})"
    _explain(document, f"Made from {recipe.name}{measured}. All of it: spikefold run THIS_FILE")
    document.add(tomlkit.nl())
    document.add("summary", tomlkit.item(recipe.summary))
    _fill(document, recipe.experiment, to_plain(recipe.experiment))
    return tomlkit.dumps(document)


def _fill(table: Table | TOMLDocument, value: Any, plain: dict[str, Any]) -> None:
    """Settings first; then those that have settings of their own, each a table."""
    texts = explained(value)
    inner = [key for key in plain if is_dataclass(getattr(value, key, None))]
    for key in (key for key in plain if key not in inner):
        _explain(table, texts[key])
        if plain[key] is None:  # TOML has no word for it
            table.add(tomlkit.comment(f"{key} ="))
        else:
            table.add(key, _inline(plain[key]))
    for key in inner:
        part = tomlkit.table()
        part.comment(texts[key].rstrip("."))
        _fill(part, getattr(value, key), plain[key])
        table.add(key, part)


def _explain(table: Table | TOMLDocument, text: str) -> None:
    for line in textwrap.wrap(text.rstrip("."), 98):
        table.add(tomlkit.comment(line))


def _inline(value: Any) -> Item:
    """A value in one line."""
    if not isinstance(value, dict):
        return tomlkit.item(value)
    table = tomlkit.inline_table()
    table.update(value)
    return table
