"""Training and evaluation on graphs: molecules from tables, nodes of one graph, links."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from modeling_sft import (
    AutoModelForGraphClassification,
    AutoModelForLinkPrediction,
    AutoModelForNodeClassification,
    SFTGraphProcessor,
)
from modeling_sft.data import graph_rows
from modeling_sft.training import Recipe, evaluate, train
from modeling_sft.training.recipe_files import apply_override
from modeling_sft.training.tasks import get_task
from modeling_sft.training.tasks.graphs import LinkPredictionTask, NodeClassificationTask
from modeling_sft.training.trainer import SFTTrainer
from tiny_recipes import tiny_graph_recipe

COLUMNS = {
    "graph-classification": ["smell"],
    "graph-multi-label-classification": ["acid", "amine"],
    "graph-regression": ["weight", "length"],
}
NODE_TASKS = ("node-classification", "link-prediction")
AUTO_CLASSES: dict[str, Any] = dict.fromkeys(COLUMNS, AutoModelForGraphClassification)
AUTO_CLASSES |= {NODE_TASKS[0]: AutoModelForNodeClassification, NODE_TASKS[1]: AutoModelForLinkPrediction}
every_task = pytest.mark.parametrize("task", AUTO_CLASSES)


def write_molecules(path: Path, count: int, seed: int) -> None:
    """Chains of carbon with or without an acid and an amine; some labels and targets are missing."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "smell", "acid", "amine", "weight", "length"])
        for row in range(count):
            length, acid, amine = int(rng.integers(1, 9)), row % 2, int(rng.integers(2))
            smiles = ("N" if amine else "C") + "C" * length + ("C(=O)O" if acid else "CC")
            missing = row % 7 == 3
            writer.writerow(
                [
                    smiles,
                    "sour" if acid else "none",
                    f"{acid}.0",
                    "" if missing else f"{amine}.0",
                    100.0 + 14 * length,
                    "" if missing else length / 10,
                ]
            )


