"""A disk that fills while something is saved: what was saved before stays whole."""

import json
import shutil

import pytest
import torch
from safetensors import SafetensorError

from modeling_sft import AutoModelForPointCloudClassification, SFTGraphProcessor, SFTPointCloudProcessor
from modeling_sft.data.cache import cached_rows
from modeling_sft.training import evaluate, train
from modeling_sft.training.checkpoints import checkpoint_defect, find_last_checkpoint
from modeling_sft.training.writing import replace_text
from security.disks import largest_file
from tiny_models import build
from tiny_recipes import tiny_recipe

FULL = (OSError, SafetensorError, RuntimeError)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fill(disk, leave):
    (disk / "filling").unlink(missing_ok=True)
    (disk / "filling").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - leave)))


def test_a_model_over_a_model_on_a_full_disk(small_disk):
    folder = small_disk / "model"
    old = build(dtype=torch.float32, num_neighbors=4)
    old.save_pretrained(folder)
    SFTPointCloudProcessor(num_neighbors=4).save_pretrained(folder)
    before = contents(folder)
    for leave in (0, 30_000, 150_000):
        fill(small_disk, leave)
        with pytest.raises(FULL):
            build(dtype=torch.float32, num_neighbors=5, hidden_size=48, num_hidden_layers=4).save_pretrained(folder)
        assert contents(folder) == before and len(list(folder.iterdir())) == len(before)
    fill(small_disk, 0)
    with pytest.raises(OSError):
        SFTPointCloudProcessor(num_neighbors=7).save_pretrained(folder)
    assert contents(folder) == before
    loaded = AutoModelForPointCloudClassification.from_pretrained(folder)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, old.state_dict()[name])


@pytest.mark.slow
def test_training_on_a_full_disk_keeps_its_last_checkpoint(trained, small_disk):
    run = small_disk / "run"
    recipe = tiny_recipe("training.save_total_limit=null")
    # Room for one checkpoint and a half, in blocks of 4 KiB.
    blocks = sum(-(-len(content) // 4096) for content in contents(trained / "checkpoint-2").values())
    fill(small_disk, blocks * 4096 * 3 // 2)
    with pytest.raises(FULL):
        train(recipe, run)
    checkpoint = find_last_checkpoint(run, delete_broken=False)
    assert checkpoint == run / "checkpoint-2"
    AutoModelForPointCloudClassification.from_pretrained(checkpoint)
    (small_disk / "filling").unlink()
    log = train(recipe, run, resume=True)
    assert log["log_history"][-1]["step"] == 6


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_resuming_skips_the_checkpoint_that_did_not_fit(run, tmp_path, name):
    size = (run / "checkpoint-2" / name).stat().st_size
    recipe = tiny_recipe("training.save_total_limit=null")
    for path in (run / "checkpoint-4", run / "checkpoint-6"):
        shutil.rmtree(path)
    (run / "training_log.json").unlink()
    before = contents(run / "checkpoint-2")
    with largest_file(size - 100), pytest.raises(FULL):
        train(recipe, run, resume=True)
    assert checkpoint_defect(run / "checkpoint-4") is not None
    assert contents(run / "checkpoint-2") == before
    assert find_last_checkpoint(run) == run / "checkpoint-2"
    assert not (run / "checkpoint-4").exists()


def test_models_and_processors_replace_each_other_whole(folder):
    before = contents(folder)
    size = (folder / "model.safetensors").stat().st_size
    with largest_file(size // 2), pytest.raises(FULL):
        build(dtype=torch.float32, num_neighbors=5).save_pretrained(folder)
    with largest_file(40), pytest.raises(OSError):
        SFTPointCloudProcessor(num_neighbors=7).save_pretrained(folder)
    assert contents(folder) == before
    new = build(dtype=torch.float32, num_neighbors=5, seed=1)
    new.save_pretrained(folder)
    assert SFTPointCloudProcessor(num_neighbors=7).save_pretrained(folder) == [
        str(folder / "preprocessor_config.json")
    ]
    assert SFTPointCloudProcessor.from_pretrained(folder).num_neighbors == 7
    assert not list(folder.glob(".*")) and contents(folder).keys() == before.keys()
    loaded = AutoModelForPointCloudClassification.from_pretrained(folder)
    assert loaded.config.num_neighbors == 5
    assert torch.equal(loaded.state_dict()["classifier.out_proj.bias"], new.state_dict()["classifier.out_proj.bias"])


def test_another_number_of_shards_replaces_all_shards(folder):
    model = build(dtype=torch.float32, num_neighbors=4, seed=2)
    for size in ("10KB", "20KB", "1GB", "10KB"):
        model.save_pretrained(folder, max_shard_size=size)
        names = sorted(path.name for path in folder.glob("model*.safetensors*"))
        index = folder / "model.safetensors.index.json"
        shards = (
            set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        )
        assert set(names) - {index.name} == shards
        loaded = AutoModelForPointCloudClassification.from_pretrained(folder).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_reports_and_logs_are_replaced_whole(run):
    path = run / "evaluation.json"
    before = path.read_text()
    with largest_file(100), pytest.raises(OSError):
        evaluate(run, rotations=["none"], batch_size=64, output=path)
    assert path.read_text() == before and not list(run.glob(".*"))
    with largest_file(100), pytest.raises(OSError):
        tiny_recipe().save(run)
    assert "digits" in (run / "recipe.yaml").read_text()
    replace_text(path, "new\n")
    assert path.read_text() == "new\n"


def rows(count):
    yield from ({"value": [float(number)] * 100} for number in range(count))


def test_rows_that_do_not_fit_leave_nothing_in_the_cache(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    features = datasets.Features({"value": datasets.List(datasets.Value("float32"))})
    with largest_file(20_000), pytest.raises(OSError):
        cached_rows(rows, "train", features, count=1000)
    assert not list(tmp_path.rglob("*.arrow"))
    assert len(cached_rows(rows, "train", features, count=1000)) == 1000


def test_graph_processors_are_replaced_whole(tmp_path):
    SFTGraphProcessor(random_walk_steps=3).save_pretrained(tmp_path)
    with largest_file(40), pytest.raises(OSError):
        SFTGraphProcessor(random_walk_steps=4).save_pretrained(tmp_path)
    assert SFTGraphProcessor.from_pretrained(tmp_path).random_walk_steps == 3
