"""Training that starts from a trained model: of graphs and of point clouds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_sft import AutoModelForGraphClassification, AutoModelForPointCloudClassification
from modeling_sft.training import evaluate, train
from tiny_recipes import tiny_graph_recipe, tiny_recipe

FROZEN = ("training.learning_rate=0", "training.max_steps=2")


def write_molecules(path: Path, count: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "acid", "amine", "weight", "smell"])
        for row in range(count):
            chain, acid, amine = "C" * (1 + row % 5), row % 2, row // 2 % 2
            smiles = ("N" if amine else "C") + chain + ("C(=O)O" if acid else "CC")
            writer.writerow([smiles, f"{acid}.0", f"{amine}.0", 60.0 + 14 * len(chain), "sour" if acid else "none"])


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    write_molecules(folder / "train.csv", 24)
    write_molecules(folder / "test.csv", 8)
    return folder


@pytest.fixture(scope="module")
def graph_model(molecules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two labels per molecule."""
    folder = tmp_path_factory.mktemp("graphs") / "run"
    task = ("task=graph-multi-label-classification", "dataset.target_columns=[acid, amine]")
    train(tiny_graph_recipe(*task, "seed=5"), folder, molecules)
    return folder


def write_clouds(folder: Path, num_classes: int) -> Path:
    rng = np.random.default_rng(num_classes)
    for split, number in ((split, number) for split in ("train", "test") for number in range(4 * num_classes)):
        path = folder / split / f"class{number % num_classes}" / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(size=(20, 3)))
    return folder


CLOUDS = ("dataset.name=folder", "dataset.validation_fraction=0.25", "model.num_point_features=0")


