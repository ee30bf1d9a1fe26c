"""Without the Hub everything that was downloaded before loads, and for the rest the client says what is missing."""

import json

import pytest

from hub.client import Client
from hub.server import HubServer
from tiny_recipes import tiny_sequence_recipe

pytestmark = pytest.mark.slow

FILL_CACHE = """
import json
import numpy as np
import torch
from huggingface_hub import snapshot_download
from modeling_sft import PointCloudClassificationPipeline, SFTPointCloudProcessor, byte_tokenizer
from tiny_models import build, build_sequence

model, processor = build(dtype=torch.float32, num_neighbors=4), SFTPointCloudProcessor(num_neighbors=4)
classify = PointCloudClassificationPipeline(model, processor)
classify.push_to_hub("lab/cloud")
text_model, tokenizer = build_sequence(dtype=torch.float32, vocab_size=260), byte_tokenizer()
text_model.push_to_hub("lab/text")
tokenizer.push_to_hub("lab/text")
for repo in ("lab/cloud", "lab/text"):
    snapshot_download(repo)
cloud = np.random.default_rng(0).normal(size=(9, 3))
with torch.no_grad():
    logits = text_model(**tokenizer("a text", return_tensors="pt")).logits
print(json.dumps({"cloud": cloud.tolist(), "answer": classify(cloud), "logits": logits.tolist()}))
"""

LOAD_ALL = """
import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor, AutoTokenizer, pipeline

trust = dict(trust_remote_code=True)
cloud, answer, logits = np.array(cloud), list(answer), torch.tensor(logits)
classify = pipeline("point-cloud-classification", model="lab/cloud", device="cpu", **trust)
assert [entry["label"] for entry in classify(cloud)] == [entry["label"] for entry in answer]
assert np.allclose([entry["score"] for entry in classify(cloud)], [entry["score"] for entry in answer], atol=1e-6)
backbone = AutoModel.from_pretrained("lab/cloud", **trust)
assert backbone(**AutoProcessor.from_pretrained("lab/cloud", **trust)(cloud)).last_hidden_state.shape[:2] == (1, 9)
tokenizer = AutoTokenizer.from_pretrained("lab/text", **trust)
model = AutoModelForSequenceClassification.from_pretrained("lab/text", **trust)
assert torch.allclose(model(**tokenizer("a text", return_tensors="pt")).logits, logits, atol=1e-6)
"""

LOAD_COLD = """
import time
from datasets import load_dataset
from modeling_sft import AutoModelForPointCloudClassification
from transformers import AutoModel, AutoProcessor, AutoTokenizer

# The client waits between its attempts to reach a host, 23 seconds for each file.
time.sleep = lambda seconds: None
classes = (AutoModel, AutoModelForPointCloudClassification, AutoProcessor, AutoTokenizer)
for load in (*(each.from_pretrained for each in classes), load_dataset):
    try:
        load("lab/cold")
    except Exception as error:
        print("ERROR", type(error).__name__, " ".join(str(error).split()))
"""


@pytest.fixture(scope="module")
def stored(hub, home):
    """What the models in the cache answered when they were pushed."""
    with Client(hub.url, home, token="token-of-the-writer") as writer:
        return json.loads(writer.run(FILL_CACHE).splitlines()[-1])


@pytest.mark.parametrize("has_package", [True, False])
def test_what_was_downloaded_loads_without_the_hub(hub, home, stored, has_package):
    with Client(hub.url, home, offline=True, has_package=has_package) as client:
        before = len(hub.requests)
        client.run(LOAD_ALL, **stored)
        assert len(hub.requests) == before


@pytest.mark.parametrize(
    ("is_offline", "name", "setting"),
    [(True, "pretrained", "pretrained=lab/cold"), (False, "tokenizer", "processor.tokenizer=lab/cold")],
    ids=["offline", "unreachable"],
)
def test_what_was_not_downloaded_ends_in_a_clear_error(tmp_path, is_offline, name, setting):
    with HubServer() as gone:
        pass
    with Client(gone.url, tmp_path / "home", offline=is_offline) as client:
        errors = [line for line in client.run(LOAD_COLD).splitlines() if line.startswith("ERROR")]
        assert len(errors) == 5 and "ConnectionError Couldn't reach 'lab/cold' on the Hub" in errors.pop()
        for error in errors:
            assert f"OSError We couldn't connect to '{gone.url}'" in error and "couldn't find them in the" in error
        (tmp_path / "train.csv").write_text("text,label\n" + "good,yes\nbad,no\n" * 10)
        tiny_sequence_recipe(setting).save(tmp_path)
        text = client.run_command(
            "train.py", tmp_path / "recipe.yaml", "--data_dir", tmp_path, "--output_dir", tmp_path / "run"
        )
        assert "EXIT 2" in text and "Traceback" not in text
        assert f"{name}` 'lab/cold'" in text and "We couldn't connect to" in text
    assert not list((tmp_path / "home").rglob("*.incomplete"))
