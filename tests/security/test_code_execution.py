"""No code comes from a checkpoint, unless remote code was asked for; weights are safetensors."""

import contextlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer, pipeline

from modeling_sft import AutoModelForPointCloudClassification, SFTForPointCloudClassification, SFTPointCloudProcessor
from modeling_sft.cli import main
from modeling_sft.publishing import prepare
from modeling_sft.training import evaluate, train
from paths import ROOT
from security.hostile import Trap, add_hostile_code, change_json
from tiny_recipes import tiny_recipe

LOADERS = (
    *(AutoConfig, AutoModel, AutoProcessor, AutoFeatureExtractor, AutoTokenizer, AutoModelForPointCloudClassification),
    *(SFTForPointCloudClassification, SFTPointCloudProcessor),
)

SAVED_BY_TRAINER = ("scheduler.pt", "rng_state.pth", "training_args.bin")


@pytest.mark.parametrize("model_type", ["sft_point_cloud", "hostile"])
def test_no_class_runs_code_of_a_folder(folder, mark, model_type):
    add_hostile_code(folder, mark, model_type=model_type)
    loaded = set()
    for loader in LOADERS:
        try:
            loader.from_pretrained(folder)
            loaded.add(loader)
        # Of a model type that this process knows, its own code is used; of others, code is asked for.
        except ValueError as error:
            assert "trust_remote_code" in str(error) or "is for models of type" in str(error)
    for task in ("point-cloud-classification", "hostile-task"):
        with pytest.raises(ValueError, match="trust_remote_code"):
            pipeline(task, model=str(folder), device="cpu")
    if model_type == "sft_point_cloud":
        assert loaded == set(LOADERS) - {AutoTokenizer}
    else:
        assert AutoModel not in loaded
    assert not mark.exists()
    # The trap works: asked for, the code runs.
    with contextlib.suppress(AttributeError):
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    mark.rmdir()


def test_code_outside_of_the_folder_is_not_remote_code(folder, mark):
    add_hostile_code(folder, mark, model_type="hostile")
    (folder / "hostile.py").rename(folder.parent / "hostile.py")
    for reference in ("../hostile.Any", "...hostile.Any", "../../hostile.py"):
        change_json(folder / "config.json", auto_map={"AutoConfig": reference})
        with pytest.raises((ValueError, OSError)):
            AutoConfig.from_pretrained(folder, trust_remote_code=True)
        assert not mark.exists()