@pytest.fixture(scope="module")
def cloud_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three classes of clouds."""
    folder = tmp_path_factory.mktemp("clouds")
    train(tiny_recipe("seed=5", "training.max_steps=2", *CLOUDS), folder / "run", write_clouds(folder / "data", 3))
    return folder / "run"


def assert_same_backbones(first: Path, second: Path) -> None:
    weights = [load_file(folder / "model.safetensors") for folder in (first, second)]
    names = [[name for name in each if name.startswith("sft.")] for each in weights]
    assert names[0] == names[1] != [] and all(torch.equal(weights[0][name], weights[1][name]) for name in names[0])


def fine_tuned_graphs(graph_model: Path, *overrides: str, fields: tuple[str, ...] = ()) -> Any:
    recipe = tiny_graph_recipe(f"pretrained={graph_model}", *overrides)
    # Fields that the recipe leaves out stay those of the pretrained model.
    recipe.model = {name: value for name, value in recipe.model.items() if name in fields}
    return recipe


def test_the_same_task_goes_on_with_backbone_and_head(molecules: Path, tmp_path: Path, graph_model: Path) -> None:
    task = ("task=graph-multi-label-classification", "dataset.target_columns=[acid, amine]", *FROZEN)
    train(fine_tuned_graphs(graph_model, *task), tmp_path, molecules)
    whole, trained = (load_file(folder / "model.safetensors") for folder in (graph_model, tmp_path))
    assert whole.keys() == trained.keys() and all(torch.equal(trained[name], whole[name]) for name in whole)


def test_another_task_takes_the_backbone_and_a_new_head(molecules: Path, tmp_path: Path, graph_model: Path) -> None:
    task = ("task=graph-regression", "dataset.target_columns=[weight]", "model.num_sampled_tokens=4", *FROZEN)
    train(fine_tuned_graphs(graph_model, *task, fields=("num_sampled_tokens",)), tmp_path, molecules)
    model = AutoModelForGraphClassification.from_pretrained(tmp_path)
    assert model.config.problem_type == "regression" and model.config.num_labels == 1
    assert model.config.num_sampled_tokens == 4 and model.config.hidden_size == 16
    assert 60 < model.config.target_mean[0] < 140
    assert_same_backbones(tmp_path, graph_model)
    assert np.isfinite(evaluate(tmp_path, molecules)["results"]["none"]["mean_absolute_error"])


@pytest.mark.slow
def test_what_the_earlier_head_was_for_is_forgotten(molecules: Path, tmp_path: Path, graph_model: Path) -> None:
    numbers = ("task=graph-regression", "dataset.target_columns=[weight]", *FROZEN)
    train(fine_tuned_graphs(graph_model, *numbers), tmp_path / "numbers", molecules)
    assert AutoModelForGraphClassification.from_pretrained(tmp_path / "numbers").config.id2label == {0: "weight"}
    labels = ("task=graph-multi-label-classification", "dataset.target_columns=[acid]", *FROZEN)
    train(fine_tuned_graphs(tmp_path / "numbers", *labels), tmp_path / "labels", molecules)
    config = AutoModelForGraphClassification.from_pretrained(tmp_path / "labels").config
    assert config.problem_type == "multi_label_classification" and config.id2label == {0: "acid"}
    assert config.target_mean is None and config.target_scale is None
    classes = ("task=graph-classification", "dataset.target_columns=[smell]", *FROZEN)
    train(fine_tuned_graphs(tmp_path / "numbers", *classes), tmp_path / "classes", molecules)
    config = AutoModelForGraphClassification.from_pretrained(tmp_path / "classes").config
    assert config.problem_type is None and config.id2label == {0: "none", 1: "sour"} and config.target_mean is None
    two_labels = (labels[0], "dataset.target_columns=[acid, amine]", *FROZEN)
    train(fine_tuned_graphs(tmp_path / "classes", *two_labels), tmp_path / "again", molecules)
    config = AutoModelForGraphClassification.from_pretrained(tmp_path / "again").config
    assert config.id2label == {0: "acid", 1: "amine"} and config.problem_type == "multi_label_classification"


def test_half_precision_weights_are_trained_in_float32(molecules: Path, tmp_path: Path, graph_model: Path) -> None:
    model = AutoModelForGraphClassification.from_pretrained(graph_model)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    task = ("task=graph-multi-label-classification", "dataset.target_columns=[acid, amine]", "training.max_steps=2")
    train(fine_tuned_graphs(tmp_path / "half", *task), tmp_path / "run", molecules)
    assert {value.dtype for value in load_file(tmp_path / "run" / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("processor.random_walk_steps=5", r"weights of other shapes .*sft\.embeddings.*: remove the fields"),
        ("model.num_hidden_layers=3", r"weights of other shapes .*sft\.encoder.*, \.\.\.\): remove the fields"),
    ],
)
def test_another_backbone_is_refused(
    molecules: Path, tmp_path: Path, graph_model: Path, override: str, message: str
) -> None:
    task = ("task=graph-multi-label-classification", "dataset.target_columns=[acid, amine]", override)
    with pytest.raises(ValueError, match=message):
        train(fine_tuned_graphs(graph_model, *task, fields=("num_hidden_layers",)), tmp_path, molecules)
    assert not list(tmp_path.iterdir())


def fine_tuned_clouds(cloud_model: Path, *overrides: str) -> Any:
    recipe = tiny_recipe(f"pretrained={cloud_model}", *CLOUDS, *FROZEN, *overrides)
    recipe.model = {}
    return recipe


def test_clouds_of_other_classes_take_the_backbone(tmp_path: Path, cloud_model: Path) -> None:
    train(fine_tuned_clouds(cloud_model), tmp_path / "run", write_clouds(tmp_path / "data", 2))
    model = AutoModelForPointCloudClassification.from_pretrained(tmp_path / "run")
    assert model.config.id2label == {0: "class0", 1: "class1"} and model.config.num_neighbors == 4
    assert_same_backbones(tmp_path / "run", cloud_model)


def test_neighbors_must_be_those_of_the_pretrained_clouds(tmp_path: Path, cloud_model: Path) -> None:
    recipe = fine_tuned_clouds(cloud_model, "processor.num_neighbors=5", "model.num_neighbors=5")
    with pytest.raises(ValueError, match=r"`processor.num_neighbors` \(5\) and `model.num_neighbors` \(4\) differ"):
        train(recipe, tmp_path / "run", write_clouds(tmp_path / "data", 2))
