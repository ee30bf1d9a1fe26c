"""The README's paths from a user's own files to a prediction, word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
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


@pytest.mark.slow
def test_from_a_folder_of_meshes_to_a_prediction(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("box", "ring", "rod"):
        folder = tmp_path / "my_shapes" / kind
        folder.mkdir(parents=True)
        for number in range(20):
            shape(kind, rng).export(folder / f"{number}.{SUFFIXES[number % 4]}")
    shape("ring", rng).export(tmp_path / "new_shape.stl")
    for name in ("scripts", "configuration"):
        (tmp_path / name).symlink_to(ROOT / name)

    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command: str) -> str:
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        return result.stdout

    text = section("Your own shapes")
    (commands,) = blocks(text, "bash")
    report = run("bash", "-ec", commands)
    (snippet,) = blocks(text, "python")
    prediction = run(sys.executable, "-c", snippet)
    assert re.fullmatch(r"ring: (0\.\d\d|1\.00)\n", prediction), prediction
    accuracy = float(re.search(r"^none +([\d.]+)", report, re.MULTILINE)[1])
    assert accuracy > 80, report
