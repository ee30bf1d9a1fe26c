"""What a save replaces in a folder, and what it leaves: variants, shards, adapters, earlier models, pushes."""

import errno
import fcntl
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from modeling_sft import SFTForPointCloudClassification, SFTPointCloudProcessor
from modeling_sft.hub.writing import CannotWriteError, only_writer, replaced_file
from tiny_models import build

ONE, MANY = "1GB", "4KB"
SAVES = {
    "main": (None, ONE),
    "main in shards": (None, MANY),
    "variant": ("fp16", ONE),
    "variant in shards": ("fp16", MANY),
    "other variant": ("fp16.v2", ONE),
    "other variant in shards": ("fp16.v2", MANY),
}


@pytest.fixture(scope="module")
def models():
    return [build(dtype=torch.float32, num_neighbors=4, num_hidden_layers=1, seed=seed) for seed in range(2)]


def save(model, folder, kind):
    variant, size = SAVES[kind]
    model.save_pretrained(folder, variant=variant, max_shard_size=size)


def weights(folder, variant=None):
    return SFTForPointCloudClassification.from_pretrained(folder, variant=variant).state_dict()


def same(found, model):
    return all(torch.equal(found[name], value) for name, value in model.state_dict().items())


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    """A folder for each kind of save, of the first model."""
    root = tmp_path_factory.mktemp("saved")
    for kind in SAVES:
        save(models[0], root / kind, kind)
    return root


@pytest.mark.parametrize("second", SAVES)
@pytest.mark.parametrize("first", SAVES)
def test_a_save_replaces_the_weights_of_its_own_variant(models, saved, tmp_path, first, second):
    folder = Path(shutil.copytree(saved / first, tmp_path / "model"))
    save(models[1], folder, second)
    (old_variant, _), (new_variant, _) = SAVES[first], SAVES[second]
    assert same(weights(folder, new_variant), models[1])
    if old_variant != new_variant:
        assert same(weights(folder, old_variant), models[0])
        expected = {path.name for kind in (first, second) for path in (saved / kind).iterdir()}
    else:
        expected = {path.name for path in (saved / second).iterdir()}
    assert {path.name for path in folder.iterdir()} == expected


@pytest.mark.parametrize("kind", SAVES)
def test_an_adapter_and_a_model_leave_each_other(models, saved, tmp_path, kind):
    peft = pytest.importorskip("peft")
    folder = Path(shutil.copytree(saved / kind, tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}
    adapted = build(dtype=torch.float32, num_neighbors=4, num_hidden_layers=1)
    adapted.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    # In shards, its index would take the place of the model's.
    adapted.save_pretrained(folder, max_shard_size=100)
    assert {name: (folder / name).read_bytes() for name in before} == before
    adapter = (folder / "adapter_model.safetensors").read_bytes()
    save(models[1], folder, kind)
    assert (folder / "adapter_model.safetensors").read_bytes() == adapter
    assert (folder / "adapter_config.json").is_file()


def test_a_push_uploads_what_was_saved(models, tmp_path, monkeypatch):
    pushed = {}

    def push(self, repo_id, **options):
        self.save_pretrained(tmp_path / "pushed", max_shard_size=options.get("max_shard_size", "50GB"))
        pushed.update(repo_id=repo_id, **options)

    monkeypatch.setattr(SFTForPointCloudClassification, "push_to_hub", push)
    state = {name: value + 1 for name, value in models[0].state_dict().items()}
    options = {"variant": "fp16", "max_shard_size": MANY, "state_dict": state, "revision": "draft"}
    models[0].save_pretrained(tmp_path / "name", push_to_hub=True, **options)
    assert pushed == {"repo_id": "name", "max_shard_size": MANY, "revision": "draft"}
    for folder in ("name", "pushed"):
        found = weights(tmp_path / folder, "fp16")
        assert all(torch.equal(found[name], value) for name, value in state.items())
    names = [{path.name for path in (tmp_path / folder).iterdir()} for folder in ("name", "pushed")]
    assert names[0] == names[1]


def hold(folder, parent):
    """Save a model in a process, and stop within."""
    model = build(dtype=torch.float32, num_neighbors=4, num_hidden_layers=1)
    own = model._save

    def slow(staging, *args, **kwargs):
        own(staging, *args, **kwargs)
        parent.send("saving")
        parent.poll(60)

    model._save = slow
    model.save_pretrained(folder)


@pytest.fixture
def writer(tmp_path):
    """A folder, and a process that is saving a model to it."""
    context = multiprocessing.get_context("fork")
    # No event, whose setting would wait for a waiter that was killed.
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "model", theirs))
    process.start()
    assert ours.poll(60)
    yield process, ours
    process.kill()
    process.join(60)


def test_what_a_killed_save_left_is_removed_by_the_next(models, writer, tmp_path):
    process, _ = writer
    folder = tmp_path / "model"
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert list(folder.glob(".saving-*")) and not (folder / "config.json").exists()
    SFTPointCloudProcessor().save_pretrained(folder)
    models[0].save_pretrained(folder)
    assert not list(folder.glob(".*")) and same(weights(folder), models[0])


def test_the_second_of_two_writers_is_told(models, writer, tmp_path):
    process, connection = writer
    folder = tmp_path / "model"
    for target in (models[1], SFTPointCloudProcessor()):
        with pytest.raises(CannotWriteError, match=r"model` cannot be written \(something else.*wait") as error:
            target.save_pretrained(folder)
        assert "\n" not in str(error.value)
    connection.send("end")
    process.join(60)
    assert process.exitcode == 0 and same(weights(folder), models[0]) and not list(folder.glob(".*"))


def test_threads_are_writers_too_and_locks_are_freed(tmp_path):
    errors = []

    def second():
        try:
            with only_writer(tmp_path / "a"):
                pass
        except CannotWriteError as error:
            errors.append(error)

    with only_writer(tmp_path / "a"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    second()
    assert len(errors) == 1 and not list(tmp_path.iterdir())


def test_a_save_works_where_the_file_system_has_no_locks(models, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    models[0].save_pretrained(tmp_path)
    assert same(weights(tmp_path), models[0])
    assert not list(tmp_path.glob(".*"))


def test_a_lock_makes_no_folder_and_follows_no_link(tmp_path):
    with only_writer(tmp_path / "new" / "folder" / "file"):
        assert (tmp_path / "new" / "folder").is_dir()
    assert not (tmp_path / "new").exists()
    with only_writer(tmp_path / "new" / "file"), replaced_file(tmp_path / "new" / "file") as file:
        file.write_text("kept")
    assert (tmp_path / "new" / "file").read_text() == "kept"
    (tmp_path / ".a.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), only_writer(tmp_path / "a"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_no_folder_to_save_in(models, tmp_path):
    (tmp_path / "file").write_text("precious")
    for target in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(CannotWriteError, match=r"written \((File exists|Not a directory)\): name another"):
            models[0].save_pretrained(target)
    assert (tmp_path / "file").read_text() == "precious"
