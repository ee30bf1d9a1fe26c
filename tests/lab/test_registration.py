"""The laboratory makes its data sets and baselines known; the package without it says where they are."""

import subprocess
import sys

import pytest

WITHOUT_LAB = """
from modeling_sft.data import load_sequence_dataset
from modeling_sft.training import Recipe, get_task

for ask in (
    lambda: load_sequence_dataset("imdb", "."),
    lambda: get_task("graph-classification").validate(
        Recipe(task="graph-classification", baseline="gine", dataset={"name": "smiles_files"})
    ),
):
    try:
        ask()
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("lab", "lines"), [("", 2), ("import lab\n", 0)])
def test_only_the_laboratory_knows_benchmark_sets_and_baselines(lab: str, lines: int) -> None:
    run = subprocess.run([sys.executable, "-c", lab + WITHOUT_LAB], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = run.stdout.strip().splitlines()
    # With the laboratory the data set is known, and its files are asked for.
    assert len([line for line in said if "clone of the repository" in line]) == lines, said
