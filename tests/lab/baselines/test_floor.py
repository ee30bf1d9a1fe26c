"""The floor: features of texts, graphs, molecules and clouds, and classical methods from recipe to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lab.baselines.floor.heads import class_scores, fit_scores
from modeling_sft.cli import main
from modeling_sft.graph.molecules import graph_to_molecule, parse_smiles, smiles_to_graph
from modeling_sft.point_cloud.augmentation import random_rotation
from modeling_sft.training import Recipe, check_recipe, evaluate, format_summary, get_task, repeat, train
from modeling_sft.training.estimators import EstimatorRun, TrainingData
from modeling_sft.training.evaluation import open_run
from modeling_sft.training.recipe_files import apply_override

TEXTS: dict[str, Any] = {
    "task": "sequence-classification",
    "baseline": "hashed_counts",
    "dataset": {"name": "text_files", "validation_fraction": 0.25},
    "model": {"num_bins": 512},
    "processor": {"tokenizer": "bytes", "max_length": 24},
}
GRAPHS: dict[str, Any] = {
    "task": "graph-classification",
    "baseline": "hashed_counts",
    "dataset": {"name": "smiles_files", "validation_fraction": 0.25},
}
CLOUDS: dict[str, Any] = {
    "task": "point-cloud-classification",
    "baseline": "shape_histograms",
    "dataset": {"name": "primitives", "num_train": 24, "num_test": 9, "validation_fraction": 0.25},
    "model": {"num_pairs": 200},
}
SMILES = ("C[N+](=O)[O-]", "c1cc[nH]c1", "CC#N", "[Na+].[Cl-]", "N[C@@H](C)C(=O)O", "C1CC2CC1C=C2", "[CH3]")


def recipe_of(settings: dict[str, Any], *overrides: str) -> Recipe:
    settings = yaml.safe_load(yaml.safe_dump(settings))
    for override in overrides:
        apply_override(settings, override)
    return check_recipe(Recipe.from_dict(settings))


def estimator_of(settings: dict[str, Any], *overrides: str) -> Any:
    recipe = recipe_of(settings, *overrides)
    return get_task(recipe.task).build_estimator(recipe)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose class is one of their words, and molecules with missing labels."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 12)):
        words = rng.choice(["red", "green", "blue"], (count, 2))
        lines = [f"{a} {('oak', 'hen')[i % 2]} {b},{('plant', 'animal')[i % 2]}" for i, (a, b) in enumerate(words)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]))
    molecules = folder / "molecules"
    molecules.mkdir()
    for split, count in (("train", 40), ("validation", 12), ("test", 12)):
        lines = ["smiles,acid,amine,length"]
        for row in range(count):
            length, acid, amine = int(rng.integers(1, 9)), row % 2, row // 2 % 2
            smiles = ("N" if amine else "C") + "C" * length + ("C(=O)O" if acid else "CC")
            lines.append(f"{smiles},{acid}.0,{'' if row % 5 == 3 else f'{amine}.0'},{length / 10}")
        (molecules / f"{split}.csv").write_text("\n".join(lines))
    return folder


def test_texts_from_recipe_to_report(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(TEXTS)
    log = train(recipe, tmp_path / "run", data)
    assert log["choice"] == log["choices"][0]["choice"] and log["num_parameters"] is None
    assert log["validation"]["accuracy"] == max(each["validation"]["accuracy"] for each in log["choices"]) == 1
    # Nothing is stored that would have to be trusted.
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["recipe.yaml", "training_log.json"]
    report = evaluate(tmp_path / "run", data, split="validation")
    assert report["results"]["none"] == log["validation"] and report["num_parameters"] is None
    assert train(recipe, tmp_path / "run", data, resume=True) == log
    with pytest.raises(ValueError, match="is not empty"):
        train(recipe, tmp_path / "run", data)
    assert main(["evaluate", str(tmp_path / "run"), "--data_dir", str(data)]) == 0


def test_the_choice_is_that_of_the_run(data: Path, tmp_path: Path) -> None:
    train(recipe_of(TEXTS), tmp_path, data)
    log = json.loads((tmp_path / "training_log.json").read_text())
    margins = []
    for strength in (1.0, 64.0):
        (tmp_path / "training_log.json").write_text(json.dumps(log | {"choice": {"strength": strength}}))
        run = open_run(tmp_path)
        scores = np.asarray(run.predict(run.prepare(run.load_rows(data))).predictions)
        margins.append(np.ptp(scores, axis=1).mean())
    assert margins[0] < margins[1]
    (tmp_path / "training_log.json").unlink()
    with pytest.raises(ValueError, match=r"no finished run .*training_log\.json.*--resume"):
        evaluate(tmp_path, data)


def test_texts_are_cut_as_for_models_and_begin_with_a_mark() -> None:
    def counts(text: str, *overrides: str) -> np.ndarray:
        return estimator_of(TEXTS, *overrides).features([{"text": text}]).toarray()[0]

    assert (
        counts("abcd é longer than that", "processor.max_length=6") == counts("abcd", "processor.max_length=6")
    ).all()
    # The mark, the word, and the pair of both.
    assert counts("one").sum() == 3
    symbols = ("processor={tokenizer: list_ops, max_length: 2}",)
    assert (counts("[MAX 3 4 ]", *symbols) == counts("[MAX 3", *symbols)).all()


def test_frequencies_of_words_come_from_all_texts(data: Path) -> None:
    share = estimator_of(TEXTS, "dataset.train_fraction=0.3")
    run = EstimatorRun(share, get_task("sequence-classification"), data)
    assert run.data.background.shape[0] == 36 and run.data.features.shape[0] == len(run.data.targets) == 11
    rows = share.features([{"text": "red oak blue"}])
    alone = share.fit({"strength": 4.0}, run.data._replace(background=run.data.features))
    assert not np.allclose(run.fit({"strength": 4.0})(rows), alone(rows))


def test_colours_of_graphs_know_neither_order_nor_direction() -> None:
    graphs = estimator_of(GRAPHS)
    row = smiles_to_graph("CC(=O)Nc1ccccc1O")
    order = np.random.default_rng(0).permutation(row["num_nodes"])
    moved = row | {"node_feat": row["node_feat"][order], "edge_index": np.argsort(order)[row["edge_index"]][::-1]}
    other = row | {"edge_attr": np.zeros_like(row["edge_attr"])}
    found = graphs.features([row, moved, other])
    assert found.sum(axis=1).tolist() == [4 * row["num_nodes"]] * 3
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any()
    # Without categories the degrees are the first colours: a path and a star of four nodes differ.
    path, star = ([[0, 1, 2], [1, 2, 3]], [[0, 0, 0], [1, 2, 3]])
    found = graphs.features([{"num_nodes": 4, "edge_index": np.array(edges)} for edges in (path, star)])
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("smiles", SMILES)
def test_molecules_of_rows_have_the_fingerprints_of_their_smiles(smiles: str) -> None:
    fingerprints = pytest.importorskip("rdkit.Chem.rdFingerprintGenerator")
    describe = pytest.importorskip("rdkit.Chem.rdMolDescriptors").Properties(["CrippenClogP", "NumRings", "Phi"])
    made, read = graph_to_molecule(smiles_to_graph(smiles)), parse_smiles(smiles)
    for radius in (2, 3):
        generator = fingerprints.GetMorganGenerator(radius=radius, fpSize=2048)
        expected = generator.GetCountFingerprintAsNumPy(read)
        assert (generator.GetCountFingerprintAsNumPy(made) == expected).all()
    np.testing.assert_allclose(describe.ComputeProperties(made), describe.ComputeProperties(read), rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "columns", "metric", "bound"),
    [
        ("graph-multi-label-classification", "[acid, amine]", "roc_auc", 0.99),
        ("graph-regression", "[length]", None, 0.1),
    ],
)
def test_molecules_from_recipe_to_report(
    task: str, columns: str, metric: str | None, bound: float, data: Path, tmp_path: Path
) -> None:
    kind = "regression" if metric is None else "classification"
    dataset = f"dataset={{name: smiles_files, task: {kind}, target_columns: {columns}}}"
    overrides = [f"task={task}", "baseline=fingerprints", dataset, "model={num_bins: 64, properties: true}"]
    recipe = recipe_of(GRAPHS, *overrides, *([f"training={{metric_for_best_model: {metric}}}"] if metric else []))
    log = train(recipe, tmp_path, data / "molecules")
    assert {each["choice"]["method"] for each in log["choices"]} == {"forest", "boosting"}
    found = [each["validation"][metric or "mean_absolute_error"] for each in log["choices"]]
    assert found == sorted(found, reverse=metric is not None) and log["choice"] == log["choices"][0]["choice"]
    results = evaluate(tmp_path, data / "molecules")["results"]["none"]
    assert results["roc_auc"] > bound if metric else results["mean_absolute_error"] < bound


def test_labels_that_are_missing_or_constant_are_no_obstacle() -> None:
    features = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    targets = np.stack([features[:, 0], np.ones(20), features[:, 1]], axis=1)
    targets[3:17, 2] = np.nan
    data = TrainingData(features, targets, 3, features)
    scores = fit_scores("forest", "graph-multi-label-classification", data, 0)(np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(scores.round(), [[1, 1, 0], [0, 1, 1]])


def test_a_class_without_training_rows_is_never_predicted() -> None:
    features = np.array([[0.0], [0.1], [1.0], [1.1]], dtype=np.float32)
    for method in ("forest", "svm"):
        data = TrainingData(features, np.array([0, 0, 2, 2]), 4, features)
        scores = fit_scores(method, "graph-classification", data, 0, strength=100.0)(features)
        assert scores.shape == (4, 4) and not set(scores.argmax(-1)) & {1, 3}
    assert class_scores(*_two_planes(), 2).argmax(-1).tolist() == [0, 1]


def _two_planes() -> tuple[Any, np.ndarray]:
    svm = pytest.importorskip("sklearn.svm")
    features = np.array([[-1.0], [1.0]])
    return svm.LinearSVC().fit(features, [0, 1]), features


def test_histograms_know_no_rotation_but_cells_do() -> None:
    rng = np.random.default_rng(0)
    points, normals = rng.normal(size=(2, 50, 3)) * [1.0, 2.0, 3.0]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    turn = np.asarray(random_rotation("so3", rng))
    rows = [
        {"points": points, "normals": normals},
        {"points": 5 + 2 * points @ turn.T, "normals": -normals @ turn.T},
        {"points": points, "normals": normals[::-1]},
    ]
    found = estimator_of(CLOUDS).features(rows)
    # Rounding may move a pair over the edge of a bin.
    assert np.abs(found[0] - found[1]).sum() < 0.1 < 0.3 < np.abs(found[0] - found[2]).sum()
    cells = estimator_of(CLOUDS, "model.coordinates=true").features(rows)[:, found.shape[1] :]
    assert np.allclose(cells.sum(axis=1), 1) and np.abs(cells[0] - cells[1]).sum() > 0.5
    with pytest.raises(ValueError, match="Row 0 has no `normals`"):
        estimator_of(CLOUDS).features([{"points": points}])


def test_clouds_are_evaluated_under_rotations_and_repeated(tmp_path: Path) -> None:
    path = tmp_path / "floor.yaml"
    path.write_text(yaml.safe_dump(CLOUDS))
    summary = repeat(path, "seed", ["1"], tmp_path / "runs")
    assert summary["baseline"] == "shape_histograms" and summary["num_parameters"] == [None]
    assert [set(choice) for choice in summary["choices"]] == [{"max_features"}]
    assert set(summary["rotated"]) == {"z", "so3"} and "accuracy %" in format_summary(summary)
    report = json.loads((tmp_path / "runs" / "seed=1" / "evaluation.json").read_text())
    assert report["results"]["so3"]["changed_predictions"] <= 2
    before = (tmp_path / "runs" / "seed=1" / "evaluation.json").stat().st_mtime_ns
    assert repeat(path, "seed", ["1"], tmp_path / "runs", resume=True)["metrics"] == summary["metrics"]
    assert (tmp_path / "runs" / "seed=1" / "evaluation.json").stat().st_mtime_ns == before


def test_trees_read_values_of_one_length() -> None:
    trees = estimator_of(TEXTS, "baseline=value_trees", "processor={}", "model={num_trees: 3}")
    rows = [{"values": np.full((4, 1), float(i % 3)), "label": i % 3} for i in range(12)]
    features = trees.features(rows)
    assert features.shape == (12, 4)
    scores = trees.fit(trees.choices()[0], TrainingData(features, trees.targets(rows), 3, features))(features)
    assert (scores.argmax(-1) == trees.targets(rows)).all()
    with pytest.raises(ValueError, match="4 to 5 values"):
        trees.features([*rows, {"values": np.zeros((5, 1))}])


@pytest.mark.parametrize(
    ("settings", "override", "message"),
    [
        (TEXTS, "training.learning_rate=0.1", "`training.learning_rate` means nothing to the baseline hashed_counts"),
        (TEXTS, "early_stopping={patience: 2}", "`early_stopping` means nothing"),
        (GRAPHS, "processor.random_walk_steps=4", "`processor.random_walk_steps` means nothing"),
        (TEXTS, "dataset.validation_fraction=0", "set `dataset.validation_fraction`"),
        (TEXTS, "processor={}", "set `processor.tokenizer` to bytes or list_ops, got None"),
        (TEXTS, "model.num_bin=3", "did you mean `num_bins`"),
        (TEXTS, "model.num_bins=0", "`model.num_bins`"),
        (CLOUDS, "model.coordinates=1", "`model.coordinates` is 1: use true or false"),
        (GRAPHS, "dataset={name: nci1}", None),
        (
            GRAPHS | {"baseline": "fingerprints"},
            "dataset={name: nci1}",
            "nci1 has none: use the baseline hashed_counts",
        ),
        (GRAPHS, "pretrained=somewhere", "`pretrained` does not go with `baseline`"),
        (CLOUDS, "task=point-cloud-segmentation", "it has none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], override: str, message: str | None) -> None:
    if message is None:
        recipe_of(settings, override)
        return
    with pytest.raises(ValueError, match=message):
        recipe_of(settings, override)


def test_what_only_models_have_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out `prepare_model`"):
        train(recipe_of(TEXTS), tmp_path, data, prepare_model=print)
    with pytest.raises(ValueError, match="`training.metric_for_best_model` is 'loss': use one of accuracy"):
        train(recipe_of(TEXTS, "training.metric_for_best_model=loss"), tmp_path, data)
    train(recipe_of(TEXTS), tmp_path, data, overwrite=True)
    with pytest.raises(ValueError, match="do not go with the baseline hashed_counts"):
        evaluate(tmp_path, data, num_sampled_tokens=4)
