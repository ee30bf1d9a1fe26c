"""Folders of trained models, one per kind of data, each with the data that it reads."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from modeling_sft.training import tasks, train
from tiny_recipes import tiny_graph_recipe, tiny_recipe, tiny_sequence_recipe

SHORT = ("training.max_steps=2", "training.save_steps=2", "training.eval_steps=2")


class Trained(NamedTuple):
    folder: Path
    data: Path | None


@contextmanager
def reading_few_digits() -> Iterator[None]:
    splits = tasks.point_clouds.load_point_cloud_dataset("digits")
    few = {"train": splits["train"].select(range(80)), "test": splits["test"].select(range(41))}
    with pytest.MonkeyPatch.context() as context:
        loader = staticmethod(lambda name, data_dir: few)
        context.setattr(tasks.point_clouds.PointCloudTask, "load_dataset", loader)
        yield


@pytest.fixture(scope="module", autouse=True)
def few_digits():
    """The digits are read in part, for all tests of this folder."""
    with reading_few_digits():
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("digits") / "run"
    with reading_few_digits():
        train(tiny_recipe(*SHORT, "dataset.validation_fraction=0.2"), folder)
    return Trained(folder, None)


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Trained:
    data = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        with (data / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(count):
                letters = rng.choice(list("abc" if row % 2 else "xyz"), 140 + 15 * row)
                writer.writerow(["".join(letters), "first" if row % 2 else "last"])
    folder = tmp_path_factory.mktemp("text-model") / "run"
    train(tiny_sequence_recipe(*SHORT, "processor.max_length=300"), folder, data)
    return Trained(folder, data)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Trained:
    data = tmp_path_factory.mktemp("images")
    (data / "mnist").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        np.savez(data / "mnist" / f"{split}.npz", image=pixels, label=labels)
    folder = tmp_path_factory.mktemp("image-model") / "run"
    overrides = ("dataset.name=mnist", "processor.tokenizer=null", "processor.max_length=null")
    train(tiny_sequence_recipe(*SHORT, *overrides), folder, data)
    return Trained(folder, data)


def write_molecules(path: Path, count: int) -> None:
    """Chains with or without an acid and an amine; some labels are missing."""
    rng = np.random.default_rng(count)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "smell", "acid", "amine", "weight"])
        for row in range(count):
            length, acid, amine = int(rng.integers(3, 12)), row % 2, int(rng.integers(2))
            smiles = ("N" if amine else "C") + "C" * length + ("C(=O)O" if acid else "CC")
            smell = "sour" if acid else "none"
            writer.writerow([smiles, smell, f"{acid}.0", "" if row % 7 == 3 else f"{amine}.0", 14.0 * length])


@pytest.fixture(scope="session")
def molecules(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("molecules")
    write_molecules(data / "train.csv", 40)
    write_molecules(data / "test.csv", 15)
    return data


@pytest.fixture(scope="session")
def graphs(tmp_path_factory, molecules) -> Trained:
    folder = tmp_path_factory.mktemp("graph-model") / "run"
    train(tiny_graph_recipe(*SHORT, "dataset.target_columns=[smell]"), folder, molecules)
    return Trained(folder, molecules)


@pytest.fixture(scope="session")
def labelled_graphs(tmp_path_factory, molecules) -> Trained:
    folder = tmp_path_factory.mktemp("multi-label-model") / "run"
    task = ("task=graph-multi-label-classification", "dataset.target_columns=[acid,amine]")
    train(tiny_graph_recipe(*SHORT, *task), folder, molecules)
    return Trained(folder, molecules)


@pytest.fixture(scope="session")
def weights_of_molecules(tmp_path_factory, molecules) -> Trained:
    folder = tmp_path_factory.mktemp("regression-model") / "run"
    train(tiny_graph_recipe(*SHORT, "task=graph-regression", "dataset.target_columns=[weight]"), folder, molecules)
    return Trained(folder, molecules)
