"""`sft repeat`: what it refuses. tests/scripts/test_command_lines.py has a whole run of it."""

import pytest


@pytest.mark.parametrize("over", ["seed", "=1,2", "seed=1,1", "dataset.fold=1"])
def test_what_cannot_be_repeated(run, recipe, tmp_path, over):
    assert run("repeat", recipe, "--over", over, "--output_dir", tmp_path / "runs").startswith("error: ")
    assert not (tmp_path / "runs").exists()
