"""Recipes: named experiments, and the whole job from training to the verified fold."""

from spikefold.recipes._files import find_recipe, is_file, read_recipe, to_toml
from spikefold.recipes._recipes import RECIPES, Recipe, register
from spikefold.recipes._run import load_data, run

__all__ = [
    "RECIPES",
    "Recipe",
    "find_recipe",
    "is_file",
    "load_data",
    "read_recipe",
    "register",
    "run",
    "to_toml",
]
