import json
import shutil

import numpy as np
import pytest

from modeling_sft.training import evaluate, format_report, get_task, tasks, train
from modeling_sft.training.tasks.point_clouds import RotatedRows
from tiny_recipes import tiny_recipe

INVARIANT = ("model.rotation_invariant=true", "training.max_steps=4")


@pytest.fixture(scope="module")
def few_digits():
    splits = tasks.point_clouds.load_point_cloud_dataset("digits")
    return {"train": splits["train"].select(range(80)), "test": splits["test"].select(range(41))}


@pytest.fixture(autouse=True)
def only_few_digits(monkeypatch, few_digits):
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: few_digits)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as context:
        loader = staticmethod(lambda name, data_dir: few_digits)
        context.setattr(tasks.point_clouds.PointCloudTask, "load_dataset", loader)
        train(tiny_recipe("dataset.validation_fraction=0.2"), folder)
    return folder


def test_report_is_written_and_readable(run):
    report = evaluate(run, rotations=["none", "so3"], sampled_passes=3, output=run / "evaluation.json")
    assert json.loads((run / "evaluation.json").read_text()) == report
    assert report["num_examples"] == 41
    assert report["num_sampled_tokens"] == 6
    assert {"date", "command", "versions", "hardware", "seed"} <= report.keys()
    assert set(report["results"]) == {"none", "so3"}
    for result in report["results"].values():
        assert 0 <= result["accuracy"] <= 1
        assert len(result["sampled"]["values"]) == 3
        assert result["sampled"]["mean"] == pytest.approx(np.mean(result["sampled"]["values"]))
    assert "changed_predictions" in report["results"]["so3"]
    table = format_report(report)
    assert f"{100 * report['results']['so3']['accuracy']:.2f}" in table
    assert "41 examples" in table
    assert "changed predictions" in table


def test_evaluation_is_reproducible_whatever_the_batch_size(run, tmp_path):
    reports = [
        evaluate(
            run, rotations=["none", "z"], batch_size=size, seed=3, sampled_passes=size == 32, output=tmp_path / "a"
        )
        for size in (32, 32, 7)
    ]
    assert reports[0]["results"] == reports[1]["results"]
    for rotation in ("none", "z"):
        assert reports[2]["results"][rotation]["accuracy"] == reports[0]["results"][rotation]["accuracy"]


def test_validation_split_reproduces_the_figure_of_training(run, tmp_path):
    report = evaluate(run, split="validation", rotations=["none"], output=tmp_path / "validation.json")
    log = json.loads((run / "training_log.json").read_text())
    assert report["num_examples"] == 16
    assert report["results"]["none"]["accuracy"] == log["validation"]["accuracy"]


def test_number_of_sampled_tokens_can_be_changed(run, tmp_path):
    report = evaluate(run, rotations=["none"], num_sampled_tokens=20, output=tmp_path / "new" / "k20.json")
    assert report["num_sampled_tokens"] == 20
    assert (tmp_path / "new" / "k20.json").is_file()


def test_folder_without_recipe_needs_a_data_set(run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoint-*", "recipe.yaml"))
    with pytest.raises(ValueError, match="name the data set"):
        evaluate(folder)
    with pytest.raises(ValueError, match="validation data"):
        evaluate(folder, dataset="digits", split="validation")
    expected = evaluate(run, rotations=["none"], output=tmp_path / "expected.json")
    assert evaluate(folder, dataset="digits", rotations=["none"])["results"] == expected["results"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotations": ["x"]}, "none, z, so3"),
        ({"rotations": []}, "none, z, so3"),
        ({"split": "train"}, "split"),
        ({"seed": -1}, "seed"),
        ({"batch_size": 0}, "batch_size"),
        ({"sampled_passes": -1}, "sampled_passes"),
        ({"num_sampled_tokens": 0}, "num_sampled_tokens"),
    ],
)
def test_wrong_arguments_are_refused(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(run, **arguments)


def test_folder_without_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no saved model"):
        evaluate(tmp_path)


def test_data_with_other_labels_are_refused(run, monkeypatch, few_digits):
    from datasets import ClassLabel

    rows = few_digits["test"].cast_column("label", ClassLabel(names=[f"class {i}" for i in range(10)]))
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: {"test": rows})
    )
    with pytest.raises(ValueError, match="trained for"):
        evaluate(run)


def test_rotation_keeps_shapes_sub_samples_and_other_columns(few_digits):
    task = get_task("point-cloud-classification")
    rows = few_digits["test"]
    normals = np.random.default_rng(0).normal(size=(50, 3))
    clouds = [{"points": normals * 2, "normals": normals, "label": 4}, dict(rows[0])]
    rotated = task.rotate(clouds, "so3", seed=1)
    assert isinstance(rotated, RotatedRows)
    assert len(rotated) == 2
    for before, after in zip(clouds, (rotated[0], rotated[1])):
        distances = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (before["points"], after["points"])]
        np.testing.assert_allclose(*distances, atol=1e-5)
        assert not np.allclose(before["points"], after["points"])
        assert after["label"] == before["label"]
    np.testing.assert_allclose(rotated[0]["points"], 2 * rotated[0]["normals"])
    np.testing.assert_array_equal(task.rotate(clouds, "so3", seed=1)[1]["points"], rotated[1]["points"])
    assert not np.allclose(task.rotate(clouds, "so3", seed=2)[1]["points"], rotated[1]["points"])
    processor = task.processor_class(num_points=20, num_neighbors=4)
    items = [task.prepare(data, processor, seed=5)[0] for data in (clouds, rotated)]
    radii = [np.linalg.norm(item["points"], axis=-1) for item in items]
    np.testing.assert_allclose(*radii, atol=1e-5)
    np.testing.assert_array_equal(items[0]["neighbor_index"], items[1]["neighbor_index"])


def test_invariant_model_is_not_changed_by_rotation(tmp_path, monkeypatch, few_digits):
    generator = np.random.default_rng(0)
    rows = few_digits["train"].map(
        lambda row: {"points": generator.normal(size=np.shape(row["points"])).astype(np.float32)},
        load_from_cache_file=False,
    )
    loader = staticmethod(lambda name, data_dir: {"train": rows, "test": rows})
    monkeypatch.setattr(tasks.point_clouds.PointCloudTask, "load_dataset", loader)
    train(tiny_recipe(*INVARIANT), tmp_path)
    results = evaluate(tmp_path)["results"]
    assert results["so3"]["changed_predictions"] <= 1
    assert results["z"]["changed_predictions"] <= 1
