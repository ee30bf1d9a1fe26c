"""A small saved model with its processor, as an attacker might change it."""

import shutil
from pathlib import Path

import pytest
import torch

from modeling_sft import SFTPointCloudProcessor
from modeling_sft.training import evaluate, train
from tiny_models import build
from tiny_recipes import tiny_recipe


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    build(dtype=torch.float32, num_neighbors=4).save_pretrained(folder)
    SFTPointCloudProcessor(num_neighbors=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """What training and evaluation write."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_recipe("training.save_total_limit=null"), folder)
    evaluate(folder, rotations=["none"], batch_size=64, output=folder / "evaluation.json")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def mark(tmp_path):
    """A folder that exists if hostile code ran."""
    path = tmp_path / "hostile-code-ran"
    yield path
    assert not path.exists()
