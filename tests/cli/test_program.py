"""The command `sft` as a whole: its words, its help, and how errors end."""

import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from modeling_sft import SFTForPointCloudClassification, SFTPointCloudProcessor
from modeling_sft.cli import main, train
from modeling_sft.cli.program import COMMANDS, build_command_parser
from paths import ROOT
from saved_models import saved


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"model_type": []}', "wrong type .TypeError"),
        ("config.json", '{"a":' * 100_000, "RecursionError"),
        ("config.json", '{"model_type": "sft_point_cloud", "hidden_size": -24}', "hidden_size"),
        ("model.safetensors", "damaged", "header"),
        ("evaluation.json", "[" * 100_000, "damaged"),
        ("evaluation.json", '{"results": 3}', "wrong type"),
        ("evaluation.json", '{"results": {}}', "has no results"),
    ],
    ids=range(7),
)
def test_broken_folders_are_said_in_one_line(run, tmp_path, name, text, message):
    saved(tmp_path, SFTForPointCloudClassification, "test-sft-point-cloud", SFTPointCloudProcessor())
    (tmp_path / name).write_text(text)
    np.save(tmp_path / "cloud.npy", np.zeros((9, 3)))
    lines = []
    if name == "model.safetensors":
        lines.append(run("predict", tmp_path, tmp_path / "cloud.npy", "--device", "cpu"))
    else:
        lines.append(run("info", tmp_path))
    if name != "evaluation.json":
        lines.append(run("evaluate", tmp_path, "--dataset", "digits"))
    for line in lines:
        assert line.startswith("error: ") and line.count("\n") == 1 and re.search(message, line)


def test_wrong_words_and_help(capsys):
    for words in ([], ["predict"], ["sing"], ["predict", "folder", "--top_k", "many"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "usage: sft" in capsys.readouterr().err
    for words, parts in (
        (["--help"], (*COMMANDS, "examples:")),
        (["predict", "--help"], (".off", ".smi")),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        help_text = capsys.readouterr().out
        assert ended.value.code == 0 and all(part in help_text for part in parts)


def test_the_module_is_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["modeling_sft/__main__.py", "info", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("modeling_sft", run_name="__main__")
    assert ended.value.code == 2 and "no saved model" in capsys.readouterr().err
    assert sys.argv[0] == "sft"


@pytest.mark.slow
def test_the_package_runs_as_a_module(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "modeling_sft", "info", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2 and "no saved model" in result.stderr


# A package without its __init__, which imports torch.
WITHOUT_THE_PACKAGE = """
import sys, types
package = types.ModuleType("modeling_sft")
package.__path__ = [sys.argv[1]]
sys.modules["modeling_sft"] = package
from modeling_sft.cli import main, train
from modeling_sft.cli.program import COMMANDS, build_command_parser
for words in ([], *([name] for name in COMMANDS)):
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
print(sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names))
"""


def test_help_imports_the_standard_library_only():
    result = subprocess.run(
        [sys.executable, "-S", "-c", WITHOUT_THE_PACKAGE, str(ROOT / "modeling_sft")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "['__main__', 'modeling_sft']"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_description_and_examples(name):
    text = build_command_parser(name).format_help()
    examples = text.partition("\nexamples:\n")[2]
    assert text.startswith(f"usage: sft {name} ") and f"\n  sft {name}" in f"\n{examples}"
    assert COMMANDS[name].DESCRIPTION.split()[:3] == text.partition("\n\n")[2].split()[:3]


def test_the_installed_command_is_this_one():
    assert '\n[project.scripts]\nsft = "modeling_sft.cli:main"\n' in (ROOT / "pyproject.toml").read_text()


def test_errors_of_code_in_a_training_keep_their_place(monkeypatch):
    def broken(arguments):
        raise TypeError("a mistake")

    monkeypatch.setattr(train, "run", broken)
    with pytest.raises(TypeError, match="a mistake"):
        main(["train", "recipe.yaml"])
