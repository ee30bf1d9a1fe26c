"""A full disk, a read-only place and a second writer end in one line: what, where, and what to do."""

import json
import os
import re
import sys

import numpy as np
import pytest

from modeling_sft.cli import main
from modeling_sft.hub.writing import only_writer
from security.disks import largest_file

CPU = ("--device", "cpu")


@pytest.fixture
def clouds(tmp_path):
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(12, 3)))
    return [tmp_path / "cloud.npy"] * 40


@pytest.fixture
def refused(capsys):
    """Runs a command that must end in one line."""

    def call(pattern, *words):
        assert main([str(word) for word in words]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert re.match(f"error: `.*` cannot be written {pattern}", line), line

    return call


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_vectors_that_do_not_fit_leave_the_earlier_ones(refused, folders, clouds, tmp_path, suffix):
    output = tmp_path / f"vectors.{suffix}"
    output.write_text("earlier")
    with largest_file(1000):
        refused(
            r"\(.*\): free some space",
            "embed",
            folders / "point-cloud",
            *clouds,
            *CPU,
            "--output",
            output,
        )
    assert output.read_text() == "earlier" and not list(tmp_path.glob(".*"))


def test_reports_that_do_not_fit_leave_the_earlier_one(refused, trained, tmp_path):
    before = (trained / "evaluation.json").read_text()
    with largest_file(100):
        refused(
            r"\(.*\): free some space",
            "evaluate",
            trained,
            "--rotations",
            "none",
            "--save",
        )
    assert (trained / "evaluation.json").read_text() == before and not list(trained.glob(".*"))


def test_predictions_that_do_not_fit(folders, clouds, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["predict", str(folders / "point-cloud"), str(clouds[0]), *CPU]) == 2
        # What Python does when it ends.
        full.flush()
    line = capsys.readouterr().err
    assert line == (
        "error: `standard output` cannot be written (No space left on device): free some space there, or name another "
        "place.\n"
    )


def test_a_training_that_does_not_fit(refused, recipe, tmp_path):
    with largest_file(20_000):
        refused(r"\(.*\): free some space", "train", recipe, "--output_dir", tmp_path / "run")
    assert (tmp_path / "run" / "recipe.yaml").is_file()


def test_places_that_take_no_file_are_refused_before_the_work(refused, recipe, folders, trained, clouds, small_disk):
    os.system(f"mount -o remount,ro {small_disk}")
    pattern = r"\(Read-only file system\): name a place that you may write to"
    refused(pattern, "train", recipe, "--output_dir", small_disk / "run")
    refused(pattern, "evaluate", trained, "--rotations", "none", "--output", small_disk / "new" / "report.json")
    refused(pattern, "embed", folders / "point-cloud", *clouds, *CPU, "--output", small_disk / "vectors.npy")


def test_a_second_writer_is_told(refused, recipe, folders, trained, clouds, tmp_path):
    pattern = r"\(something else is writing there\): wait until it has ended"
    output = tmp_path / "vectors.npy"
    with only_writer(output):
        refused(pattern, "embed", folders / "point-cloud", *clouds, *CPU, "--output", output)
    with only_writer(trained / "evaluation.json"):
        refused(pattern, "evaluate", trained, "--rotations", "none", "--save")
    with only_writer(trained, trained / ".training.lock"):
        refused(pattern, "train", recipe, "--output_dir", trained, "seed=3", "--resume")
        refused(pattern, "train", recipe, "--output_dir", trained, "--overwrite")
    assert json.loads((trained / "training_log.json").read_text())["recipe"]["seed"] == 3


def test_a_training_removes_what_a_killed_save_left(run, recipe, trained):
    (trained / ".saving-killed").mkdir()
    (trained / ".saving-killed" / "model.safetensors").write_text("half")
    assert "saved in" in run("train", recipe, "--output_dir", trained, "seed=3", "--resume")
    assert not list(trained.glob(".*"))
