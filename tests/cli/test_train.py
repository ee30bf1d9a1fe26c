"""`sft train`: a recipe in, a folder with a model out."""

import json

from modeling_sft import SFTForPointCloudClassification
from paths import ROOT


def test_settings_may_stand_behind_options(trained):
    log = json.loads((trained / "training_log.json").read_text())
    assert log["recipe"]["seed"] == 3 and log["recipe"]["training"]["max_steps"] == 2
    SFTForPointCloudClassification.from_pretrained(trained)


def test_a_finished_run_is_left_alone_or_replaced(run, recipe, trained):
    words = ("train", recipe, "--output_dir", trained)
    assert "--overwrite" in run(*words, "seed=4")
    assert f"saved in {trained}" in run(*words, "seed=3", "--resume")
    text = run(*words, "seed=4", "--overwrite")
    assert "parameters, trained in" in text and "validation accuracy: 0." in text
    assert json.loads((trained / "training_log.json").read_text())["recipe"]["seed"] == 4


def test_mistakes_are_said(run, recipe):
    assert "no recipe" in run("train", "no/such/recipe.yaml")
    assert "did you mean `hidden_size`" in run("train", recipe, "model.hiden_size=3")
    assert "Not a directory" in run("train", recipe, "--output_dir", ROOT / "README.md" / "run")
