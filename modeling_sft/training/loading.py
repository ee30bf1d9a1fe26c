"""Recipes that their task has accepted."""

from collections.abc import Sequence
from pathlib import Path

from .recipe import Recipe
from .tasks import get_task


def check_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe once its task has accepted it.

    Args:
        recipe: what to check.

    Raises:
        ValueError: if there is no such task, or a section does not fit it.
    """
    get_task(recipe.task).validate(recipe)
    return recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply overrides, and check the recipe by itself and with its task.

    Args:
        path: A YAML file, or a folder that contains `recipe.yaml`.
        overrides: dotted assignments such as `"model.hidden_size=64"`, values in YAML.

    Raises:
        ValueError: if the file is missing or no YAML, a name is unknown, a value is outside its range, or a section
            does not fit the task.
    """
    return check_recipe(Recipe.from_yaml(path, overrides))