def test_command_line_evaluation_and_publishing_run_no_code_of_a_folder(run, mark, capsys):
    add_hostile_code(run, mark)
    np.save(run.parent / "cloud.npy", np.random.default_rng(0).normal(size=(30, 3)))
    evaluate(run, rotations=["none"], batch_size=64)
    assert prepare(run, "lab/digits").files
    assert main(["info", str(run)]) == 0
    # The digits' model wants a feature that the file lacks: an error, after everything was loaded.
    for words in (["predict"], ["embed", "--output", str(run.parent / "vectors.npy")]):
        assert main([*words, str(run), str(run.parent / "cloud.npy")]) in (0, 1, 2)
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_scripts_import_nothing_from_the_folder_that_they_read(run, mark):
    add_hostile_code(run, mark)
    root = ROOT
    environment = os.environ | {"PYTHONPATH": str(root)}
    for command in (
        ["-m", "modeling_sft", "info", "."],
        [str(root / "scripts/evaluate.py"), ".", "--rotations", "none"],
    ):
        # From within the folder: `python -m` looks for modules there first.
        result = subprocess.run(
            [sys.executable, *command], cwd=run, env=environment, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, result.stderr[-2000:]
        assert not mark.exists()


def test_kernels_of_the_hub_are_not_loaded(folder):
    # Transformers would download and import what stands here.
    for name in ("attn_implementation", "_attn_implementation"):
        change_json(folder / "config.json", **{"attn_implementation": None, name: "kernels-community/flash-attn2"})
        with pytest.raises(ValueError, match="flash-attn2.*not possible"):
            SFTForPointCloudClassification.from_pretrained(folder)
    change_json(folder / "config.json", attn_implementation="eager", _attn_implementation="eager")
    model = SFTForPointCloudClassification.from_pretrained(folder)
    with pytest.raises(ValueError, match="lab/kernel.*not possible"):
        model.set_attn_implementation("lab/kernel", allow_all_kernels=True)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model-00001-of-00001.bin"])
def test_pickled_weights_are_not_loaded(folder, mark, name):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if name == "adapter_model.bin":
        change_json(folder / "config.json", transformers_weights=name)
    if name.startswith("model"):
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
        change_json(folder / "model.safetensors.index.json", **index)
    for content in ({"trap": Trap(mark)}, weights):
        torch.save(content, folder / name)
        for loader in (SFTForPointCloudClassification, AutoModel, AutoModelForPointCloudClassification):
            # Not torch's unpickler refuses them: honest ones neither.
            with pytest.raises((OSError, ValueError), match=r"safetensors"):
                loader.from_pretrained(folder)
    with pytest.raises(ValueError, match="use_safetensors"):
        SFTForPointCloudClassification.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("name", ["../outside.safetensors", "model.fp16.bin"])
def test_the_index_of_a_variant_is_checked_too(folder, mark, name):
    weights = load_file(folder / "model.safetensors")
    for content in ({"trap": Trap(mark)}, weights):
        torch.save(content, folder / name)
        change_json(folder / "config.json", dtype=None)  # otherwise, Transformers looks for it in the weights
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
        change_json(folder / "model.safetensors.index.fp16.json", **index)
        with pytest.raises(ValueError, match=r"index\.fp16\.json.*same folder"):
            SFTForPointCloudClassification.from_pretrained(folder, variant="fp16")
    (folder / "model.safetensors.index.fp16.json").rename(folder / "other.safetensors.index.json")
    change_json(folder / "config.json", transformers_weights="other.safetensors.index.json")
    with pytest.raises(ValueError, match=r"other\.safetensors\.index\.json.*same folder"):
        SFTForPointCloudClassification.from_pretrained(folder)


def test_adapters_are_read_from_safetensors_only(folder, mark, monkeypatch):
    peft = pytest.importorskip("peft")
    opened = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: opened.append(args) or load(*args, **kwargs))
    model = SFTForPointCloudClassification.from_pretrained(folder)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(folder / "adapter")
    state = load_file(folder / "adapter" / "adapter_model.safetensors")
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    for content in (state, {"trap": Trap(mark)}):
        torch.save(content, folder / "adapter" / "adapter_model.bin")
        # By default it is not looked for in a folder, but it is on the Hub.
        with pytest.raises(ValueError, match=r"adapter_model\.bin` is no file of safetensors"):
            SFTForPointCloudClassification.from_pretrained(folder).load_adapter(
                str(folder / "adapter"), use_safetensors=False
            )
    # The base model that an adapter names lies in another folder.
    (folder / "adapter" / "config.json").unlink(missing_ok=True)
    change_json(folder / "adapter" / "adapter_config.json", base_model_name_or_path=str(folder))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "a.bin")
    change_json(folder / "model.safetensors.index.json", metadata={}, weight_map=dict.fromkeys(weights, "a.bin"))
    change_json(folder / "config.json", dtype=None)
    with pytest.raises(ValueError, match=r"index\.json` names 'a\.bin'"):
        SFTForPointCloudClassification.from_pretrained(folder / "adapter")
    (folder / "adapter" / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"adapter_config\.json` is damaged"):
        SFTForPointCloudClassification.from_pretrained(folder / "adapter")
    assert not opened


def test_pickles_beside_safetensors_are_ignored(folder, mark):
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        torch.save({"trap": Trap(mark)}, folder / name)
    SFTForPointCloudClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["optimizer.pt", *(pytest.param(name, marks=pytest.mark.slow) for name in SAVED_BY_TRAINER)]
)
def test_resuming_runs_no_code_of_a_checkpoint(run, mark, name):
    (run / "training_log.json").unlink()
    torch.save({"trap": Trap(mark)}, run / "checkpoint-4" / name)
    for path in (run / "checkpoint-6").iterdir():
        path.unlink()
    (run / "checkpoint-6").rmdir()
    recipe = tiny_recipe("training.save_total_limit=null")
    if name == "training_args.bin":  # written by Trainer, read by nothing
        train(recipe, run, resume=True)
        return
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        train(recipe, run, resume=True)
