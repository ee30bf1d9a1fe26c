"""Point-cloud models: inputs, controls, saving, Auto classes."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from modeling_sft import (
    AutoModelForPointCloudClassification,
    SFTForPointCloudClassification,
    SFTPointCloudConfig,
    SFTPointCloudModel,
)
from modeling_sft.point_cloud import modeling_sft_point_cloud
from random_clouds import random_batch
from tiny_models import build


@pytest.fixture(scope="module")
def model():
    return build(dtype=torch.float32)


@pytest.fixture
def batch():
    return random_batch([9, 5], dtype=torch.float32)


def changed(batch, name, **edit):
    """The batch with one tensor copied and edited: `index` set to `value`, or replaced by `tensor`."""
    tensor = edit.get("tensor")
    if tensor is None:
        tensor = batch[name].clone()
        tensor[edit["index"]] = edit["value"]
    return {**batch, name: tensor}


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("points", {"index": (0, 3, 1), "value": float("nan")}, "`points` holds NaN or infinite values .* row 0"),
        ("points", {"index": (1, 0, 0), "value": float("inf")}, "`points` holds NaN or infinite values .* row 1"),
        ("points", {"index": (1, 2, 0), "value": -1e20}, r"`points` holds values beyond 1e\+15 .*row 1"),
        ("points", {"tensor": torch.zeros(2, 9)}, r"`points` has shape \(2, 9\)"),
        ("points", {"tensor": torch.zeros(2, 9, 2)}, "`points` has shape"),
        ("points", {"tensor": torch.zeros(2, 9, 3, dtype=torch.long)}, "`points` has dtype"),
        ("normals", {"tensor": torch.zeros(2, 8, 3)}, "`normals` has shape"),
        ("normals", {"index": (0, 0, 0), "value": float("nan")}, "`normals` holds NaN"),
        ("neighbor_index", {"index": (0, 0, 0), "value": 9}, "`neighbor_index` has values from 0 to 9"),
        ("neighbor_index", {"index": (0, 0, 0), "value": -1}, "`neighbor_index` has values from -1"),
        ("neighbor_index", {"tensor": torch.zeros(2, 9, 1, dtype=torch.long)}, "lists 1 neighbours"),
        ("neighbor_index", {"tensor": torch.zeros(2, 9, 4)}, "`neighbor_index` has dtype"),
        ("neighbor_index", {"index": (1, 0, 0), "value": 8}, "names padded points .* row 1"),
        ("attention_mask", {"tensor": torch.ones(2, 8)}, "`attention_mask` has shape"),
        ("attention_mask", {"index": (1,), "value": 0}, "leaves row 1 without a real token"),
        ("attention_mask", {"index": (1, 0), "value": 2}, "`attention_mask` must hold 1"),
        ("point_features", {"tensor": torch.zeros(2, 9, 1)}, "`point_features` does not fit"),
        ("category", {"tensor": torch.zeros(2, dtype=torch.long)}, "`category` does not fit"),
        ("labels", {"tensor": torch.tensor([0, 99])}, "`labels` must be -100"),
    ],
)
def test_bad_inputs_raise_naming_the_argument(model, batch, name, edit, message):
    with pytest.raises(ValueError, match=message):
        model(**changed(batch, name, **edit))


def test_the_largest_coordinates_stay_finite(model, batch):
    directions = batch["points"] / batch["points"].abs().max()
    logits = model(**{**batch, "points": 1e15 * directions}).logits
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_empty_batches_raise(model):
    with pytest.raises(ValueError, match="at least one row and one token"):
        model(torch.zeros(2, 0, 3))


def test_padding_may_hold_anything(model, batch):
    expected = model(**batch).logits
    dirty = changed(batch, "points", index=(1, slice(5, None)), value=float("nan"))
    dirty["normals"] = dirty["normals"].clone()
    dirty["normals"][1, 5:] = float("inf")
    assert torch.equal(model(**dirty).logits, expected)


def test_normals_by_configuration(batch):
    without = {name: value for name, value in batch.items() if name != "normals"}
    required, refused, optional = (build(dtype=torch.float32, use_normals=choice) for choice in (True, False, None))
    with pytest.raises(ValueError, match="`normals` is missing"):
        required(**without)
    with pytest.raises(ValueError, match="`normals` was given"):
        refused(**batch)
    assert not torch.equal(optional(**batch).logits, optional(**without).logits)


def test_point_features_and_categories_change_the_output():
    model = build(dtype=torch.float32, num_point_features=2, num_categories=3)
    batch = random_batch([6, 4], num_point_features=2, dtype=torch.float32)
    batch["category"] = torch.tensor([0, 2])
    expected = model(**batch).logits
    assert not torch.equal(model(**changed(batch, "category", index=0, value=1)).logits, expected)
    assert not torch.equal(model(**changed(batch, "point_features", index=(0, 0, 0), value=5)).logits, expected)
    with pytest.raises(ValueError, match="`category` has values from 2 to 3"):
        model(**changed(batch, "category", index=0, value=3))
    with pytest.raises(ValueError, match="`point_features` does not fit"):
        model(**{name: value for name, value in batch.items() if name != "point_features"})


def test_neighbours_are_computed_when_absent(model, batch):
    without = {name: value for name, value in batch.items() if name != "neighbor_index"}
    torch.testing.assert_close(model(**without).logits, model(**batch).logits)


def test_a_search_among_many_points_is_warned_of(model, batch, monkeypatch):
    warnings = []
    monkeypatch.setattr(modeling_sft_point_cloud.logger, "warning_once", warnings.append)
    without = {name: value for name, value in batch.items() if name != "neighbor_index"}
    model(**without)
    monkeypatch.setattr(modeling_sft_point_cloud, "MANY_POINTS", 8)
    model(**batch)
    assert warnings == []
    model(**without)
    assert len(warnings) == 1 and "neighbor_index" in warnings[0]


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", 10**12])
def test_set_num_sampled_tokens_refuses(model, value):
    with pytest.raises(ValueError, match="num_sampled_tokens must be an integer from 1 to 1048576"):
        model.set_num_sampled_tokens(value)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e-12, 5e-324])
def test_set_sampling_noise_refuses(model, value):
    with pytest.raises(ValueError, match="`sampling_noise` is"):
        model.set_sampling_noise(value)


def test_controls_are_saved_with_the_model(tmp_path):
    model = build(dtype=torch.float32)
    model.set_num_sampled_tokens(11)
    model.set_sampling_noise(0.5)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.num_sampled_tokens, config.sampling_noise) == (11, 0.5)


def test_auto_classes_give_head_and_backbone_from_the_same_folder(tmp_path, model, batch):
    model.save_pretrained(tmp_path)
    head = AutoModelForPointCloudClassification.from_pretrained(tmp_path).eval()
    assert type(head) is SFTForPointCloudClassification
    torch.testing.assert_close(head(**batch).logits, model(**batch).logits)
    backbone = AutoModel.from_pretrained(tmp_path).eval()
    assert type(backbone) is SFTPointCloudModel
    states = backbone(**batch).last_hidden_state
    assert torch.equal(states, model.sft(**batch).last_hidden_state)


def test_a_backbone_loads_into_a_head(tmp_path, model):
    model.sft.save_pretrained(tmp_path)
    head, report = SFTForPointCloudClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.startswith("classifier.") for name in report["missing_keys"])
    for name, value in model.sft.state_dict().items():
        assert torch.equal(head.sft.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"num_labels": 1}, torch.tensor([0.5, -1.0])),
        ({"num_labels": 3, "problem_type": "regression"}, torch.tensor([[0.5, -1.0, 2.0], [0.0, torch.nan, 1.0]])),
        ({"num_labels": 3}, torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, torch.nan]])),
    ],
    ids=["regression", "several targets", "several labels"],
)
def test_regression_and_multi_label_heads_learn(changes, labels):
    torch.manual_seed(0)
    model = build(dtype=torch.float32, training=True, sampling_noise=0.0, **changes)
    batch = random_batch([6, 4], dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        output = model(**batch, labels=labels)
        output.loss.backward()
        optimiser.step()
        losses.append(float(output.loss))
    assert output.logits.shape == (2, changes["num_labels"])
    assert losses[-1] < losses[0] / 3


def test_tuples_without_return_dict(model, batch):
    logits = model(**batch, return_dict=False)[0]
    assert torch.equal(logits, model(**batch).logits)


def test_own_outputs_are_given_when_asked_for(model, batch):
    output = model(**batch, output_sampled_tokens=True, output_importance_scores=True)
    layers, k = model.config.num_hidden_layers, model.config.num_sampled_tokens
    assert len(output.sampled_tokens) == len(output.importance_scores) == layers
    assert output.sampled_tokens[0].shape == (2, 1, k)
    assert output.importance_scores[0].shape == (2, 9, 1)
    assert output.attentions is None and output.hidden_states is None


def test_the_default_configuration_builds():
    model = SFTPointCloudModel(SFTPointCloudConfig())
    assert 2e6 < model.num_parameters() < 6e6
