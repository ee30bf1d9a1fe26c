"""The published recipes are valid, and build the models they describe."""

import pytest

from modeling_sft.training import Recipe, get_task
from paths import ROOT

RECIPES = sorted((ROOT / "configuration").glob("*/recipe.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_recipes_are_valid(path):
    recipe = Recipe.from_yaml(path)
    task = get_task(recipe.task)
    assert recipe.dataset["name"] in task.readers
    config = task.model_class_of(recipe).config_class(**recipe.model)
    if recipe.baseline is not None:
        return
    # A K that training never saw is no place to start from.
    low, high = config.num_sampled_tokens_range or (config.num_sampled_tokens,) * 2
    assert low <= config.num_sampled_tokens <= high


def test_there_are_published_recipes():
    assert {path.parent.name for path in RECIPES} >= {"digits", "meshes", "shrec16-invariant", "texts"}
