"""Recipes: named experiments, and the whole job from training to the verified fold."""

from spikefold.recipes._recipes import RECIPES, Recipe, find_recipe
from spikefold.recipes._run import FOLDED, SUMMARY, load_data, run

__all__ = ["FOLDED", "RECIPES", "SUMMARY", "Recipe", "find_recipe", "load_data", "run"]
