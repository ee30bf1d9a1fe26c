"""A repository's code loads where the package is not installed, and only if it is trusted."""

import pytest

from hub.client import Client

PUSH = """
import torch
from modeling_sft import SFTPointCloudProcessor
from random_clouds import random_cloud
from tiny_models import build

model, processor = build(dtype=torch.float32, num_neighbors=4), SFTPointCloudProcessor(num_neighbors=4)
model.push_to_hub("lab/cloud")
processor.push_to_hub("lab/cloud")
cloud = random_cloud(21, seed=0, dtype=torch.float32)
inputs = processor(cloud["points"], normals=cloud["normals"])
with torch.no_grad():
    torch.save({**cloud, "states": model.sft(**inputs).last_hidden_state}, stored)
"""

LOAD = """
import torch
from transformers import AutoModel, AutoProcessor

cloud = torch.load(stored)
processor = AutoProcessor.from_pretrained("lab/cloud", trust_remote_code=True)
model = AutoModel.from_pretrained("lab/cloud", trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules.lab.cloud."), type(model)
with torch.no_grad():
    states = model(**processor(cloud["points"], normals=cloud["normals"])).last_hidden_state
torch.testing.assert_close(states, cloud["states"])
"""

LOAD_UNTRUSTED = """
from transformers import AutoModel
AutoModel.from_pretrained("lab/cloud", trust_remote_code=False)
"""


@pytest.fixture(scope="module")
def stranger(hub, tmp_path_factory):
    with Client(hub.url, tmp_path_factory.mktemp("stranger"), has_package=False) as client:
        yield client


@pytest.mark.slow
def test_code_comes_with_the_model_if_it_is_trusted(hub, writer, stranger, tmp_path):
    stored = str(tmp_path / "stored.pt")
    writer.run(PUSH, stored=stored)
    assert "trust_remote_code" in stranger.run(LOAD_UNTRUSTED, fails=True)
    assert hub.count("GET", "/modeling_sft_point_cloud.py") == 0
    stranger.run(LOAD, stored=stored)
    assert hub.count("GET", "/modeling_sft_point_cloud.py") == 1


@pytest.mark.slow
def test_with_the_package_its_own_code_is_used(hub, writer, tmp_path):
    if "lab/cloud" not in hub.repositories:
        writer.run(PUSH, stored=str(tmp_path / "stored.pt"))
    script = """
    from transformers import AutoModel
    for trust in (True, False):
        model = AutoModel.from_pretrained("lab/cloud", trust_remote_code=trust)
        assert type(model).__module__ == "modeling_sft.point_cloud.modeling_sft_point_cloud", type(model)
    """
    writer.run(script)
