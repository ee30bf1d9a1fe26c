"""The examples of docs/ecosystem.md: its program runs, and its settings of FSDP are those of the models."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ecosystem.cases import KINDS, make_case
from modeling_sft.training import Recipe, build_training_arguments
from paths import ROOT

DOCUMENT = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.mark.slow
def test_the_program_runs(tmp_path: Path) -> None:
    for module in ("accelerate", "datasets", "optuna", "peft", "sklearn", "torchao"):
        pytest.importorskip(module)
    checks = """
assert len(searcher.state.trial_params) == 3 and set(best.hyperparameters) == set(searcher.state.trial_params)
assert merged.config.num_labels == placed.config.num_labels == 10
"""
    program = tmp_path / "program.py"
    program.write_text("\n\n".join(blocks("python")) + checks, encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    result = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    first, last = (line for line in result.stdout.splitlines() if re.match(r"0\.\d", line))
    assert float(first) > 0.5, result.stdout
    assert 0 < float(last.split()[0]) <= 1 and all(
        name in last for name in ("num_sampled_tokens", "sampling_noise", "learning_rate")
    )
    outputs = tmp_path / "outputs"
    assert len(list((outputs / "sharded").glob("*.safetensors"))) > 1
    assert (outputs / "lora" / "adapter" / "adapter_model.safetensors").is_file()


def test_fsdp_wraps_the_layers(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    (command,) = (block for block in blocks("bash") if "fsdp" in block)
    words = shlex.split(command.replace("\\\n", " "))
    recipe, *overrides = words[words.index("scripts/train.py") + 1 :]
    settings = build_training_arguments(Recipe.from_yaml(ROOT / recipe, overrides), tmp_path)
    plugin = accelerate.FullyShardedDataParallelPlugin(**settings.fsdp_plugin_args)
    assert plugin.fsdp_version == 2
    for kind in KINDS:
        model = make_case(kind).model
        plugin.set_auto_wrap_policy(model)
        wrapped = [m for m in model.modules() if plugin.auto_wrap_policy(module=m, recurse=False, nonwrapped_numel=0)]
        assert wrapped == list(model.sft.encoder.layers)
        assert {type(layer).__name__ for layer in wrapped} == model._no_split_modules
