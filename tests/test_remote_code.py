"""Checkpoints carry their code: everything loads in a process that cannot import the package."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from modeling_sft import SFTPointCloudProcessor
from random_clouds import random_cloud
from tiny_models import build

SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "modeling_sft" or name.startswith("modeling_sft."):
            raise ImportError("the package is not installed here")

sys.meta_path.insert(0, Blocker())

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder = sys.argv[1]
stored = torch.load(folder + "/stored.pt")
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(stored["points"], normals=stored["normals"])
backbone = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
Head = get_class_from_dynamic_module(config.auto_map["AutoModelForPointCloudClassification"], folder)
head = Head.from_pretrained(folder).eval()
for thing in (config, processor, extractor, backbone, head):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
with torch.no_grad():
    assert torch.equal(head(**inputs).logits, stored["logits"])
    assert torch.equal(backbone(**inputs).last_hidden_state, stored["states"])
head.save_pretrained(folder + "/again")
processor.save_pretrained(folder + "/again")
print("REMOTE CODE WORKS")
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = build(dtype=torch.float32, num_neighbors=4)
    processor = SFTPointCloudProcessor(num_neighbors=4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    cloud = random_cloud(20, seed=0, dtype=torch.float32)
    inputs = processor(cloud["points"], normals=cloud["normals"])
    with torch.no_grad():
        stored = {
            "points": cloud["points"],
            "normals": cloud["normals"],
            "logits": model(**inputs).logits,
            "states": model.sft(**inputs).last_hidden_state,
        }
    torch.save(stored, folder / "stored.pt")
    return folder


def run_without_package(folder, home):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder)],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_config_backbone_head_and_processor_load_without_the_package(checkpoint, tmp_path):
    result = run_without_package(checkpoint, tmp_path)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    # What was loaded from remote code and saved again is whole as well.
    again = checkpoint / "again"
    torch.save(torch.load(checkpoint / "stored.pt"), again / "stored.pt")
    result = run_without_package(again, tmp_path)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]


def test_the_folder_lists_its_whole_code(checkpoint):
    import json

    config = json.loads((checkpoint / "config.json").read_text())
    assert set(config["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForPointCloudClassification",
        "AutoModelForPointCloudSegmentation",
    }
    for reference in config["auto_map"].values():
        assert (checkpoint / f"{reference.split('.')[0]}.py").is_file()
