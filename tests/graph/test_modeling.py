"""Graph models: inputs and their errors, losses of the heads, saving, checkpointing, compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from configurations import tiny_graph_config
from modeling_sft import (
    AutoModelForGraphClassification,
    AutoModelForLinkPrediction,
    AutoModelForNodeClassification,
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForNodeClassification,
    SFTGraphConfig,
    SFTGraphModel,
)
from random_graphs import Batch, random_graphs, without_edge_features
from tiny_models import build_graph

PAIRS = torch.tensor([[[0, 1], [2, 2], [8, 0]], [[4, 1], [0, 0], [1, 3]]])


@pytest.fixture(scope="module")
def model() -> Any:
    return build_graph(SFTGraphModel, torch.float32)


@pytest.fixture
def batch() -> Batch:
    return random_graphs([9, 5])


def changed(batch: Batch, name: str, index: Any, value: float) -> Batch:
    tensor = batch[name].clone()
    tensor[index] = value
    return {**batch, name: tensor}


# Inputs


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        (
            "node_features",
            (0, 3, 0),
            5,
            r"`node_features\[..., 0\]` has values from .* to 5: they must lie between 0 and 4",
        ),
        ("node_features", (1, 0, 1), -1, r"`node_features\[..., 1\]` has values from -1"),
        ("node_features", (1, 0, 1), 0.5, r"`node_features\[..., 1\]` holds 0.5: categories are whole numbers"),
        ("node_features", (1, 0, 3), torch.nan, "`node_features` holds NaN or infinite values .*row 1"),
        ("node_features", (0, 0, 0), torch.nan, "`node_features` holds NaN or infinite values .*row 0"),
        ("node_encodings", (1, 0, 0), torch.inf, "`node_encodings` holds NaN or infinite values .*row 1"),
        ("edge_features", (0, 3, 1), 3, r"`edge_features\[..., 1\]` has values from 0 to 3"),
        ("edge_index", (0, 0, 3), 9, "`edge_index` has values from 0 to 9: they must lie between 0 and 8"),
        ("edge_index", (0, 1, 3), -1, "`edge_index` has values from -1"),
        ("edge_index", (1, 0, 3), 5, r"`edge_index` names a padded node \(first in row 1\)"),
        ("edge_mask", (1, 0), 2, "`edge_mask` must hold 1"),
        ("attention_mask", (1,), 0, "leaves row 1 without a real token"),
    ],
)
def test_bad_values_raise_naming_the_argument(
    model: Any, batch: Batch, name: str, index: Any, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(**changed(batch, name, index, value))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("node_features", torch.zeros(2, 9, 3), r"`node_features` has shape \(2, 9, 3\): expected \(2, 9, 4\)"),
        ("node_features", torch.zeros(2, 9), r"`node_features` has shape \(2, 9\)"),
        ("node_features", torch.zeros(2, 0, 4), "at least one row and one token"),
        ("edge_index", torch.zeros(2, 3, 18, dtype=torch.long), r"`edge_index` has shape \(2, 3, 18\)"),
        ("edge_index", torch.zeros(2, 2, 18), "`edge_index` has dtype torch.float32"),
        ("edge_features", torch.zeros(2, 17, 2), r"`edge_features` has shape \(2, 17, 2\)"),
        ("edge_features", torch.zeros(2, 18, 1), r"`edge_features` has shape \(2, 18, 1\)"),
        ("edge_features", None, "`edge_features` does not fit the configuration"),
        ("edge_index", None, "`edge_index` is missing"),
        ("edge_mask", torch.ones(2, 17), r"`edge_mask` has shape \(2, 17\)"),
        ("node_encodings", torch.zeros(2, 9, 4), r"`node_encodings` has shape \(2, 9, 4\)"),
        ("node_encodings", None, "`node_encodings` does not fit `num_node_encodings=3`"),
    ],
)
def test_bad_shapes_and_types_raise_naming_the_argument(
    model: Any, batch: Batch, name: str, tensor: Any, message: str
) -> None:
    given = {key: value for key, value in {**batch, name: tensor}.items() if value is not None}
    if name == "node_features" and tensor.numel() == 0:
        given = {name: tensor}
    with pytest.raises(ValueError, match=message):
        model(**given)


def test_features_that_the_model_does_not_know_raise(batch: Batch) -> None:
    plain = build_graph(SFTGraphModel, torch.float32, edge_vocab_sizes=None)
    with pytest.raises(ValueError, match="`edge_features` does not fit the configuration"):
        plain(**batch)
    plain(**without_edge_features(batch))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"node_vocab_sizes": [5, 0]}, "node_vocab_sizes"),
        ({"num_node_features": -1}, "num_node_features"),
        ({"target_mean": [0.0] * 5}, "target_scale"),
        ({"target_mean": [0.0] * 5, "target_scale": [1.0] * 4}, "target_scale"),
        ({"target_mean": [0.0] * 5, "target_scale": [1.0] * 4 + [0.0]}, "target_scale"),
        ({"num_graph_features": -1}, "num_graph_features"),
        ({"num_graph_features": 2, "graph_feature_mean": [0.0] * 2}, "graph_feature_scale"),
        (
            {"num_graph_features": 2, "graph_feature_mean": [0.0] * 3, "graph_feature_scale": [1.0] * 3},
            "one number per",
        ),
    ],
)
def test_bad_configurations_raise_naming_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        tiny_graph_config(**fields)


def test_nodes_without_features_raise() -> None:
    with pytest.raises(ValueError, match="Set `node_vocab_sizes`"):
        SFTGraphModel(SFTGraphConfig())


def test_categories_alone_may_be_integers_and_encodings_alone_suffice(batch: Batch) -> None:
    categories = build_graph(SFTGraphModel, torch.float32, num_node_features=0)
    features = batch["node_features"][..., :2]
    expected = categories(**{**batch, "node_features": features}).last_hidden_state
    found = categories(**{**batch, "node_features": features.long()}).last_hidden_state
    assert torch.equal(found, expected)


# Heads


def test_one_class_per_graph(batch: Batch) -> None:
    model, labels = build_graph(), torch.tensor([4, -100])
    output = model(**batch, labels=labels)
    assert output.logits.shape == (2, 5)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits[:1], labels[:1]))


@pytest.mark.parametrize("missing", [torch.nan, -100.0])
def test_several_labels_may_be_missing(batch: Batch, missing: float) -> None:
    model = build_graph(problem_type="multi_label_classification")
    labels = torch.tensor([[1.0, 0, missing, 1, 0], [missing] * 5], dtype=torch.float64)
    output = model(**batch, labels=labels)
    there = torch.tensor([True, True, False, True, True])
    expected = binary_cross_entropy_with_logits(output.logits[0, there], labels[0, there])
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model(**batch, labels=torch.full_like(labels, missing)).loss == 0


@pytest.mark.parametrize("num_labels", [1, 5])
def test_regression_is_learned_on_normalised_targets_and_answered_in_their_units(
    batch: Batch, num_labels: int
) -> None:
    mean, std = [10.0 + i for i in range(num_labels)], [2.0 + i for i in range(num_labels)]
    fields = {"problem_type": "regression", "num_labels": num_labels}
    plain = build_graph(**fields)
    model = build_graph(**fields, target_mean=mean, target_scale=std)
    labels = torch.randn(2, num_labels, dtype=torch.float64) * 3 + 10
    labels[0, 0] = torch.nan
    raw = plain(**batch).logits
    output = model(**batch, labels=labels)
    torch.testing.assert_close(output.logits, raw * torch.tensor(std) + torch.tensor(mean))
    errors = (raw - (labels - torch.tensor(mean)) / torch.tensor(std)).square()
    torch.testing.assert_close(output.loss, errors[~labels.isnan()].mean())
    if num_labels == 1:
        torch.testing.assert_close(model(**batch, labels=labels[:, 0]).loss, output.loss)
    # A target like any other.
    assert model(**batch, labels=torch.full_like(labels, -100.0)).loss > 100
    half = model.to(torch.bfloat16)(**{k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.items()})
    assert half.logits.dtype == torch.float32


def test_features_of_whole_graphs_are_normalised_and_seen_by_the_head(batch: Batch) -> None:
    fields = {"num_graph_features": 2, "graph_feature_mean": [300.0, -1.0], "graph_feature_scale": [50.0, 0.5]}
    model, plain = build_graph(**fields), build_graph(num_graph_features=2)
    features = torch.tensor([[320.0, -1.0], [1300.0, 2.5]], dtype=torch.float64)
    logits = model(**batch, graph_features=features).logits
    assert torch.equal(model(**batch, graph_features=features.flip(0)).logits == logits, torch.zeros(2, 5).bool())
    normal = torch.tensor([[0.4, 0.0], [20.0, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(logits, plain(**batch, graph_features=normal).logits)


def test_features_of_whole_graphs_that_do_not_fit_are_refused(batch: Batch) -> None:
    model = build_graph(num_graph_features=2)
    for features, message in (
        (None, "`graph_features` does not fit `num_graph_features=2`"),
        (torch.zeros(2, 3), r"`graph_features` has shape \(2, 3\): expected \(2, 2\), per graph"),
        (torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), "`graph_features` holds NaN or infinite values .*row 1"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**batch, graph_features=features)
    with pytest.raises(ValueError, match="`graph_features` does not fit `num_graph_features=0`"):
        build_graph()(**batch, graph_features=torch.zeros(2, 1))
    for cls in (SFTForNodeClassification, SFTForLinkPrediction):
        with pytest.raises(ValueError, match=f"is for heads of whole graphs, and {cls.__name__} is none: set it to 0"):
            build_graph(cls, num_graph_features=2)


def test_a_class_per_node(batch: Batch) -> None:
    model = build_graph(SFTForNodeClassification)
    labels = (torch.arange(18) % 5).view(2, 9)
    labels[0, :3] = -100
    output = model(**batch, labels=labels)
    assert output.logits.shape == (2, 9, 5)
    there = (batch["attention_mask"] == 1) & (labels >= 0)
    torch.testing.assert_close(output.loss, cross_entropy(output.logits[there], labels[there]))


def test_links(batch: Batch) -> None:
    model, labels = build_graph(SFTForLinkPrediction), torch.tensor([[1, 0, 1], [0, -100, 1]])
    output = model(**batch, node_pairs=PAIRS, labels=labels)
    assert output.logits.shape == (2, 3)
    there = labels >= 0
    expected = binary_cross_entropy_with_logits(output.logits[there], labels[there].double())
    torch.testing.assert_close(output.loss, expected)
    swapped = model(**batch, node_pairs=PAIRS.flip(-1)).logits
    assert (swapped - output.logits).abs().max() > 1e-6
    again = model(**batch, node_pairs=PAIRS[:, [2, 0, 1]]).logits
    torch.testing.assert_close(again, output.logits[:, [2, 0, 1]])


@pytest.mark.parametrize(
    ("cls", "labels", "message"),
    [
        (SFTForGraphClassification, torch.zeros(3, dtype=torch.long), r"`labels` has shape \(3,\)"),
        (SFTForGraphClassification, torch.tensor([0, 5]), "`labels` must be -100 .* or from 0 to 4"),
        (SFTForNodeClassification, torch.zeros(2, 8, dtype=torch.long), r"`labels` has shape \(2, 8\)"),
        (SFTForNodeClassification, torch.full((2, 9), 5), "`labels` must be -100 .* or from 0 to 4"),
        (SFTForLinkPrediction, torch.zeros(2, 2, dtype=torch.long), r"`labels` has shape \(2, 2\)"),
        (SFTForLinkPrediction, torch.full((2, 3), 2), "`labels` must be -100 .* or from 0 to 1"),
    ],
)
def test_labels_that_do_not_fit_raise(cls: type, labels: Tensor, message: str, batch: Batch) -> None:
    pairs = {"node_pairs": PAIRS} if cls is SFTForLinkPrediction else {}
    with pytest.raises(ValueError, match=message):
        build_graph(cls, torch.float32)(**batch, **pairs, labels=labels)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (None, "`node_pairs` is missing"),
        (PAIRS[:1], r"`node_pairs` has shape \(1, 3, 2\)"),
        (PAIRS + 1, "`node_pairs` has values from 1 to 9"),
        (PAIRS.flip(0), "`node_pairs` names a padded node"),
    ],
)
def test_pairs_that_do_not_fit_raise(pairs: Tensor | None, message: str, batch: Batch) -> None:
    with pytest.raises(ValueError, match=message):
        build_graph(SFTForLinkPrediction, torch.float32)(**batch, node_pairs=pairs)


# The workflow


@pytest.mark.parametrize(
    ("cls", "auto"),
    [
        (SFTForGraphClassification, AutoModelForGraphClassification),
        (SFTForNodeClassification, AutoModelForNodeClassification),
        (SFTForLinkPrediction, AutoModelForLinkPrediction),
    ],
)
def test_saved_models_load_with_the_auto_classes(cls: type, auto: Any, batch: Batch, tmp_path: Path) -> None:
    model = build_graph(cls, torch.float32)
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is cls and isinstance(loaded.config, SFTGraphConfig)
    pairs = {"node_pairs": PAIRS} if cls is SFTForLinkPrediction else {}
    torch.testing.assert_close(loaded.eval()(**batch, **pairs).logits, model(**batch, **pairs).logits)


@pytest.mark.parametrize("implementation", ["eager", "sft_fused"])
def test_checkpointing_changes_no_gradient(batch: Batch, implementation: str) -> None:
    results = []
    for checkpointed in (False, True):
        model = build_graph(training=True, hidden_dropout_prob=0.1, attn_implementation=implementation)
        if checkpointed:
            model.gradient_checkpointing_enable()
        torch.manual_seed(3)
        loss = model(**batch, labels=torch.tensor([0, 1])).loss
        loss.backward()
        results.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)
