"""What push_to_hub uploads, from_pretrained("org/name") brings back. The real client talks to a local Hub."""

import pytest

PUSH_POINT_CLOUD = """
import torch
from modeling_sft import AutoModelForPointCloudClassification, SFTPointCloudProcessor
from transformers import AutoConfig, AutoModel, AutoProcessor
from random_clouds import random_cloud
from tiny_models import build

model, processor = build(dtype=torch.float32, num_neighbors=4), SFTPointCloudProcessor(num_neighbors=4)
model.push_to_hub(repo)
processor.push_to_hub(repo)
cloud = random_cloud(21, seed=0, dtype=torch.float32)
inputs = AutoProcessor.from_pretrained(repo)(cloud["points"], normals=cloud["normals"])
loaded = AutoModelForPointCloudClassification.from_pretrained(repo)
assert type(loaded) is type(model) and type(AutoModel.from_pretrained(repo)).__name__ == "SFTPointCloudModel"
with torch.no_grad():
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
assert AutoConfig.from_pretrained(repo).to_diff_dict() == loaded.config.to_diff_dict()
"""

PUSH_SEQUENCE = """
import torch
from modeling_sft import SFTConfig, SFTForSequenceClassification, byte_tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

config = SFTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3)
config.push_to_hub(repo)
assert AutoConfig.from_pretrained(repo).num_labels == 3
model, tokenizer = SFTForSequenceClassification(config).eval(), byte_tokenizer()
model.push_to_hub(repo)
tokenizer.push_to_hub(repo)
inputs = AutoTokenizer.from_pretrained(repo)(["one", "another one"], padding=True, return_tensors="pt")
assert inputs["input_ids"].tolist() == tokenizer(["one", "another one"], padding=True)["input_ids"]
with torch.no_grad():
    loaded = AutoModelForSequenceClassification.from_pretrained(repo)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
"""

PUSH_FEATURE_EXTRACTOR = """
import torch
from modeling_sft import SFTSequenceFeatureExtractor
from transformers import AutoFeatureExtractor

extractor = SFTSequenceFeatureExtractor(2, mean=[0.5, 0.1], std=[2.0, 1.0])
extractor.push_to_hub(repo)
loaded = SFTSequenceFeatureExtractor.from_pretrained(repo)
values = [torch.randn(5, 2), torch.randn(3, 2)]
expected = extractor(values, return_tensors="pt")
for name, value in loaded(values, return_tensors="pt").items():
    assert torch.equal(value, expected[name]), name
"""

PUSH_GRAPH = """
import torch
from modeling_sft import AutoModelForGraphClassification, SFTForGraphClassification, SFTGraphConfig, SFTGraphProcessor
from transformers import AutoProcessor

processor = SFTGraphProcessor(random_walk_steps=3)
config = SFTGraphConfig(
    node_vocab_sizes=[5], num_node_encodings=3, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, num_labels=2,
)
model = SFTForGraphClassification(config).eval()
model.push_to_hub(repo)
processor.push_to_hub(repo)
graphs = [{"node_feat": [[0], [4], [2]], "edge_index": [[0, 1], [1, 2]]}, {"node_feat": [[3]], "edge_index": [[], []]}]
inputs = AutoProcessor.from_pretrained(repo)(graphs)
with torch.no_grad():
    loaded = AutoModelForGraphClassification.from_pretrained(repo)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
"""

PUSH_POINT_CLOUD_PIPELINE = """
import numpy as np
import torch
from answers import assert_alike
from modeling_sft import PointCloudClassificationPipeline, SFTPointCloudProcessor
from tiny_models import build
from transformers import pipeline

model, processor = build(dtype=torch.float32, num_neighbors=4), SFTPointCloudProcessor(num_neighbors=4)
classify = PointCloudClassificationPipeline(model, processor)
classify.push_to_hub(repo)
clouds = [np.random.default_rng(0).normal(size=(size, 3)) for size in (9, 13)]
loaded = pipeline("point-cloud-classification", model=repo, trust_remote_code=True, device="cpu")
assert_alike(loaded(clouds, batch_size=2), classify(clouds, batch_size=2))
"""

PUSH_GRAPH_PIPELINE = """
import torch
from answers import assert_alike
from modeling_sft import NodeClassificationPipeline, SFTForNodeClassification, SFTGraphProcessor
from tiny_models import build_graph
from transformers import pipeline

columns = dict(node_vocab_sizes=[5], num_node_features=0, edge_vocab_sizes=None, num_edge_features=1)
model = build_graph(SFTForNodeClassification, torch.float32, num_node_encodings=3, **columns)
classify = NodeClassificationPipeline(model, SFTGraphProcessor(random_walk_steps=3))
classify.push_to_hub(repo)
graph = {"node_feat": [[0], [4], [2]], "edge_index": [[0, 1], [1, 2]], "edge_attr": [[0.5], [1.0]]}
loaded = pipeline("node-classification", model=repo, trust_remote_code=True, device="cpu")
assert_alike(loaded(graph), classify(graph))
"""

