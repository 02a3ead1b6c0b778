"""Recipes: named experiments, and the whole job from training to the verified fold."""

from spikefold.recipes._recipes import RECIPES, Recipe, find_recipe, register
from spikefold.recipes._run import SUMMARY, load_data, run

__all__ = ["RECIPES", "SUMMARY", "Recipe", "find_recipe", "load_data", "register", "run"]
