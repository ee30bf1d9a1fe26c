import dataclasses
import re

import pytest
import yaml

from modeling_sft.hub.optional import import_optional
from modeling_sft.training import Recipe, SamplingNoiseSchedule
from modeling_sft.training.recipe import parse_yaml
from tiny_recipes import tiny_recipe, tiny_settings


def test_recipe_survives_saving(tmp_path):
    recipe = tiny_recipe(
        "sampling_noise_schedule={final: 0.1, until: 0.5}", "early_stopping.patience=3", "augmentation.rotation=so3"
    )
    recipe.save(tmp_path / "run")
    assert Recipe.from_yaml(tmp_path / "run") == recipe
    assert recipe.sampling_noise_schedule == SamplingNoiseSchedule(final=0.1, until=0.5)


def test_overrides_replace_add_and_remove(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(tiny_settings("early_stopping.patience=3")))
    recipe = Recipe.from_yaml(
        path,
        ["model.hidden_size=32", "training.learning_rate=1e-4", "augmentation.scale=[0.9, 1.1]", "seed=7"]
        + ["early_stopping=null", "importance_scorer.learning_rate_multiplier=10"],
    )
    assert recipe.model["hidden_size"] == 32
    assert recipe.training["learning_rate"] == 1e-4
    assert recipe.augmentation == {"scale": [0.9, 1.1]}
    assert recipe.seed == 7
    assert recipe.early_stopping is None
    assert recipe.importance_scorer.learning_rate_multiplier == 10


def test_yaml_numbers_and_words():
    values = parse_yaml("{a: 1e-3, b: no, c: true, d: -2E+5, e: 3, f: null}", "text")
    assert values == {"a": 1e-3, "b": "no", "c": True, "d": -2e5, "e": 3, "f": None}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.hidden_size=3", "did you mean `model`"),
        ("model.hiden_size=3", "did you mean `hidden_size`"),
        ("training.learning_rat=3", "did you mean `learning_rate`"),
        ("dataset.validation_fractoin=0.1", "did you mean `validation_fraction`"),
        ("processor.num_neighbor=3", "did you mean `num_neighbors`"),
        ("augmentation.rotaton=z", "did you mean `rotation`"),
        ("importance_scorer.max_grad_nrm=1", "did you mean `max_grad_norm`"),
        ("early_stopping.patiance=1", "did you mean `patience`"),
        ("model.hidden_size=big", "Section `model`"),
        ("model.hidden_size=33", "hidden_size"),
        ("model.num_labels=3", "the data set decides it"),
        ("model.num_neighbors=5", "set both alike"),
        ("training.output_dir=here", "--output_dir"),
        ("training.seed=3", "top-level seed"),
        ("training.learning_rate=fast", "must be a number"),
        ("task=point-clouds", "point-cloud-classification"),
        ("seed=-1", "`seed`"),
        ("dataset.name=null", "`dataset.name`"),
        ("dataset.validation_fraction=1.5", "between 0 and 0.9"),
        ("dataset.train_fraction=1.5", "between 0 and 1"),
        ("dataset.train_fraction=0", "must be positive"),
        ("importance_scorer.learning_rate_multiplier=-1", "at least 0"),
        ("importance_scorer.max_grad_norm=0", "must be positive"),
        ("sampling_noise_schedule.until=0", "must be positive"),
        ("early_stopping.patience=0", "positive integer"),
        ("early_stopping=soon", "must be a mapping"),
        ("model", "must look like"),
        ("seed.x=3", "is a value, not a section"),
        ("model.hidden_size=[1", "not valid YAML"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_recipe(override)


def test_early_stopping_needs_validation_data():
    with pytest.raises(ValueError, match="validation"):
        tiny_recipe("early_stopping.patience=1", "dataset.validation_fraction=0")


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed: 1\nseed: 2\n", "twice"), ("[1, 2]", "mapping"), ("seed: 1", "no `task`"), ("a: [", "not valid YAML")],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.from_yaml(path)


def test_absent_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no recipe"):
        Recipe.from_yaml(tmp_path)


def test_every_field_has_a_default_but_task_and_dataset():
    required = [
        f.name
        for f in dataclasses.fields(Recipe)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    assert required == ["task", "dataset"]


def test_missing_library_names_the_extra():
    with pytest.raises(ImportError, match=re.escape("modeling-sft[train]")):
        import_optional("no_such_library_of_ours", "train")
