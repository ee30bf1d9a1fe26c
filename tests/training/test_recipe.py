import re

import pytest
import yaml

from modeling_sft.hub.optional import import_optional
from modeling_sft.training import EarlyStopping, Recipe, SamplingNoiseSchedule, load_recipe, train
from modeling_sft.training.recipe_files import parse_yaml, recipe_name
from modeling_sft.training.tasks.point_clouds import PointCloudTask
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
        ("modle.hidden_size=3", "Unknown recipe name `modle`: did you mean `model`?"),
        ("model.hiden_size=3", "`hiden_size` in section `model`: did you mean `hidden_size`?"),
        ("training.learning_rat=3", "`learning_rat` in section `training`: did you mean `learning_rate`?"),
        ("dataset.validation_fractoin=0.1", "did you mean `validation_fraction`?"),
        ("processor.num_neighbor=3", "`num_neighbor` in section `processor`: did you mean `num_neighbors`?"),
        ("augmentation.rotaton=z", "`rotaton` in section `augmentation`: did you mean `rotation`?"),
        ("importance_scorer.max_grad_nrm=1", "in section `importance_scorer`: did you mean `max_grad_norm`?"),
        ("early_stopping.patiance=1", "`patiance` in section `early_stopping`: did you mean `patience`?"),
        ("sampling_noise_schedule.finale=1", "in section `sampling_noise_schedule`: did you mean `final`?"),
        ("model.hidden_size=big", "Section `model`"),
        ("model.hidden_size=33", "hidden_size"),
        ("model.num_labels=3", "the data set decides it"),
        ("model.num_neighbors=5", "set both alike"),
        ("training.output_dir=here", "--output_dir"),
        ("training.seed=3", "top-level seed"),
        ("training.learning_rate=fast", "`training.learning_rate` is 'fast': use a number."),
        ("task=point-clouds", "point-cloud-classification"),
        ("task=3", "`task` is 3: use a name."),
        ("seed=-1", "`seed` is -1: use a number of at least 0."),
        ("seed=4294967296", "`seed` is 4294967296: use a number below 4294967296."),
        ("seed=true", "`seed` is True: use an integer."),
        ("seed=1.5", "`seed` is 1.5: use an integer."),
        ("baseline=[1]", "`baseline` is [1]: use a name, or null."),
        ("attn_implementation=fast", "use null or one of"),
        ("max_tokens_per_batch=0", "`max_tokens_per_batch` is 0: use a number of at least 1, or null."),
        ("sort_within_step=1", "`sort_within_step` is 1: use true or false."),
        ("sort_within_step=true", "set `training.gradient_accumulation_steps` above 1"),
        ("dataset.name=null", "`dataset.name` is None: use a name."),
        ("dataset={}", "`dataset.name` is missing: add it to the recipe."),
        ("dataset.validation_fraction=1.5", "`dataset.validation_fraction` is 1.5: use a number of at most 0.9."),
        ("dataset.validation_fraction=.nan", "`dataset.validation_fraction` is nan: use a number"),
        ("dataset.train_fraction=1.5", "`dataset.train_fraction` is 1.5: use a number of at most 1.0."),
        ("dataset.train_fraction=0", "`dataset.train_fraction` is 0: use a number above 0.0."),
        ("importance_scorer.learning_rate_multiplier=-1", "is -1: use a number of at least 0.0."),
        ("importance_scorer.learning_rate_multiplier='1'", "is '1': use a number."),
        (
            "importance_scorer.max_grad_norm=0",
            "`importance_scorer.max_grad_norm` is 0: use a number above 0.0, or null.",
        ),
        ("sampling_noise_schedule.until=0", "`sampling_noise_schedule.until` is 0: use a number above 0.0."),
        ("early_stopping.patience=0", "`early_stopping.patience` is 0: use a number of at least 1."),
        ("early_stopping.patience=1e400", "`early_stopping.patience` is inf: use an integer."),
        ("early_stopping=soon", "`early_stopping` is 'soon': use a mapping of names to values, or null."),
        ("model=3", "`model` is 3: use a mapping of names to values."),
        ("training={3: 4}", "Unknown recipe name `3` in section `training`"),
        ("early_stopping={3: 4}", "Unknown recipe name `3` in section `early_stopping`"),
        ("training.max_steps=true", "`training.max_steps` is True: use a number."),
        ("base=other.yaml", "Unknown recipe name `base`"),
        ("model", "must look like"),
        ("seed.x=3", "is a value, not a section"),
        ("model.hidden_size=[1", "not valid YAML"),
    ],
)
def test_wrong_settings_are_refused_with_a_remedy(override, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        tiny_recipe(override)
    assert "pydantic" not in str(refusal.value)
    if "not valid YAML" not in message and "Section `model`" not in message and override != "model.hidden_size=33":
        assert "\n" not in str(refusal.value)


def test_early_stopping_needs_validation_data():
    with pytest.raises(ValueError, match="validation"):
        tiny_recipe("early_stopping.patience=1", "dataset.validation_fraction=0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "twice"),
        ("[1, 2]", "mapping"),
        ("seed: 1", "`task` is missing: add it to the recipe."),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.from_yaml(path)


def test_absent_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no recipe"):
        Recipe.from_yaml(tmp_path)


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "digits" / "sft.yaml"
    path.parent.mkdir()
    settings = tiny_settings("early_stopping.patience=3", "augmentation.rotation=so3", "model.sampling_noise=0.5")
    path.write_text(yaml.safe_dump(settings))
    return path


def written(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_base_gives_what_a_recipe_leaves_out(base):
    path = written(base.with_name("peer.yaml"), "base: sft.yaml\nseed: 5\nmodel: {hidden_size: 32, norm_type: rms}\n")
    expected = Recipe.from_yaml(base, ["seed=5", "model.hidden_size=32", "model.norm_type=rms"])
    assert load_recipe(path) == expected
    assert load_recipe(path, ["seed=6", "model.hidden_size=16"]).model == expected.model | {"hidden_size": 16}


def test_base_lies_relative_to_the_recipe(base, tmp_path, monkeypatch):
    path = written(tmp_path / "other" / "sft.yaml", "base: ../digits/sft.yaml\n")
    monkeypatch.chdir(tmp_path / "other")
    assert Recipe.from_yaml(path) == Recipe.from_yaml(base) == Recipe.from_yaml("sft.yaml")


def test_null_removes_a_setting_of_the_base(base):
    text = "base: sft.yaml\nearly_stopping: null\naugmentation: null\nmodel: {sampling_noise: null, hidden_size: 32}\n"
    recipe, of_base = Recipe.from_yaml(written(base.with_name("peer.yaml"), text)), Recipe.from_yaml(base)
    assert of_base.early_stopping == EarlyStopping(patience=3) and recipe.early_stopping is None
    assert of_base.augmentation and not recipe.augmentation
    assert set(of_base.model) - set(recipe.model) == {"sampling_noise"} and recipe.model["hidden_size"] == 32


def test_null_stays_a_value_where_the_base_sets_none(base):
    path = written(base.with_name("peer.yaml"), "base: sft.yaml\nmodel: {num_sampled_tokens_range: null}\n")
    assert Recipe.from_yaml(path).model == Recipe.from_yaml(base).model | {"num_sampled_tokens_range": None}


def test_recipe_with_a_base_is_saved_without(base, tmp_path):
    recipe = Recipe.from_yaml(written(base.with_name("peer.yaml"), "base: sft.yaml\nseed: 5\n"))
    recipe.save(tmp_path / "run")
    assert "base" not in yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    base.unlink()
    assert Recipe.from_yaml(tmp_path / "run") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: peer.yaml", "third.yaml`, has the `base` 'sft.yaml' itself: name a file without one."),
        ("base: sf.yaml", "sf.yaml`, and there is no such file"),
        ("base: ..", "and there is no such file"),
        ("base: /dev/zero", "names `/dev/zero`, and there is no such file"),
        ("base: [sft.yaml]", "is ['sft.yaml']: use the path of a recipe file"),
        ("base: list.yaml", "list.yaml` must hold a mapping"),
        ("base: broken.yaml", "broken.yaml` is not valid YAML"),
        ("base: latin.yaml", "latin.yaml` cannot be read"),
        ("base: sft.yaml\nmodel: {hiden_size: 32}", "did you mean `hidden_size`?"),
        (
            "base: sft.yaml\nearly_stopping: {patience: 0}",
            "`early_stopping.patience` is 0: use a number of at least 1.",
        ),
        ("base: sft.yaml\ntask: null", "`task` is missing: add it to the recipe."),
        ("base: sft.yaml\nmodel: 3", "`model` is 3: use a mapping"),
    ],
)
def test_wrong_bases_are_refused(base, text, message):
    written(base.with_name("peer.yaml"), "base: sft.yaml\n")
    written(base.with_name("list.yaml"), "[1]")
    written(base.with_name("broken.yaml"), "a: [")
    base.with_name("latin.yaml").write_bytes(b"task: \xff")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_recipe(written(base.with_name("third.yaml"), text))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("nci1/sft.yaml", "nci1"),
        ("nci1/gine.yaml", "nci1-gine"),
        ("modelnet10-vox/pointnet-aligned.yaml", "modelnet10-vox-pointnet-aligned"),
        ("runs/seed=1/recipe.yaml", "seed=1"),
    ],
)
def test_name_of_a_recipe(path, name):
    assert recipe_name(path) == name


def test_name_of_a_folder_with_a_recipe(tmp_path):
    tiny_recipe().save(tmp_path / "digits.old")
    assert recipe_name(tmp_path / "digits.old") == "digits.old"


def test_sections_check_themselves():
    with pytest.raises(ValueError, match=r"^`early_stopping.patience` is 0: use a number of at least 1.$"):
        EarlyStopping(patience=0)


def test_training_asks_the_task_before_any_work(tmp_path, monkeypatch):
    recipe = Recipe.from_dict(tiny_settings("model.hiden_size=32"))
    monkeypatch.setattr(PointCloudTask, "load_dataset", lambda *_: pytest.fail("data were read"))
    with pytest.raises(ValueError, match="did you mean `hidden_size`"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_field_has_a_default_but_task_and_dataset():
    required = [name for name, field in Recipe.model_fields.items() if field.is_required()]
    assert required == ["task", "dataset"]


def test_missing_library_names_the_extra():
    with pytest.raises(ImportError, match=re.escape("modeling-sft[train]")):
        import_optional("no_such_library_of_ours", "train")
