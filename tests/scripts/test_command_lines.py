import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from paths import ROOT
from tiny_recipes import tiny_settings

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
# --multi_gpu means several processes here: without a GPU they use gloo; with --cpu accelerate starts only one.
LAUNCH = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no"
)


def run(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        **kwargs,
    )


def load(script):
    """A script as a module, to be called in this process."""
    path = ROOT / "scripts" / script
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    settings = tiny_settings("dataset.validation_fraction=0.05", "training.save_total_limit=3")
    # Processes must also find each other where the recipe does not choose the device.
    del settings["training"]["use_cpu"]
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("analyze.py", ["FOLDER", "--max_examples", "--only", "sampled_tokens", "calibration", "examples"]),
        ("ablate.py", ["STUDY.yaml", "--only", "--list", "--resume", "--report", "--docs", "--figures"]),
        ("demo.py", ["--output_dir", "section.name=value"]),
        ("figures.py", ["rank", "examples"]),
        ("order.py", ["FOLDER", "--data_dir", "--limit"]),
    ],
)
def test_help_names_every_option_quickly(script, words):
    result = run(f"scripts/{script}", "--help")
    assert result.returncode == 0
    assert all(word in result.stdout for word in words)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train.py", ["RECIPE.yaml", "section.name=value", "--resume", "--overwrite", "accelerate launch"]),
        ("evaluate.py", ["FOLDER", "--rotations", "--sampled_passes", "--output", "--save", "accelerate launch"]),
        ("publish.py", ["FOLDER", "--repo", "--private", "--tag", "--data-license", "--benchmark", "--dry-run"]),
        ("repeat.py", ["RECIPE.yaml", "--over", "dataset.fold", "--resume", "seed=0,1,2"]),
    ],
)
def test_aliases_of_commands_name_every_option(script, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"scripts/{script}", "--help"])
    with pytest.raises(SystemExit) as ended:
        load(script).main()
    text = capsys.readouterr().out
    assert ended.value.code == 0 and all(word in text for word in words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scripts/train.py", "no/such/recipe.yaml"], "no recipe"),
        (["scripts/train.py", "configuration/digits/sft.yaml", "model.hiden_size=3"], "did you mean `hidden_size`"),
        (["scripts/train.py", "configuration/digits/sft.yaml", "--output_dir", "README.md/run"], "Not a directory"),
        (
            [
                "scripts/repeat.py",
                "configuration/digits/sft.yaml",
                "--over",
                "seed=0",
                "--output_dir",
                "README.md/x",
            ],
            "Not a directory",
        ),
        (["scripts/evaluate.py", "no/such/folder"], "no saved model"),
        (["scripts/analyze.py", "no/such/folder"], "no saved model"),
        (["scripts/ablate.py", "no/such/study.yaml"], "no study file"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.chdir(ROOT)
    assert load(Path(arguments[0]).name).main() == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_train_then_evaluate(recipe, tmp_path):
    trained = run("scripts/train.py", recipe, "--output_dir", tmp_path / "run", "training.max_steps=4", "seed=1")
    assert trained.returncode == 0, trained.stderr
    assert "validation accuracy" in trained.stdout
    refused = run("scripts/train.py", recipe, "--output_dir", tmp_path / "run")
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    evaluated = run("scripts/evaluate.py", tmp_path / "run", "--rotations", "none", "so3", "--save")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "mean class accuracy %" in evaluated.stdout
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["training_seed"] == 1


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(recipe, tmp_path):
    overrides = ["training.max_steps=30", "augmentation.rotation=so3", "sampling_noise_schedule.final=0.1"]
    command = ["scripts/train.py", recipe, "--output_dir"]
    assert run(*command, tmp_path / "whole", *overrides).returncode == 0
    cut = tmp_path / "cut"
    for attempt in range(2):
        resume = ["--resume"] if attempt else []
        process = subprocess.Popen(
            [sys.executable, *map(str, command), str(cut), *overrides, *resume],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Random within the steps, not within the start of Python: from the first new checkpoint on.
        step = 6 + 12 * attempt
        while process.poll() is None and not list(cut.glob(f"checkpoint-{step}")):
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.wait()
    assert not (cut / "training_log.json").exists()
    last = max(cut.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    optimizer = last / "optimizer.pt"
    if optimizer.is_file():
        optimizer.write_bytes(optimizer.read_bytes()[:1000])
    resumed = run(*command, cut, *overrides, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"Skipping the incomplete checkpoint {last}" in resumed.stderr
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "whole", cut)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_train_and_evaluate(recipe, tmp_path):
    run_dir = tmp_path / "run"
    options = ["--output_dir", run_dir, "importance_scorer={learning_rate_multiplier: 10, max_grad_norm: 1}"]
    trained = run(*LAUNCH.split(), "scripts/train.py", recipe, *options, "augmentation.rotation=z")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("saved in") == 1
    log = json.loads((run_dir / "training_log.json").read_text())
    assert log["num_processes"] == 2
    assert (run_dir / log["best_checkpoint"] / "rng_state_1.pth").is_file()

    reports = []
    for name, launcher in (("one", []), ("two", LAUNCH.split())):
        output = tmp_path / f"{name}.json"
        result = run(*launcher, "scripts/evaluate.py", run_dir, "--output", output)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("changed predictions") == 1
        reports.append(json.loads(output.read_text()))
    assert [report["num_processes"] for report in reports] == [1, 2]
    assert reports[0]["results"] == reports[1]["results"]
    assert reports[0]["num_examples"] == 360


@pytest.mark.slow
def test_two_processes_resume(recipe, tmp_path):
    command = [*LAUNCH.split(), "scripts/train.py", recipe, "--output_dir"]
    first = run(*command, tmp_path / "whole", "training.max_steps=6", "augmentation.rotation=z")
    assert first.returncode == 0, first.stderr
    cut = tmp_path / "cut"
    assert run(*command, cut, "training.max_steps=6", "augmentation.rotation=z").returncode == 0
    for name in ("training_log.json", "model.safetensors", "checkpoint-6/rng_state_1.pth"):
        (cut / name).unlink()
    resumed = run(*command, cut, "training.max_steps=6", "augmentation.rotation=z", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "Skipping the incomplete checkpoint" in resumed.stderr
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "whole", cut)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_demo(tmp_path):
    result = run("scripts/demo.py", "--output_dir", tmp_path, "training.num_train_epochs=1")
    assert result.returncode == 0, result.stderr
    assert "test accuracy on 360 digits" in result.stdout
    assert "the same: True" in result.stdout
    assert (tmp_path / "training_curves.png").stat().st_size > 10_000
    assert (tmp_path / "sampled_points.png").stat().st_size > 10_000


@pytest.mark.slow
def test_repeat_trains_and_evaluates_every_seed(recipe, tmp_path):
    done = run(
        "scripts/repeat.py", recipe, "--over", "seed=0,1", "--output_dir", tmp_path / "runs", "training.max_steps=2"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    values = summary["metrics"]["accuracy"]["values"]
    for seed, value in enumerate(values):
        report = json.loads((tmp_path / "runs" / f"seed={seed}" / "evaluation.json").read_text())
        assert report["results"]["none"]["accuracy"] == value and report["training_seed"] == seed
    assert f"accuracy %: {50 * sum(values):.2f} +- " in done.stdout
