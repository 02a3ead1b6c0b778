"""Recipes: named experiments, and the whole job from training to the verified fold."""

from spikefold.recipes._recipes import RECIPES, Recipe, find_recipe
from spikefold.recipes._run import run

__all__ = ["RECIPES", "Recipe", "find_recipe", "run"]