def community_rows(count: int, seed: int, links: bool) -> Any:
    """Graphs of two rings with features that tell the ring of a node, noisily; every third node has no label."""
    rng, graphs = np.random.default_rng(seed), []
    for number in range(count):
        half = 5 + number % 3
        ring = np.arange(half)
        edges = np.stack([ring, (ring + 1) % half])
        edges = np.concatenate([edges, edges[::-1], edges + half, edges[::-1] + half], axis=1)
        community = np.repeat([0, 1], half)
        features = (community[:, None] + 0.3 * rng.normal(size=(2 * half, 2))).astype(np.float32)
        graph = {"node_feat": features, "edge_index": edges}
        if links:
            pairs = rng.integers(2 * half, size=(2, 8))
            graph |= {
                "edge_label_index": pairs,
                "edge_label": (community[pairs[0]] == community[pairs[1]]).astype(int),
            }
        else:
            graph["y"] = np.where(np.arange(2 * half) % 3 == 2, -100, community)
        graphs.append(graph)
    return graph_rows(graphs)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    write_molecules(folder / "train.csv", 40, seed=0)
    write_molecules(folder / "test.csv", 14, seed=1)
    return folder


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks on nodes read rings."""
    for task, links in ((NodeClassificationTask, False), (LinkPredictionTask, True)):
        splits = {"train": community_rows(40, 0, links), "test": community_rows(14, 1, links)}
        monkeypatch.setattr(task, "load_dataset", staticmethod(lambda name, data_dir, splits=splits: splits))


def recipe_of(task: str, *overrides: str) -> Any:
    given = ("dataset.name=peptides_func",) if task in NODE_TASKS else (f"dataset.target_columns={COLUMNS[task]}",)
    if task in NODE_TASKS:
        # Any name will do: the fixture answers.
        given = ("dataset.name=node_csv",)
    return tiny_graph_recipe(f"task={task}", *given, *overrides)


def budgeted(task: str, *overrides: str) -> Any:
    """The recipe with batches of at most 60 padded nodes."""
    settings = recipe_of(task).to_dict()
    settings["training"].pop("per_device_train_batch_size")
    settings["max_tokens_per_batch"] = 60
    for override in overrides:
        apply_override(settings, override)
    return Recipe.from_dict(settings)


def sorted_steps(task: str, *overrides: str) -> Any:
    """The recipe with steps of two batches of 4 graphs, sorted by their nodes."""
    settings = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
    return recipe_of(task, "sort_within_step=true", *settings, *overrides)


@every_task
def test_a_run_trains_evaluates_and_saves_model_and_processor(data: Path, tmp_path: Path, task: str) -> None:
    log = train(recipe_of(task), tmp_path, data)
    metric = get_task(task).main_metric
    assert np.isfinite(log["validation"][metric]) and log["best_checkpoint"].startswith("checkpoint-")
    model = AUTO_CLASSES[task].from_pretrained(tmp_path)
    assert log["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert model.config.num_node_encodings == 5
    processor = SFTGraphProcessor.from_pretrained(tmp_path)
    assert (processor.random_walk_steps, processor.laplacian_vectors) == (3, 2)

    report = evaluate(tmp_path, data, batch_size=5, output=tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report
    (result,) = report["results"].values()
    assert report["task"] == task and report["num_examples"] == 14
    if task.endswith("-classification"):
        assert 0 <= result["roc_auc"] <= 1  # of two classes, or of labels
        assert ("f1" in result) == ("multi-label" not in task)
    again = evaluate(tmp_path, data, batch_size=14)["results"]["none"]
    # Some molecules are equal, and the ranks of their scores follow rounding.
    assert again == pytest.approx(result, rel=2e-2)


@pytest.mark.slow
def test_each_task_learns(data: Path, tmp_path: Path) -> None:
    longer = ("training.max_steps=60", "training.eval_steps=60", "training.save_steps=60", "model.sampling_noise=0")
    reached = {}
    for task in AUTO_CLASSES:
        train(recipe_of(task, *longer), tmp_path / task, data)
        reached[task] = evaluate(tmp_path / task, data)["results"]["none"]
    assert reached["graph-classification"]["accuracy"] > 0.8
    assert reached["graph-multi-label-classification"]["average_precision"] > 0.8
    # The mean of the training data is off by 28 and by .2.
    assert reached["graph-regression"]["mean_absolute_error"] < 10
    assert reached["node-classification"]["accuracy"] > 0.8
    assert reached["link-prediction"]["roc_auc"] > 0.6


def test_a_single_column_is_trained_as_a_label(data: Path, tmp_path: Path) -> None:
    single, classes = "dataset.target_columns=amine", ("dataset.task=classification",)
    with pytest.raises(ValueError, match="A single column of molecules is one by `dataset.task` labels"):
        train(recipe_of("graph-multi-label-classification", "dataset.target_columns=acid", *classes), tmp_path, data)
    labels = ("dataset.task=labels", "training.max_steps=2")
    train(recipe_of("graph-multi-label-classification", single, *labels), tmp_path / "run", data)
    assert AutoModelForGraphClassification.from_pretrained(tmp_path / "run").config.num_labels == 1
    assert 0 <= evaluate(tmp_path / "run", data)["results"]["none"]["roc_auc"] <= 1


def test_the_data_decide_classes_vocabularies_and_the_scale_of_targets(data: Path, tmp_path: Path) -> None:
    train(recipe_of("graph-classification", "training.max_steps=2"), tmp_path / "classes", data)
    config = AutoModelForGraphClassification.from_pretrained(tmp_path / "classes").config
    assert config.id2label == {0: "none", 1: "sour"}
    assert {"node_vocab_sizes": config.node_vocab_sizes, "edge_vocab_sizes": config.edge_vocab_sizes} == (
        SFTGraphProcessor.molecule_vocab_sizes()
    )
    train(recipe_of("graph-regression", "training.max_steps=2"), tmp_path / "numbers", data)
    config = AutoModelForGraphClassification.from_pretrained(tmp_path / "numbers").config
    assert config.num_labels == 2 and 120 < config.target_mean[0] < 210 and 10 < config.target_scale[0] < 60
    assert 0.1 < config.target_mean[1] < 0.9 and 0.05 < config.target_scale[1] < 0.5


def test_descriptors_are_normalised_by_the_training_data(data: Path, tmp_path: Path) -> None:
    names = ("processor.descriptors=[amw, NumRings]", "training.max_steps=2")
    train(recipe_of("graph-classification", *names), tmp_path, data)
    config = AutoModelForGraphClassification.from_pretrained(tmp_path).config
    assert config.num_graph_features == 2 and 70 < config.graph_feature_mean[0] < 170
    # No molecule has a ring: the column never changes.
    assert (config.graph_feature_mean[1], config.graph_feature_scale[1]) == (0.0, 1.0)
    answers = pipeline("graph-classification", model=str(tmp_path))(["CCCC(=O)O", "C1CCCCC1"])
    assert {answer[0]["label"] for answer in answers} <= {"none", "sour"}
    evaluate(tmp_path, data)


def test_batches_stay_within_their_tokens(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, original = [], SFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(inputs["attention_mask"].shape))
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    train(budgeted("graph-regression", "training.num_train_epochs=2", "training.max_steps=-1"), tmp_path, data)
    assert all(rows * nodes <= 60 for rows, nodes in shapes)
    # Two epochs of the 30 training molecules.
    assert sum(rows for rows, _ in shapes) == 60 and len({rows for rows, _ in shapes}) > 1


def test_the_limit_of_tokens_is_checked() -> None:
    with pytest.raises(ValueError, match="does not go with `max_tokens_per_batch`"):
        recipe_of("graph-regression", "max_tokens_per_batch=60")
    with pytest.raises(ValueError, match="use a number of at least 1"):
        budgeted("graph-regression", "max_tokens_per_batch=0")


@pytest.mark.parametrize("override", ["model.norm_type=batch", "baseline=gine", "baseline=gps"])
def test_batch_norm_does_not_go_with_batches_by_length(data: Path, tmp_path: Path, override: str) -> None:
    with pytest.raises(ValueError, match="Batch norm does not go with"):
        train(budgeted("graph-regression", override), tmp_path, data)
    grouped = recipe_of("graph-regression", override, "training.train_sampling_strategy=group_by_length")
    with pytest.raises(ValueError, match="Batch norm does not go with"):
        train(grouped, tmp_path, data)
    with pytest.raises(ValueError, match="Batch norm does not go with"):
        train(sorted_steps("graph-regression", override), tmp_path, data)
    assert not list(tmp_path.iterdir())
    train(recipe_of("graph-regression", override, "training.max_steps=1"), tmp_path / "random", data)


@pytest.mark.slow
def test_sorting_within_a_step_saves_padding_and_leaves_its_gradient(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, original = [], SFTTrainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        nodes.append(inputs["attention_mask"].sum(1).tolist())
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    # All 30 molecules are one step, with eight batches or a single one; without noise both draw the same samples.
    plain = ("training.max_steps=1", "model.sampling_noise=0", "training.optim=sgd", "training.max_grad_norm=1e9")
    plain = (*plain, "training.eval_steps=1", "training.save_steps=1")
    for name, recipe in {
        "sorted": sorted_steps("graph-regression", *plain, "training.gradient_accumulation_steps=8"),
        "whole": recipe_of("graph-regression", *plain, "training.per_device_train_batch_size=30"),
    }.items():
        train(recipe, tmp_path / name, data)
    *batches, whole = nodes
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 4, 3, 3]
    assert sum(batches, []) == sorted(whole) and sum(len(b) * max(b) for b in batches) < 30 * max(whole)
    gradients = [load_file(tmp_path / name / "model.safetensors") for name in ("sorted", "whole")]
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_sorting_within_a_step_needs_several_batches_and_no_other_order() -> None:
    with pytest.raises(ValueError, match="set `training.gradient_accumulation_steps` above 1"):
        recipe_of("graph-regression", "sort_within_step=true")
    with pytest.raises(ValueError, match="does not go with"):
        sorted_steps("graph-regression", "training.train_sampling_strategy=group_by_length")
    with pytest.raises(ValueError, match="does not go with"):
        budgeted("graph-regression", "sort_within_step=true", "training.gradient_accumulation_steps=2")
    with pytest.raises(ValueError, match="use true or false"):
        recipe_of("graph-regression", "sort_within_step=3")


@pytest.mark.slow
@every_task
@pytest.mark.parametrize("batches", ["rows", "tokens", "sorted"])
def test_an_interrupted_run_resumes_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, batches: str
) -> None:
    recipe = {"rows": recipe_of, "tokens": budgeted, "sorted": sorted_steps}[batches](
        task, "model.hidden_dropout_prob=0.1"
    )
    train(recipe, tmp_path / "whole", data)
    calls, original = iter(range(1, 10**9)), SFTTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(SFTTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", data)
    train(recipe, tmp_path / "cut", data, resume=True)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize("baseline", ["gine", "gps"])
@pytest.mark.parametrize("task", COLUMNS)
def test_baselines_train_by_the_same_script(data: Path, tmp_path: Path, task: str, baseline: str) -> None:
    recipe = recipe_of(task, f"baseline={baseline}", "training.max_steps=2")
    log = train(recipe, tmp_path, data)
    assert np.isfinite(log["validation"]["loss"])
    assert evaluate(tmp_path, data)["num_examples"] == 14


@pytest.mark.parametrize(
    ("task", "columns", "message"),
    [
        ("graph-classification", ["weight", "length"], "no classes in its column `y`"),
        ("graph-regression", ["smell"], "no lists of numbers in its column `y`"),
        ("node-classification", ["smell"], "no classes of nodes"),
        ("link-prediction", ["smell"], "no pairs of nodes"),
    ],
)
def test_data_that_do_not_fit_the_task_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, columns: list[str], message: str
) -> None:
    monkeypatch.undo()
    with pytest.raises(ValueError, match=message):
        train(tiny_graph_recipe(f"task={task}", f"dataset.target_columns={columns}"), tmp_path, data)


def test_evaluation_on_other_targets_is_refused(data: Path, tmp_path: Path) -> None:
    train(recipe_of("graph-regression", "training.max_steps=2"), tmp_path / "run", data)
    write_molecules(tmp_path / "train.csv", 8, seed=0)
    text = (tmp_path / "train.csv").read_text().replace(",length", ",breadth")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(ValueError, match="length"):
        evaluate(tmp_path / "run", tmp_path)