TRAIN_AND_PUSH = """
from modeling_sft import SFTForPointCloudClassification, SFTPointCloudConfig, SFTPointCloudProcessor
from modeling_sft.data import PointCloudCollator
from transformers import AutoProcessor, Trainer, TrainingArguments
from random_clouds import random_cloud

processor = SFTPointCloudProcessor(num_neighbors=4, use_normals=False)
config = SFTPointCloudConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_sampled_tokens=5,
    num_neighbors=4, local_mixing_size=4, use_normals=False, num_labels=2,
)
rows = [processor.preprocess(random_cloud(9, seed=seed)["points"]) | {"labels": seed % 2} for seed in range(6)]
trainer = Trainer(
    model=SFTForPointCloudClassification(config),
    args=TrainingArguments(
        folder, max_steps=2, per_device_train_batch_size=3, push_to_hub=True, hub_model_id=repo, save_strategy="steps",
        save_steps=1, use_cpu=True, report_to="none", remove_unused_columns=False, disable_tqdm=True,
    ),
    train_dataset=rows,
    data_collator=PointCloudCollator(processor),
    processing_class=processor,
)
trainer.train()
trainer.push_to_hub()
loaded = SFTForPointCloudClassification.from_pretrained(repo)
for name, value in trainer.model.state_dict().items():
    assert (loaded.state_dict()[name] == value).all(), name
assert AutoProcessor.from_pretrained(repo).num_neighbors == 4
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(
            PUSH_POINT_CLOUD,
            {"model.safetensors", "preprocessor_config.json", "modeling_sft_point_cloud.py"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            PUSH_SEQUENCE, {"model.safetensors", "tokenizer.json", "modeling_sft.py"}, marks=pytest.mark.slow
        ),
        (PUSH_FEATURE_EXTRACTOR, {"preprocessor_config.json", "feature_extraction_sft.py"}),
        (PUSH_GRAPH, {"model.safetensors", "preprocessor_config.json", "modeling_sft_graph.py"}),
        (PUSH_POINT_CLOUD_PIPELINE, {"preprocessor_config.json", "pipelines_point_cloud_sft.py"}),
        (PUSH_GRAPH_PIPELINE, {"preprocessor_config.json", "pipelines_graph_sft.py"}),
    ],
    ids=["point-cloud", "sequence", "feature-extractor", "graph", "point-cloud-pipeline", "graph-pipeline"],
)
def test_what_was_pushed_loads_by_its_name(hub, writer, request, script, expected):
    repo = f"lab/{request.node.callspec.id}"
    writer.run(script, repo=repo)
    files = hub.repositories[repo].files()
    assert expected <= set(files)
    if "model.safetensors" in files:
        assert files["model.safetensors"].is_lfs and "config.json" in files


def test_trainer_pushes_model_and_processor(hub, writer, tmp_path):
    writer.run(TRAIN_AND_PUSH, repo="lab/trained", folder=str(tmp_path / "run"))
    files = hub.repositories["lab/trained"].files()
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"} <= set(files)
    assert not any(path.startswith("checkpoint-") for path in files)


def test_a_revision_keeps_what_was_tagged(hub, writer):
    script = """
    from huggingface_hub import HfApi
    from modeling_sft import SFTConfig
    from transformers import AutoConfig

    SFTConfig(hidden_size=32).push_to_hub(repo)
    HfApi().create_tag(repo, tag="v1")
    SFTConfig(hidden_size=64).push_to_hub(repo)
    assert AutoConfig.from_pretrained(repo, revision="v1").hidden_size == 32
    assert AutoConfig.from_pretrained(repo).hidden_size == 64
    """
    writer.run(script, repo="lab/tagged")
    assert set(hub.repositories["lab/tagged"].tags) == {"v1"}


def test_an_unchanged_model_is_not_uploaded_again(hub, writer):
    script = """
    import torch
    from tiny_models import build
    build(dtype=torch.float32).push_to_hub(repo)
    """
    writer.run(script, repo="lab/twice")
    commits, uploads = len(hub.repositories["lab/twice"].commits), hub.count("PUT", "/lfs/")
    writer.run(script, repo="lab/twice")
    assert len(hub.repositories["lab/twice"].commits) == commits and hub.count("PUT", "/lfs/") == uploads


def test_readers_cannot_push(hub, writer):
    script = """
    from modeling_sft import SFTConfig
    SFTConfig().push_to_hub("lab/forbidden", token="token-of-the-reader")
    """
    assert "403" in writer.run(script, fails=True)
    assert "lab/forbidden" not in hub.repositories
