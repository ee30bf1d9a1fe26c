"""Checkpoints carry their code: everything loads in a process that cannot import the package."""

import json

import pytest
import torch
from transformers import AutoModel

import modeling_sft
from hub.without_package import run_without_package
from modeling_sft import (
    SFTConfig,
    SFTGraphProcessor,
    SFTPointCloudProcessor,
    SFTSequenceFeatureExtractor,
    byte_tokenizer,
)
from random_clouds import random_cloud
from tiny_models import build, build_graph

SCRIPT = """
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder = sys.argv[1]
stored = torch.load(folder + "/stored.pt")
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(stored["points"], normals=stored["normals"])
backbone = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
Head = get_class_from_dynamic_module(config.auto_map["AutoModelForPointCloudClassification"], folder)
head = Head.from_pretrained(folder).eval()
for thing in (config, processor, extractor, backbone, head):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
with torch.no_grad():
    torch.testing.assert_close(head(**inputs).logits, stored["logits"])
    torch.testing.assert_close(backbone(**inputs).last_hidden_state, stored["states"])
head.save_pretrained(folder + "/again")
processor.save_pretrained(folder + "/again")
print("REMOTE CODE WORKS")
"""

SEQUENCE_SCRIPT = """
import torch
import transformers
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder = sys.argv[1]
stored = torch.load(folder + "/stored.pt")
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
backbone = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
if hasattr(transformers, stored["auto_class"]):
    head = getattr(transformers, stored["auto_class"]).from_pretrained(folder, trust_remote_code=True).eval()
else:
    head = get_class_from_dynamic_module(config.auto_map[stored["auto_class"]], folder).from_pretrained(folder).eval()
assert type(backbone).__name__ == "SFTModel" and type(head).__name__ == stored["class"]
for thing in (config, backbone, head):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
if "values" in stored:
    processor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    assert type(processor).__module__.startswith("transformers_modules."), type(processor)
    inputs = processor(stored["values"], return_tensors="pt")
else:
    processor = AutoTokenizer.from_pretrained(folder)
    inputs = processor(stored["texts"], padding=True, return_tensors="pt")
pair = {f"pair_{name}": value.flip(0) for name, value in inputs.items()} if "Pair" in stored["class"] else {}
with torch.no_grad():
    outputs = head(**inputs, **pair)
    torch.testing.assert_close(outputs.logits if "logits" in outputs else outputs.start_logits, stored["outputs"])
    torch.testing.assert_close(backbone(**inputs).last_hidden_state, stored["states"])
if stored["class"] == "SFTForSequenceClassification" and "texts" in stored:
    labels = pipeline("text-classification", model=folder, trust_remote_code=True)(stored["texts"])
    assert [answer["label"] for answer in labels] == stored["labels"]
head.save_pretrained(folder + "/again")
processor.save_pretrained(folder + "/again")
print("REMOTE CODE WORKS")
"""

GRAPH_SCRIPT = """
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder = sys.argv[1]
stored = torch.load(folder + "/stored.pt")
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
backbone = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
Head = get_class_from_dynamic_module(config.auto_map[stored["auto_class"]], folder)
head = Head.from_pretrained(folder).eval()
assert type(backbone).__name__ == "SFTGraphModel" and type(head).__name__ == stored["class"]
for thing in (config, processor, extractor, backbone, head):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
inputs = processor(stored["graphs"])
del inputs["labels"]
pairs = {"node_pairs": inputs.pop("node_pairs")}
with torch.no_grad():
    torch.testing.assert_close(backbone(**inputs).last_hidden_state, stored["states"])
    torch.testing.assert_close(head(**inputs, **(pairs if "Link" in stored["class"] else {})).logits, stored["logits"])
head.save_pretrained(folder + "/again")
processor.save_pretrained(folder + "/again")
print("REMOTE CODE WORKS")
"""

GRAPH_HEADS = ("GraphClassification", "NodeClassification", "LinkPrediction")

