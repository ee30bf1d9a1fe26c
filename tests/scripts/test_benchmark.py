import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

from lab.benchmarks import DTYPES, SUITES
from paths import ROOT

SCRIPT = ROOT / "scripts" / "benchmark.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TINY = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 2 --intermediate_size 64 --num_sampled_tokens 9"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("script_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
        return module.main()

    module.run = main
    return module


def test_help_names_every_option():
    command = [sys.executable, str(SCRIPT), "--help"]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    options = "suite lengths models modes dtype device rounds threads seed memory output_dir append list".split()
    assert all(f"--{option} " in result.stdout for option in options)


def test_names_are_those_of_the_package(script):
    assert script.SUITES == tuple(SUITES)
    assert script.DTYPES == tuple(DTYPES)


def test_list_names_every_model(script, capsys):
    with pytest.raises(SystemExit) as exit_:
        script.run("--list")
    assert not exit_.value.code
    printed = capsys.readouterr().out
    for suite in SUITES.values():
        for name, case in suite.cases.items():
            assert f"{name}{'*' if name in suite.default_models else ''}: {case.label}" in printed


def test_a_tiny_run(script, tmp_path, capsys):
    options = f"--suite tokens --models sft bert --lengths 33 --rounds 1 --min_seconds 0 --no-memory {TINY}"
    assert script.run(*options.split(), "--output_dir", tmp_path) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"results.csv", "table.md", "tokens.png", "environment.json"}
    assert "hidden_size 32" in (tmp_path / "table.md").read_text()
    assert "SFT, float32, sft_fused" in capsys.readouterr().out


def test_mistakes_end_in_one_line(script, tmp_path, capsys):
    assert script.run("--suite", "tokens", "--models", "brt", "--output_dir", tmp_path / "new") == 2
    assert capsys.readouterr().err.startswith("error: models brt: the suite tokens has sft,")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(tmp_path):
    options = f"--suite tokens --models sft bert --lengths 33 65 --rounds 100000 {TINY}"
    command = [sys.executable, str(SCRIPT), *options.split(), "--output_dir", str(tmp_path)]
    progress = tmp_path / "progress.txt"
    with progress.open("w") as errors:
        process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            # Shells have background jobs ignore the signal, and children inherit that.
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        try:
            while progress.read_text().count("timing of bert") < 20 and process.poll() is None:
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, progress.read_text()
    assert "Traceback" not in progress.read_text()
    assert output.count(", interrupted |") == 2
    assert (tmp_path / "tokens.png").is_file()
