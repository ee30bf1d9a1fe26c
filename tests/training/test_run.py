import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from modeling_sft import AutoModelForPointCloudClassification, SFTPointCloudProcessor
from modeling_sft.training import Recipe, SFTTrainer, tasks, train
from modeling_sft.training.checkpoints import checkpoint_defect, find_last_checkpoint
from tiny_recipes import tiny_recipe

AUGMENTED = (
    "augmentation={rotation: z, jitter: 0.02, point_dropout: 0.2}",
    "sampling_noise_schedule.final=0.1",
    "model.hidden_dropout_prob=0.1",
    "model.num_sampled_tokens_range=[4, 8]",
)


def assert_same_weights(one, other):
    one, other = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def interrupt_at(monkeypatch, step):
    """Make training die within the given step, counted from 1."""
    calls = iter(range(1, 10**9))
    original = SFTTrainer.training_step

    def training_step(self, *args, **kwargs):
        if next(calls) == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)


def test_run_leaves_a_complete_folder(tmp_path):
    recipe = tiny_recipe("training.report_to=tensorboard", "early_stopping.patience=5")
    log = train(recipe, tmp_path)
    assert set(log["validation"]) >= {"loss", "accuracy", "mean_class_accuracy"}
    assert log["best_checkpoint"].startswith("checkpoint-")
    assert json.loads((tmp_path / "training_log.json").read_text()) == log
    assert Recipe.from_yaml(tmp_path) == recipe
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert list(tmp_path.rglob("events.out.tfevents*"))
    model = AutoModelForPointCloudClassification.from_pretrained(tmp_path)
    assert model.config.id2label[3] == "3"
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), SFTPointCloudProcessor)
    assert log["num_parameters"] == sum(p.numel() for p in model.parameters())
    assert_same_weights(tmp_path, tmp_path / log["best_checkpoint"])


@pytest.mark.slow
def test_training_is_reproducible_and_depends_on_the_seed(tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        train(tiny_recipe(*AUGMENTED, f"seed={seed}", "training.max_steps=2"), tmp_path / name)
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "one", tmp_path / "three")


def test_the_test_split_is_not_touched(tmp_path, monkeypatch):
    rows = tasks.point_clouds.load_point_cloud_dataset("digits")["train"]

    class OnlyTrain(dict):
        def __getitem__(self, split):
            assert split == "train"
            return rows

    monkeypatch.setattr(
        tasks.point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: OnlyTrain())
    )
    assert train(tiny_recipe("training.max_steps=2"), tmp_path)["validation"]


def test_without_validation_data_the_last_weights_are_saved(tmp_path):
    log = train(tiny_recipe("dataset.validation_fraction=0", "training.eval_strategy=no"), tmp_path)
    assert log["validation"] == {}
    assert log["best_checkpoint"] is None
    assert_same_weights(tmp_path, tmp_path / "checkpoint-6")


def test_evaluation_without_validation_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="validation_fraction"):
        train(tiny_recipe("dataset.validation_fraction=0"), tmp_path)


# Four steps an epoch, saved every two: resumed within the first epoch, between two, and within the second.
@pytest.mark.parametrize("step", [pytest.param(3, marks=pytest.mark.slow), 5, pytest.param(8, marks=pytest.mark.slow)])
def test_interrupted_run_resumes_to_the_same_weights(tmp_path, monkeypatch, step):
    rows = tasks.point_clouds.load_point_cloud_dataset("digits")["train"].select(range(40))
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: {"train": rows})
    )
    recipe = tiny_recipe(*AUGMENTED, "dataset.validation_fraction=0.2", "training.max_steps=10")
    log = train(recipe, tmp_path / "whole")
    with monkeypatch.context() as context:
        interrupt_at(context, step)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut")
    # An hour of earlier work shows whether it is counted.
    for path in (tmp_path / "cut").glob("checkpoint-*/trainer_state.json"):
        state = json.loads(path.read_text())
        state["stateful_callbacks"]["ProcessorTimeCallback"]["args"]["earlier_seconds"] += 3600
        path.write_text(json.dumps(state))
    resumed = train(recipe, tmp_path / "cut", resume=True)
    assert 0 < log["training_cpu_seconds"] < 600
    assert 3600 < resumed["training_cpu_seconds"] < 4200
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    for name in ("checkpoint-10", log["best_checkpoint"]):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "cut" / name)
    assert resumed["best_checkpoint"] == log["best_checkpoint"]
    losses = [[e["loss"] for e in entry["log_history"] if "loss" in e] for entry in (log, resumed)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_early_stopped_run_that_died_before_saving_is_only_saved(tmp_path, monkeypatch):
    accuracies = [0.5, 0.9, 0.1, 0.1, 0.9, 0.95, 0.96]
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudClassificationTask,
        "compute_metrics",
        lambda self, evaluation, config: {"accuracy": next(values)},
    )
    recipe = tiny_recipe("training.max_steps=20", "early_stopping.patience=2", "sampling_noise_schedule.final=0")
    values = iter(accuracies)
    log = train(recipe, tmp_path / "whole")
    assert log["best_checkpoint"] == "checkpoint-4"
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("training_log.json", "model.safetensors", "config.json"):
        (tmp_path / "cut" / name).unlink()
    values = iter([0.9])
    resumed = train(recipe, tmp_path / "cut", resume=True)
    assert resumed["best_checkpoint"] == "checkpoint-4"
    assert 0 < resumed["training_cpu_seconds"] <= log["training_cpu_seconds"]
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("whole", "cut")]
    assert configs[0] == configs[1]
    # Without its best checkpoint, the last one must not be delivered in its place.
    for name in ("training_log.json", "model.safetensors", "config.json"):
        (tmp_path / "cut" / name).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    with pytest.raises(ValueError, match=r"checkpoint-4`, the best checkpoint of the run, is gone"):
        train(recipe, tmp_path / "cut", resume=True)
    assert not (tmp_path / "cut" / "model.safetensors").exists()


