"""Baselines train, resume and are evaluated by the same code as SFT."""

import pytest
import torch

from lab.baselines.point_clouds import PointNetForPointCloudClassification
from modeling_sft.training import evaluate, train
from random_clouds import random_batch
from tiny_recipes import tiny_recipe

BASELINE = (
    "dataset={name: primitives, num_train: 48, num_test: 18, validation_fraction: 0.25}",
    "processor={num_neighbors: 0, use_normals: true, num_points: 30}",
)


def baseline_recipe(name, *overrides):
    settings = ("model={}" if name == "pointnet" else "model={widths: [8, 8]}",)
    return tiny_recipe(*BASELINE, f"baseline={name}", *settings, *overrides)


@pytest.mark.parametrize("name", ["pointnet", pytest.param("dgcnn", marks=pytest.mark.slow)])
def test_from_recipe_to_report(name, tmp_path):
    pytest.importorskip("torch_geometric")
    recipe = baseline_recipe(name)
    log = train(recipe, tmp_path)
    assert log["recipe"]["baseline"] == name
    report = evaluate(tmp_path, rotations=["none", "so3"])
    assert report["num_sampled_tokens"] is None
    assert 0 <= report["results"]["so3"]["accuracy"] <= 1
    assert evaluate(tmp_path, rotations=["none"], split="validation")["results"]["none"]["accuracy"] == pytest.approx(
        log["validation"]["accuracy"]
    )
    assert train(recipe, tmp_path, resume=True) == log
    with pytest.raises(ValueError, match="do not go with the baseline"):
        evaluate(tmp_path, num_sampled_tokens=4)


def test_a_baseline_reads_coordinates_and_normals():
    model = PointNetForPointCloudClassification(PointNetForPointCloudClassification.config_class(num_labels=3)).eval()
    batch = random_batch([20, 20], dtype=torch.float32)
    with torch.no_grad():
        logits = model(**batch).logits
        for name in ("points", "normals"):
            assert not torch.equal(model(**batch | {name: batch[name].flip(-1)}).logits, logits)
    assert logits.shape == (2, 3) and logits.isfinite().all()
    with pytest.raises(ValueError, match="equal size"):
        model(**random_batch([20, 9], dtype=torch.float32))
    with pytest.raises(ValueError, match="`normals` is missing"):
        model(**{name: value for name, value in batch.items() if name != "normals"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("baseline=pointnett",), "has no baseline 'pointnett'; it has pointnet, dgcnn"),
        (("baseline=pointnet", "attn_implementation=eager"), "does not go with `baseline`"),
        (("baseline=pointnet", "model={hidden_size: 64}"), "hidden_size"),
        (("task=point-cloud-segmentation", "baseline=pointnet"), "it has none"),
    ],
)
def test_wrong_recipes_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_recipe(*BASELINE, "model={}", *overrides)
