"""The published recipes are valid, and build the models they describe."""

import pytest

from modeling_sft.training import get_task, load_recipe
from modeling_sft.training.recipe_files import recipe_paths
from paths import ROOT

RECIPES = recipe_paths(ROOT / "configuration")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid(name):
    recipe = load_recipe(RECIPES[name])
    task = get_task(recipe.task)
    assert recipe.dataset["name"] in task.readers
    config = task.model_class_of(recipe).config_class(**recipe.model)
    if recipe.baseline is not None:
        return
    # A K that training never saw is no place to start from.
    low, high = config.num_sampled_tokens_range or (config.num_sampled_tokens,) * 2
    assert low <= config.num_sampled_tokens <= high


def test_there_are_published_recipes():
    assert set(RECIPES) >= {"digits", "meshes", "modelnet10-vox", "modelnet10-vox-invariant", "nci1-gine", "texts"}
    assert "ablations-nci1" not in RECIPES


def test_results_are_those_of_published_recipes():
    assert {path.stem for path in (ROOT / "docs" / "results").glob("*.json")} <= set(RECIPES)