@pytest.fixture
def falling(monkeypatch):
    """Few digits, and accuracies of which the first is the best."""
    rows = tasks.point_clouds.load_point_cloud_dataset("digits")["train"].select(range(40))
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudTask, "load_dataset", staticmethod(lambda name, data_dir: {"train": rows})
    )
    values = itertools.count()
    monkeypatch.setattr(
        tasks.point_clouds.PointCloudClassificationTask,
        "compute_metrics",
        lambda self, evaluation, config: {"accuracy": 0.9 - 0.01 * next(values)},
    )
    return tiny_recipe("dataset.validation_fraction=0.2", "training.max_steps=6", "training.save_total_limit=null")


def test_a_best_checkpoint_that_goes_in_training_is_missed(tmp_path, monkeypatch, falling):
    original = SFTTrainer._load_best_model

    def vanished(self):
        shutil.rmtree(self.state.best_model_checkpoint)
        original(self)

    monkeypatch.setattr(SFTTrainer, "_load_best_model", vanished)
    with pytest.raises(ValueError, match=r"checkpoint-2`, the best checkpoint of the run, is gone"):
        train(falling, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_resumed_run_has_its_best_checkpoint_or_says_so(tmp_path, monkeypatch, falling):
    with monkeypatch.context() as context:
        interrupt_at(context, 5)
        with pytest.raises(KeyboardInterrupt):
            train(falling, tmp_path / "run")
    # Also where it was moved to another place.
    (tmp_path / "run").rename(tmp_path / "moved")
    gone = shutil.copytree(tmp_path / "moved", tmp_path / "gone")
    assert train(falling, tmp_path / "moved", resume=True)["best_checkpoint"] == "checkpoint-2"
    assert_same_weights(tmp_path / "moved", tmp_path / "moved" / "checkpoint-2")
    shutil.rmtree(gone / "checkpoint-2")
    with pytest.raises(ValueError, match=r"checkpoint-2`, the best checkpoint of the run, is gone"):
        train(falling, gone, resume=True)


def test_finished_run_is_not_resumed(tmp_path, monkeypatch):
    recipe = tiny_recipe("training.max_steps=2")
    log = train(recipe, tmp_path)
    monkeypatch.setattr(SFTTrainer, "train", None)
    assert train(recipe, tmp_path, resume=True) == log


def test_resuming_nothing_starts_anew(tmp_path):
    assert train(tiny_recipe("training.max_steps=2"), tmp_path / "new", resume=True)["validation"]


def test_longer_training_continues_a_finished_run(tmp_path):
    train(tiny_recipe("training.max_steps=2"), tmp_path)
    log = train(tiny_recipe("training.max_steps=4"), tmp_path, resume=True)
    assert log["log_history"][-1]["step"] == 4
    assert log["recipe"]["training"]["max_steps"] == 4


def test_another_recipe_is_not_resumed(tmp_path):
    train(tiny_recipe("training.max_steps=2"), tmp_path)
    with pytest.raises(ValueError, match="model, seed differ"):
        train(tiny_recipe("training.max_steps=2", "seed=1", "model.hidden_size=32"), tmp_path, resume=True)


def test_folder_in_use_is_refused(tmp_path):
    recipe = tiny_recipe("training.max_steps=2")
    train(recipe, tmp_path)
    with pytest.raises(ValueError, match="--overwrite"):
        train(recipe, tmp_path)
    with pytest.raises(ValueError, match="exclude each other"):
        train(recipe, tmp_path, resume=True, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        train(recipe, tmp_path / "recipe.yaml")
    note = tmp_path / "note.txt"
    note.write_text("mine")
    (tmp_path / "checkpoint-77").mkdir()
    (tmp_path / "model-00002-of-00002.safetensors").touch()
    train(recipe, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    assert note.read_text() == "mine"
    assert not (tmp_path / "checkpoint-77").exists()


def test_data_that_cannot_be_read_cost_no_folder(tmp_path):
    recipe = tiny_recipe("training.max_steps=2")
    train(recipe, tmp_path / "old")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "old").rglob("*")}
    unreadable = tiny_recipe("dataset.name=modelnet10_vox")
    for name in ("old", "new"):
        with pytest.raises(ValueError, match="modelnet10_vox"):
            train(unreadable, tmp_path / name, data_dir=tmp_path, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "old").rglob("*")} == before
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(tiny_recipe("training.save_total_limit=null"), folder)
    return folder


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "config.json"]
)
@pytest.mark.parametrize("damage", ["absent", "cut"])
def test_broken_checkpoint_is_skipped(finished_run, tmp_path, name, damage):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    assert find_last_checkpoint(run) == run / "checkpoint-6"
    path = run / "checkpoint-6" / name
    content = path.read_bytes()
    path.unlink() if damage == "absent" else path.write_bytes(content[: len(content) // 2])
    assert name.split(".")[0] in str(checkpoint_defect(path.parent)) or "weights" in str(
        checkpoint_defect(path.parent)
    )
    assert find_last_checkpoint(run, delete_broken=False) == run / "checkpoint-4"
    assert path.parent.exists()
    assert find_last_checkpoint(run) == run / "checkpoint-4"
    assert not path.parent.exists()


def test_checkpoint_of_one_process_is_not_one_of_two(finished_run):
    assert checkpoint_defect(finished_run / "checkpoint-6", num_processes=2) == "rng_state_0.pth is missing"


def test_no_checkpoint_is_found_where_there_is_none(tmp_path):
    assert find_last_checkpoint(tmp_path) is None
    assert find_last_checkpoint(tmp_path / "absent") is None