HEADS = (
    "MaskedLM",
    "SequenceClassification",
    "TokenClassification",
    "QuestionAnswering",
    "SequencePairClassification",
)


def save_sequence_model(folder, head, is_continuous=False):
    """A random model, saved with its processor and with what it answers."""
    torch.manual_seed(0)
    config = SFTConfig(
        vocab_size=0 if is_continuous else 260,
        num_input_features=2 if is_continuous else 0,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_sampled_tokens=6,
        residual_scale_init=1.0,
        relation=head == "TokenClassification",
        id2label={0: "good", 1: "bad", 2: "ugly"},
    )
    model = getattr(modeling_sft, f"SFTFor{head}")(config).eval()
    stored = {"auto_class": f"AutoModelFor{head}", "class": f"SFTFor{head}"}
    if is_continuous:
        stored["values"] = [torch.randn(9, 2), torch.randn(5, 2)]
        processor = SFTSequenceFeatureExtractor(2, mean=[0.5, 0.1], std=[2.0, 1.0])
        inputs = processor(stored["values"], return_tensors="pt")
    else:
        stored["texts"] = ["one sentence", "another, longer sentence"]
        processor = byte_tokenizer()
        inputs = processor(stored["texts"], padding=True, return_tensors="pt")
    pair = {f"pair_{name}": value.flip(0) for name, value in inputs.items()} if "Pair" in head else {}
    with torch.no_grad():
        outputs = model(**inputs, **pair)
        stored["outputs"] = outputs.logits if "logits" in outputs else outputs.start_logits
        stored["states"] = model.sft(**inputs).last_hidden_state
    if head == "SequenceClassification":
        stored["labels"] = [config.id2label[index] for index in outputs.logits.argmax(-1).tolist()]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.save(stored, folder / "stored.pt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = build(dtype=torch.float32, num_neighbors=4)
    processor = SFTPointCloudProcessor(num_neighbors=4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    cloud = random_cloud(20, seed=0, dtype=torch.float32)
    inputs = processor(cloud["points"], normals=cloud["normals"])
    with torch.no_grad():
        stored = {
            "points": cloud["points"],
            "normals": cloud["normals"],
            "logits": model(**inputs).logits,
            "states": model.sft(**inputs).last_hidden_state,
        }
    torch.save(stored, folder / "stored.pt")
    return folder


def assert_same_code(*folders):
    """The Python files of several folders are equal to the byte."""
    first, *others = ({path.name: path.read_bytes() for path in folder.glob("*.py")} for folder in folders)
    assert first and all(other == first for other in others)


@pytest.mark.slow
def test_config_backbone_head_and_processor_load_without_the_package(checkpoint, tmp_path):
    result = run_without_package(checkpoint, tmp_path, SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    # What was loaded from remote code and saved again is whole as well.
    again = checkpoint / "again"
    torch.save(torch.load(checkpoint / "stored.pt"), again / "stored.pt")
    result = run_without_package(again, tmp_path, SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    assert_same_code(checkpoint, again, again / "again")


def test_the_folder_lists_its_whole_code(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert set(config["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForPointCloudClassification",
        "AutoModelForPointCloudSegmentation",
    }
    for reference in config["auto_map"].values():
        assert (checkpoint / f"{reference.split('.')[0]}.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_sequence_heads_and_tokenizers_load_without_the_package(tmp_path, head):
    folder = tmp_path / "checkpoint"
    save_sequence_model(folder, head)
    result = run_without_package(folder, tmp_path, SEQUENCE_SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]


@pytest.mark.slow
def test_sequence_models_of_continuous_values_load_without_the_package_twice(tmp_path):
    folder = tmp_path / "checkpoint"
    save_sequence_model(folder, "SequenceClassification", is_continuous=True)
    result = run_without_package(folder, tmp_path, SEQUENCE_SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    # What was loaded from remote code and saved again is whole as well.
    torch.save(torch.load(folder / "stored.pt"), folder / "again" / "stored.pt")
    result = run_without_package(folder / "again", tmp_path, SEQUENCE_SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    assert_same_code(folder, folder / "again", folder / "again" / "again")


@pytest.mark.parametrize("head", HEADS)
def test_the_folder_of_a_sequence_model_lists_its_whole_code(tmp_path, head):
    save_sequence_model(tmp_path, head)
    config = json.loads((tmp_path / "config.json").read_text())
    heads = (*HEADS, "PreTraining")
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", *(f"AutoModelFor{name}" for name in heads)}
    for reference in config["auto_map"].values():
        assert (tmp_path / f"{reference.split('.')[0]}.py").is_file()
    # Any Transformers reads the tokenizer: no class of this package, no code to trust.
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "auto_map" not in tokenizer and (tmp_path / "tokenizer.json").is_file()
    assert type(AutoModel.from_pretrained(tmp_path)) is modeling_sft.SFTModel


def save_graph_model(folder, head):
    """A random model, saved with its processor and with what it answers on two graphs, one of them without edges."""
    model = build_graph(
        getattr(modeling_sft, f"SFTFor{head}"),
        torch.float32,
        node_vocab_sizes=[5],
        num_node_features=0,
        edge_vocab_sizes=None,
        num_edge_features=1,
    )
    processor = SFTGraphProcessor(random_walk_steps=2, laplacian_vectors=1)
    edges = [[0, 1, 1, 2, 2, 2], [1, 0, 2, 1, 2, 0]]
    path = {"node_feat": [[0], [4], [2]], "edge_index": edges, "edge_attr": [[0.5], [1.5], [2.0], [2.0], [0.0], [1.0]]}
    dot = {"node_feat": [[3]], "edge_index": [[], []]}
    graphs = [path | {"edge_label_index": [[0, 1], [2, 0]]}, dot | {"edge_label_index": [[0, 0], [0, 0]]}]
    inputs = processor(graphs)
    assert inputs.pop("labels").shape == (2, 2)
    pairs = {"node_pairs": inputs.pop("node_pairs")}
    with torch.no_grad():
        stored = {
            "auto_class": f"AutoModelFor{head}",
            "class": f"SFTFor{head}",
            "graphs": graphs,
            "states": model.sft(**inputs).last_hidden_state,
            "logits": model(**inputs, **(pairs if head == "LinkPrediction" else {})).logits,
        }
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.save(stored, folder / "stored.pt")


@pytest.mark.slow
@pytest.mark.parametrize("head", GRAPH_HEADS)
def test_graph_heads_and_their_processor_load_without_the_package_twice(tmp_path, head):
    folder = tmp_path / "checkpoint"
    save_graph_model(folder, head)
    result = run_without_package(folder, tmp_path, GRAPH_SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    # What was loaded from remote code and saved again is whole as well.
    torch.save(torch.load(folder / "stored.pt"), folder / "again" / "stored.pt")
    result = run_without_package(folder / "again", tmp_path, GRAPH_SCRIPT)
    assert "REMOTE CODE WORKS" in result.stdout, result.stderr[-3000:]
    assert_same_code(folder, folder / "again", folder / "again" / "again")


@pytest.mark.parametrize("head", GRAPH_HEADS)
def test_the_folder_of_a_graph_model_lists_its_whole_code(tmp_path, head):
    save_graph_model(tmp_path, head)
    config = json.loads((tmp_path / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", *(f"AutoModelFor{name}" for name in GRAPH_HEADS)}
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert set(processor["auto_map"]) == {"AutoFeatureExtractor", "AutoProcessor"}
    for reference in (*config["auto_map"].values(), *processor["auto_map"].values()):
        assert (tmp_path / f"{reference.split('.')[0]}.py").is_file()
    assert type(AutoModel.from_pretrained(tmp_path)) is modeling_sft.SFTGraphModel
