"""Unknown arguments of models, processors and pipelines are refused; what Transformers adds, and saved files, pass."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoFeatureExtractor, pipeline

import modeling_sft
from configurations import tiny_config, tiny_graph_config, tiny_sequence_config
from modeling_sft import (
    SFTForPointCloudClassification,
    SFTGraphProcessor,
    SFTPointCloudModel,
    SFTPointCloudProcessor,
    SFTSequenceFeatureExtractor,
)
from paths import ROOT

MODELS = [cls for cls in map(vars(modeling_sft).get, modeling_sft.__all__) if getattr(cls, "auto_class_name", None)]
PROCESSORS = (SFTGraphProcessor, SFTPointCloudProcessor, SFTSequenceFeatureExtractor)
GRAPH = {"node_feat": [[0], [1], [2]], "edge_index": [[0, 1], [1, 2]]}
# What programs for models of all kinds pass: PEFT, for one, `inputs_embeds`.
OPTIONS = {"num_items_in_batch": 1, "return_dict": True, "use_cache": False, "inputs_embeds": None, "input_ids": None}
OUTPUTS = ("hidden_states", "attentions", "sampled_tokens", "importance_scores")


def tiny(cls: Any) -> Any:
    torch.manual_seed(0)
    if cls.main_input_name == "input_ids":
        hashes = {"context_hash_sizes": [1]} if "PreTraining" in cls.__name__ else {}
        return cls(tiny_sequence_config(**hashes)).eval()
    if cls.main_input_name == "points":
        return cls(tiny_config(use_normals=False)).eval()
    plain = {"node_vocab_sizes": [3], "num_node_features": 0, "num_node_encodings": 0, "edge_vocab_sizes": None}
    return cls(tiny_graph_config(**plain)).eval()


def inputs_of(model: Any) -> dict[str, Any]:
    if model.main_input_name == "input_ids":
        ids = torch.ones(1, 4, dtype=torch.long)
        return {"input_ids": ids, "pair_input_ids": ids} if "Pair" in type(model).__name__ else {"input_ids": ids}
    if model.main_input_name == "points":
        return {"points": torch.randn(1, 6, 3)}
    inputs = dict(SFTGraphProcessor()(GRAPH))
    return inputs | {"node_pairs": torch.tensor([[[0, 1]]])} if "Link" in type(model).__name__ else inputs


def test_all_models_are_tested() -> None:
    assert len(MODELS) == 14


@pytest.mark.parametrize("cls", MODELS)
def test_models_refuse_what_they_do_not_read(cls: Any) -> None:
    model, name = tiny(cls), cls.main_input_name
    inputs = inputs_of(model)
    for words in ({name[:-1]: inputs[name]}, {**inputs, name[:-1]: inputs[name]}):
        with pytest.raises(TypeError, match=f"^{cls.__name__} has no argument `{name[:-1]}`: did you mean `{name}`"):
            model(**words)
    with pytest.raises(TypeError, match=f"no argument `qqq`: it takes {name}, .*output_sampled_tokens"):
        model(**inputs, qqq=1)


@pytest.mark.parametrize("cls", MODELS)
def test_models_take_what_transformers_adds(cls: Any) -> None:
    model = tiny(cls)
    inputs = inputs_of(model)
    outputs = model(**(OPTIONS | {f"output_{name}": True for name in OUTPUTS} | inputs))
    assert all(len(outputs[name]) >= 2 for name in OUTPUTS)
    assert isinstance(model(**inputs, return_dict=False), tuple)
    # Trainer reads the names of the columns that it keeps off the signature, and whether it may count labels.
    parameters = inspect.signature(model.forward).parameters
    assert set(inputs) <= set(parameters)
    assert inspect.Parameter.VAR_KEYWORD in {parameter.kind for parameter in parameters.values()}


def test_inputs_of_other_models_are_refused() -> None:
    model = tiny(SFTPointCloudModel)
    points = inputs_of(model)["points"]
    with pytest.raises(TypeError, match="no argument `input_ids`"):
        model(points, input_ids=torch.ones(1, 6, dtype=torch.long))
    with pytest.raises(TypeError, match="no argument `normal`: did you mean `normals`"):
        model(points, normal=points)
    with pytest.raises(TypeError, match="no argument `labels`"):
        model(points, labels=torch.zeros(1, dtype=torch.long))


@pytest.mark.slow
def test_traces_see_nothing_of_the_check() -> None:
    model = tiny(SFTPointCloudModel)
    points = torch.randn(2, 8, 3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = model(points, output_hidden_states=False).last_hidden_state
    torch.testing.assert_close(compiled(points, output_hidden_states=False).last_hidden_state, expected)
    with pytest.raises(TypeError, match="did you mean `normals`"):
        torch.compile(model, backend="eager")(points, normal=points)


@pytest.mark.parametrize("cls", PROCESSORS)
def test_processors_refuse_what_they_do_not_read(cls: Any, tmp_path: Path) -> None:
    near, name = {
        SFTGraphProcessor: ("random_walks", "random_walk_steps"),
        SFTPointCloudProcessor: ("num_neighbour", "num_neighbors"),
        SFTSequenceFeatureExtractor: ("feature_sizes", "feature_size"),
    }[cls]
    cls().save_pretrained(tmp_path)
    for make in (cls, lambda **words: cls.from_pretrained(tmp_path, **words)):
        with pytest.raises(TypeError, match=f"^{cls.__name__}.* has no argument `{near}`: did you mean `{name}`"):
            make(**{near: 3})
        with pytest.raises(
            TypeError, match=f"no argument `voxel`: it takes {next(iter(inspect.signature(cls).parameters))}, "
        ):
            make(voxel=0.1)
    with pytest.raises(TypeError, match="has no argument `return_tensor`: did you mean `return_tensors`"):
        cls()(GRAPH, return_tensor="pt")


@pytest.mark.parametrize(("given", "meant"), [("center", "do_center"), ("normals", "use_normals")])
def test_the_nearest_argument_is_named(given: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"no argument `{given}`: did you mean `{meant}`"):
        SFTPointCloudProcessor(**{given: True})


@pytest.mark.parametrize("cls", PROCESSORS)
def test_files_of_other_releases_are_read(cls: Any, tmp_path: Path) -> None:
    name = next(iter(inspect.signature(cls).parameters))
    cls(**{name: 3}).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    fields = json.loads(path.read_text())
    del fields[name]
    path.write_text(json.dumps(fields | {"quux_of_tomorrow": [1], "_from_auto": True, "image_processor_type": "X"}))
    for loader in (cls, AutoFeatureExtractor):
        processor = loader.from_pretrained(tmp_path, local_files_only=True, **{name: 2})
        # An older file lacks the field: what the caller says counts all the same.
        assert type(processor) is cls and getattr(processor, name) == 2
        assert processor.to_dict()["quux_of_tomorrow"] == [1]
        assert getattr(loader.from_pretrained(tmp_path), name) == getattr(cls(), name)
    processor, rest = cls.from_pretrained(tmp_path, voxel=0.1, return_unused_kwargs=True)
    assert type(processor) is cls and rest == {"voxel": 0.1}
    assert cls(**cls().to_dict()).to_dict() == cls().to_dict()


def test_the_processors_of_the_published_models_load() -> None:
    paths = sorted((ROOT / "model_cards").glob("*/preprocessor_config.json"))
    assert paths
    for path in paths:
        fields = json.loads(path.read_text())
        processor = getattr(modeling_sft, fields["feature_extractor_type"]).from_pretrained(path.parent)
        assert processor.to_dict() == fields


def test_a_processor_of_a_user_hands_on_its_words(tmp_path: Path) -> None:
    class Mine(SFTPointCloudProcessor):
        def __init__(self, colour: str = "red", **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.colour = colour

    processor = Mine(colour="blue", num_neighbors=3)
    again = Mine.from_dict(processor.to_dict(), num_points=5)
    assert (again.colour, again.num_neighbors, again.num_points) == ("blue", 3, 5)
    with pytest.raises(TypeError, match="Mine has no argument `color`: did you mean `colour`"):
        Mine(color="blue")


def test_pipelines_refuse_what_they_do_not_read(tmp_path: Path) -> None:
    processor = SFTPointCloudProcessor(num_neighbors=4)
    tiny(SFTForPointCloudClassification).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    task, folder, points = "point-cloud-classification", str(tmp_path), torch.randn(9, 3).numpy()
    known = {"batch_size": 2, "num_workers": 0, "dtype": "float32", "trust_remote_code": False, "top_k": 1, "seed": 3}
    loading = {"local_files_only": True, "framework": "pt", "model_kwargs": {"attn_implementation": "eager"}}
    classify = pipeline(task, model=folder, device="cpu", **known, **loading)
    assert len(classify([points, points], batch_size=1, num_workers=0, top_k=2)[0]) == 2
    with pytest.raises(TypeError, match="no argument `topk`: did you mean `top_k`"):
        classify(points, topk=1)
    with pytest.raises(TypeError, match="no argument `qqq`: it takes top_k, seed, batch_size, num_workers"):
        classify(points, qqq=1)
    for misspelt, meant in (("devise", "device"), ("batchsize", "batch_size"), ("topk", "top_k")):
        with pytest.raises(TypeError, match=f"no argument `{misspelt}`: did you mean `{meant}`"):
            type(classify)(classify.model, processor, **{misspelt: 1})
