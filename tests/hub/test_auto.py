"""Folders of any head: the backbone, other heads and wrong classes, with the package imported."""

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModel
from transformers.testing_utils import CaptureLogger, LoggingLevel
from transformers.utils import logging

import modeling_sft
from tiny_models import build, build_graph, build_sequence

HEADS = {
    "SFTModel": (
        "SFTForMaskedLM",
        "SFTForPreTraining",
        "SFTForSequenceClassification",
        "SFTForTokenClassification",
        "SFTForQuestionAnswering",
        "SFTForSequencePairClassification",
    ),
    "SFTGraphModel": ("SFTForGraphClassification", "SFTForNodeClassification", "SFTForLinkPrediction"),
    "SFTPointCloudModel": ("SFTForPointCloudClassification", "SFTForPointCloudSegmentation"),
}
BUILDERS = {"SFTModel": build_sequence, "SFTGraphModel": build_graph, "SFTPointCloudModel": build}
PAIRS = [(backbone, head) for backbone, heads in HEADS.items() for head in heads]


def auto_class(head):
    name = head.replace("SFTFor", "AutoModelFor")
    return getattr(transformers, name, None) or getattr(modeling_sft, name)


def built(backbone, name, head):
    changes = {"context_hash_sizes": [1]} if head == "SFTForPreTraining" else {}
    return BUILDERS[backbone](getattr(modeling_sft, name), torch.float32, **changes)


def assert_equal_states(model, other):
    states = model.state_dict()
    assert states.keys() == other.state_dict().keys()
    for name, value in other.state_dict().items():
        assert torch.equal(states[name], value), name


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
def test_the_folder_of_a_head_gives_head_and_backbone(tmp_path, backbone, head):
    model = built(backbone, head, head)
    model.save_pretrained(tmp_path)
    # The code in the folder differs from the package's: a class from there would show.
    (tmp_path / "modeling_sft.py").write_text("raise RuntimeError('code of the folder ran')")
    for options in ({}, {"trust_remote_code": True}):
        loaded = auto_class(head).from_pretrained(tmp_path, **options)
        assert type(loaded) is getattr(modeling_sft, head)
        assert_equal_states(loaded, model)
        bare = AutoModel.from_pretrained(tmp_path, **options)
        assert type(bare) is getattr(modeling_sft, backbone)
        assert_equal_states(bare, model.sft)
        assert type(AutoConfig.from_pretrained(tmp_path, **options)) is type(model.config)


@pytest.mark.parametrize(("backbone", "head"), PAIRS)
def test_a_head_on_a_saved_backbone_says_which_weights_are_new(tmp_path, backbone, head):
    model = built(backbone, backbone, head)
    model.save_pretrained(tmp_path)
    logger = logging.get_logger("transformers.modeling_utils")
    with LoggingLevel(logging.WARNING), CaptureLogger(logger) as captured:
        loaded, report = auto_class(head).from_pretrained(tmp_path, output_loading_info=True)
    assert_equal_states(loaded.sft, model)
    tied = set(loaded.all_tied_weights_keys)
    new = {name for name in loaded.state_dict() if not name.startswith("sft.")} - tied
    assert new and set(report["missing_keys"]) == new and not report["unexpected_keys"]
    assert all(name in captured.out for name in new) and "MISSING" in captured.out
    assert all(torch.isfinite(value).all() for value in loaded.state_dict().values())


@pytest.mark.parametrize("backbone", HEADS)
def test_wrong_classes_are_refused(tmp_path, backbone):
    model = built(backbone, backbone, backbone)
    model.save_pretrained(tmp_path)
    others = [name for other in HEADS if other != backbone for name in HEADS[other]]
    for head in others:
        with pytest.raises(ValueError, match=f"Unrecognized configuration class .*{type(model.config).__name__}"):
            auto_class(head).from_pretrained(tmp_path)
    for name in (*others, *(other for other in HEADS if other != backbone)):
        with pytest.raises(ValueError, match=f"this one is a `{model.config.model_type}`: load it with an Auto class"):
            getattr(modeling_sft, name).from_pretrained(tmp_path)


@pytest.mark.parametrize("backbone", HEADS)
def test_a_backbone_and_a_configuration_carry_all_code(tmp_path, backbone):
    model = built(backbone, backbone, backbone)
    model.save_pretrained(tmp_path / "model")
    model.config.save_pretrained(tmp_path / "configuration")
    references = {"AutoConfig": type(model.config).__name__, "AutoModel": backbone}
    references |= {head.replace("SFTFor", "AutoModelFor"): head for head in HEADS[backbone]}
    for folder in ("model", "configuration"):
        auto_map = AutoConfig.from_pretrained(tmp_path / folder).to_dict()["auto_map"]
        assert {name: reference.split(".")[1] for name, reference in auto_map.items()} == references
    modules = {reference.split(".")[0] for reference in auto_map.values()}
    assert all((tmp_path / "model" / f"{module}.py").is_file() for module in modules)
