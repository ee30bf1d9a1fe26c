"""What is published of the released models loads, with its code, in a process that cannot import the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.without_package import run_without_package
from modeling_sft.publishing import prepare
from paths import ROOT

SCRIPT = """
import json
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
reference = next(where for where in config.auto_map.values() if where.endswith("." + config.architectures[0]))
model = get_class_from_dynamic_module(reference, folder).from_pretrained(folder).eval()
for thing in (config, model):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
print("processor", type(LOADER.from_pretrained(folder, trust_remote_code=True)))
with open(folder + "/example.json") as file:
    example = json.load(file)
with torch.no_grad():
    logits = model(**{name: torch.tensor(value) for name, value in example["inputs"].items()}).logits
torch.testing.assert_close(logits, torch.tensor(example["logits"]), rtol=1e-4, atol=1e-4)
print("REMOTE CODE WORKS")
"""

pytestmark = pytest.mark.skipif(not (ROOT / "model_cards").is_dir(), reason="the sdist has no models")


@pytest.mark.parametrize(
    ("name", "loader", "processor"),
    [
        pytest.param("sft-listops", "AutoTokenizer", "transformers.", marks=pytest.mark.slow),
        pytest.param("sft-mnist-pixels", "AutoFeatureExtractor", "transformers_modules.", marks=pytest.mark.slow),
        pytest.param("sft-tox21", "AutoProcessor", "transformers_modules.", marks=pytest.mark.slow),
        ("sft-modelnet10-invariant", "AutoProcessor", "transformers_modules."),
    ],
)
def test_a_published_release_gives_its_logits_by_its_own_code(
    tmp_path: Path, name: str, loader: str, processor: str
) -> None:
    source, uploaded = tmp_path / "source", tmp_path / "uploaded"
    source.mkdir()
    for path in (ROOT / "model_cards" / name).iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    before = sorted(source.iterdir())
    publication = prepare(source, f"org/{name}")
    assert sorted(source.iterdir()) == before
    uploaded.mkdir()
    for file in publication.files:
        (uploaded / file.name).write_bytes(file.read_bytes())
    result = run_without_package(uploaded, tmp_path, SCRIPT.replace("LOADER", loader))
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    assert f"processor <class '{processor}" in result.stdout
