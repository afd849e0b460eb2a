"""Recipes: named combinations of the five nouns, and the settings that each of them reads."""

from energax.recipes.parts import SOLVERS as SOLVERS
from energax.recipes.recipes import RECIPES as RECIPES
from energax.recipes.recipes import Recipe as Recipe
from energax.recipes.recipes import complete_settings as complete_settings
from energax.recipes.recipes import count_parameter_bytes as count_parameter_bytes
from energax.recipes.recipes import make_learner as make_learner
from energax.recipes.recipes import settings_read as settings_read
from energax.recipes.settings import Settings as Settings
from energax.recipes.settings import write_settings as write_settings
