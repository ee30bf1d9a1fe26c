"""The command in this process, and one small model of each kind for all tests of commands."""

import shutil
from pathlib import Path

import pytest
import yaml

from modeling_sft import (
    SFTForGraphClassification,
    SFTForPointCloudClassification,
    SFTForSequenceClassification,
    SFTGraphProcessor,
    SFTPointCloudProcessor,
    byte_tokenizer,
)
from modeling_sft.cli import main
from saved_models import saved
from tiny_recipes import tiny_settings


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The folder of a classifier for each kind of input; tests only read them."""
    root = tmp_path_factory.mktemp("models")
    for name, cls, processor in (
        ("point-cloud", SFTForPointCloudClassification, SFTPointCloudProcessor()),
        ("sequence", SFTForSequenceClassification, byte_tokenizer(20)),
        ("graph", SFTForGraphClassification, SFTGraphProcessor()),
    ):
        saved(root / name, cls, f"test-sft-{name}", processor)
    return root


@pytest.fixture
def run(capsys):
    """Runs a command; what it prints, or its error."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert code == (2 if captured.err.startswith("error: ") else 0), captured.err
        return captured.err if code else captured.out

    return call


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """A recipe that trains for two steps."""
    path = tmp_path_factory.mktemp("tiny") / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_settings("training.max_steps=2")))
    return path


@pytest.fixture(scope="session")
def trained_once(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    # A setting of the recipe behind an option.
    assert main(["train", str(recipe), "--output_dir", str(folder), "seed=3"]) == 0
    assert main(["evaluate", str(folder), "--rotations", "none", "--save"]) == 0
    return folder


@pytest.fixture
def trained(trained_once, tmp_path) -> Path:
    """A copy of a folder that `sft train` and `sft evaluate` wrote."""
    return Path(shutil.copytree(trained_once, tmp_path / "tiny"))
