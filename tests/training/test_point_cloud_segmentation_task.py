"""Training and evaluating a segmentation model, from recipe to report."""

import json

import numpy as np
import pytest
import torch

from modeling_sft import AutoModelForPointCloudSegmentation
from modeling_sft.training import evaluate, format_report, get_task, tasks, train
from tiny_recipes import tiny_recipe

SEGMENTATION = (
    "task=point-cloud-segmentation",
    "dataset={name: primitives, num_train: 24, num_test: 12, validation_fraction: 0.25}",
    "model.num_point_features=0",
    "model.use_normals=true",
    "model.rotation_invariant=true",
    "processor={num_neighbors: 4, use_normals: true, num_points: 40}",
    "training.metric_for_best_model=instance_miou",
)


def segmentation_recipe(*overrides):
    return tiny_recipe(*SEGMENTATION, *overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    log = train(segmentation_recipe(), folder)
    return folder, log


def test_the_model_knows_parts_and_categories(run):
    folder, log = run
    assert set(log["validation"]) >= {"loss", "instance_miou", "class_miou", "accuracy"}
    model = AutoModelForPointCloudSegmentation.from_pretrained(folder)
    task = get_task("point-cloud-segmentation")
    rows = task.load_rows(segmentation_recipe(), None, "train")
    assert model.config.num_categories == len(rows.features["label"].names)
    for category, parts in enumerate(model.config.category_parts):
        prefix = rows.features["label"].names[category] + "/"
        assert {model.config.id2label[part] for part in parts} == {
            name for name in model.config.id2label.values() if name.startswith(prefix)
        }


def test_the_report_gives_shape_and_class_iou_and_no_change_under_rotation(run):
    folder, _ = run
    report = evaluate(folder, batch_size=5, output=folder / "evaluation.json")
    assert json.loads((folder / "evaluation.json").read_text()) == report
    assert report["num_examples"] == 12
    for rotation in ("none", "z", "so3"):
        assert 0 < report["results"][rotation]["instance_miou"] <= 1
    # 480 points; a float32 tie may fall the other way.
    assert report["results"]["so3"]["changed_predictions"] <= 5
    assert "instance miou %" in format_report(report)
    again = evaluate(folder, batch_size=12, rotations=["none"])
    assert again["results"]["none"] == pytest.approx(report["results"]["none"])


def test_predictions_are_parts_of_the_given_category(run):
    folder, _ = run
    task = get_task("point-cloud-segmentation")
    model = AutoModelForPointCloudSegmentation.from_pretrained(folder).eval()
    processor = task.processor_class.from_pretrained(folder)
    data = task.prepare(task.load_rows(segmentation_recipe(), None, "test"), processor, seed=0)
    batch = task.build_collator(processor, model.config)([data[i] for i in range(6)])
    assert batch["labels"].shape == batch["points"].shape[:2]
    with torch.no_grad():
        output = model(**batch)
    predicted = task.preprocess_logits(model.config)(output.logits, (batch["labels"], batch["category"]))
    for row, category in enumerate(batch["category"].tolist()):
        parts = model.config.category_parts[category]
        assert set(predicted[row].tolist()) <= set(parts)
        assert set(batch["labels"][row].tolist()) <= set(parts)


def test_labels_follow_the_points_through_sub_sampling_and_augmentation():
    task = get_task("point-cloud-segmentation")
    points = np.random.default_rng(0).normal(size=(50, 3))
    row = {"points": points, "point_labels": (points[:, 0] > 0).astype(int), "label": 1}
    processor = task.processor_class(num_points=30, do_center=False, do_scale=False, num_neighbors=2)
    recipe = segmentation_recipe("augmentation={scale: [0.5, 2], point_dropout: 0.5}")
    data = task.prepare([row], processor, seed=0, augmentation=task.build_augmentation(recipe))
    item = data[0]
    assert item["category"] == 1 and len(item["points"]) == len(item["point_labels"]) <= 30
    np.testing.assert_array_equal(item["point_labels"], item["points"][:, 0] > 0)


def test_an_official_validation_split_is_used_as_it_is(monkeypatch):
    rows = tasks.point_clouds.load_point_cloud_dataset("primitives", num_train=12, num_test=6)
    splits = {"train": rows["train"].select(range(9)), "validation": rows["train"].select(range(9, 12))}
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir, **options: splits)
    )
    task, recipe = get_task("point-cloud-segmentation"), segmentation_recipe()
    for split, expected in splits.items():
        assert task.load_rows(recipe, None, split) is expected


def test_without_category_the_model_takes_none(tmp_path):
    recipe = segmentation_recipe("dataset.use_category=false", "training.max_steps=2")
    train(recipe, tmp_path)
    model = AutoModelForPointCloudSegmentation.from_pretrained(tmp_path)
    assert model.config.num_categories == 0 and model.config.category_parts is None
    assert 0 <= evaluate(tmp_path, rotations=["none"])["results"]["none"]["instance_miou"] <= 1


def test_data_without_point_labels_are_refused(tmp_path):
    recipe = segmentation_recipe("dataset={name: digits}", "processor.use_normals=false", "model.use_normals=false")
    with pytest.raises(ValueError, match="no labels of points"):
        train(recipe, tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_categories=3", "`model.num_categories` cannot stand in a recipe"),
        ("model.category_parts=[[0]]", "`model.category_parts` cannot stand in a recipe"),
        ("dataset.use_category=1", "must be true or false"),
        ("dataset.num_shapes=3", "num_shapes"),
    ],
)
def test_wrong_settings_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        segmentation_recipe(override)
