"""The README's paths from a user's own files to a prediction, word for word."""

import ast
import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_sft.training import load_recipe
from paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SUFFIXES = ("off", "obj", "ply", "stl")


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def shape(kind: str, rng: np.random.Generator):
    creation = pytest.importorskip("trimesh").creation
    if kind == "box":
        return creation.box(extents=rng.uniform(0.5, 2.0, 3))
    if kind == "rod":
        return creation.cylinder(radius=rng.uniform(0.1, 0.3), height=rng.uniform(2.0, 3.0))
    return creation.torus(major_radius=rng.uniform(1.0, 1.5), minor_radius=rng.uniform(0.1, 0.3))


def runner(folder: Path):
    """A function that runs a command of the README in a folder with the scripts and recipes, and gives its output."""
    for name in ("scripts", "configuration"):
        (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command: str) -> str:
        result = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        return result.stdout

    return run


@pytest.mark.slow
def test_from_a_folder_of_meshes_to_a_prediction(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("box", "ring", "rod"):
        folder = tmp_path / "my_shapes" / kind
        folder.mkdir(parents=True)
        for number in range(20):
            shape(kind, rng).export(folder / f"{number}.{SUFFIXES[number % 4]}")
    shape("ring", rng).export(tmp_path / "new_shape.stl")
    run = runner(tmp_path)
    text = section("Your own shapes")
    (commands,) = blocks(text, "bash")
    report = run("bash", "-ec", commands)
    (snippet,) = blocks(text, "python")
    prediction = run(sys.executable, "-c", snippet)
    assert re.fullmatch(r"ring: (0\.\d\d|1\.00)\n", prediction), prediction
    accuracy = float(re.search(r"^none +([\d.]+)", report, re.MULTILINE)[1])
    assert accuracy > 80, report


OPINIONS = {
    "positive": ["wonderful", "the best", "a pleasure", "great fun", "moving"],
    "negative": ["dull", "the worst", "a waste", "a great bore", "annoying"],
}


def review(opinion: str, rng: np.random.Generator) -> str:
    parts = ["I saw this film last year", "the cast is new", "it is set in Rome", "my seat was fine"]
    remarks = [f"it was {word}" for word in rng.choice(OPINIONS[opinion], rng.integers(2, 5))]
    sentences = [*rng.choice(parts, rng.integers(1, 4)), *remarks]
    return ". ".join(sentences[index] for index in rng.permutation(len(sentences))) + "."


@pytest.mark.slow
def test_from_a_table_of_texts_to_a_prediction(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "my_texts").mkdir()
    for split, count in (("train", 400), ("test", 100)):
        with (tmp_path / "my_texts" / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            opinions = rng.choice(list(OPINIONS), count)
            writer.writerows((review(opinion, rng), opinion) for opinion in opinions)

    run = runner(tmp_path)
    text = section("Your own texts")
    (commands,) = blocks(text, "bash")
    report = run("bash", "-ec", commands)
    accuracy = float(re.search(r"^none +([\d.]+)", report, re.MULTILINE)[1])
    assert accuracy > 90, report
    (snippet,) = blocks(text, "python")
    (prediction,) = ast.literal_eval(run(sys.executable, "-c", snippet))
    assert prediction["label"] == "positive" and prediction["score"] > 0.5


FRAGMENTS = ("C", "CC", "C(C)C", "C(O)C", "C(N)C", "C(Cl)C")


def write_molecules(path: Path, count: int) -> None:
    """Chains with branches, and a number that their atoms add up to."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("smiles", "solubility"))
        for _ in range(count):
            smiles = "C" + "".join(rng.choice(FRAGMENTS, rng.integers(1, 7)))
            writer.writerow((smiles, f"{solubility(smiles):.2f}"))


def solubility(smiles: str) -> float:
    return 3 * smiles.count("O") + 2 * smiles.count("N") - 0.5 * smiles.count("C")


@pytest.mark.slow
def test_from_a_table_of_molecules_to_a_prediction(tmp_path):
    pytest.importorskip("rdkit")
    write_molecules(tmp_path / "my_molecules.csv", 100)
    run = runner(tmp_path)
    text = section("Your own molecules")
    (commands,) = blocks(text, "bash")
    report = run("bash", "-ec", commands)
    error = float(re.search(r"^none +([\d.]+)", report, re.MULTILINE)[1])
    # The mean of the training data is off by 2.4.
    assert error < 0.8, report
    (snippet,) = blocks(text, "python")
    assert float(run(sys.executable, "-c", snippet)) == pytest.approx(solubility("CC(O)CC"), abs=1)


def test_the_recipe_of_molecules_takes_the_tasks_that_the_readme_names():
    overrides = re.findall(r"`(task=\S+ dataset[^`]*)`", section("Your own molecules"))
    path = ROOT / "configuration" / "molecules" / "sft.yaml"
    recipes = [load_recipe(path, given.split()) for given in overrides]
    assert [recipe.task for recipe in recipes] == ["graph-classification", "graph-multi-label-classification"]
    assert [recipe.dataset["task"] for recipe in recipes] == ["classification", "labels"]


@pytest.mark.slow
def test_from_a_list_of_graphs_to_a_saved_model(tmp_path):
    data_class = pytest.importorskip("torch_geometric.data").Data
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for number in range(200):
        size, label = 6 + number % 7, number % 2
        ring = torch.arange(size)
        edges = torch.stack([ring, (ring + 1) % size])
        # A ring, or two paths, of the same features.
        edges = edges if label else edges[:, (ring != size - 1) & (ring != size // 2)]
        edges = torch.cat([edges, edges.flip(0)], dim=1)
        features = (torch.randn(count, 3, generator=generator) for count in (size, edges.shape[1]))
        graphs.append(data_class(next(features), edges, next(features), torch.tensor(label)))
    torch.save(graphs, tmp_path / "my_graphs.pt")
    run = runner(tmp_path)
    (snippet,) = blocks(section("Your own graphs"), "python")
    report = run(sys.executable, "-c", snippet)
    assert float(re.search(r"'eval_accuracy': '?([\d.]+)", report)[1]) > 0.9, report
    assert (tmp_path / "outputs" / "graphs" / "model" / "modeling_sft_graph.py").is_file()
    assert (tmp_path / "outputs" / "graphs" / "model" / "preprocessor_config.json").is_file()
