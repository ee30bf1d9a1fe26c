"""Segmentation of point clouds: symmetries, padding, labels, the shape's category, saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError

from configurations import COVERING, name_of
from modeling_sft import (
    AutoModelForPointCloudClassification,
    AutoModelForPointCloudSegmentation,
    SFTForPointCloudSegmentation,
    SFTPointCloudConfig,
)
from random_clouds import Batch, move, pad, permute, random_batch, random_cloud, random_orthogonal
from tiny_models import build

SOME_CONFIGURATIONS = pytest.mark.parametrize("choice", [pytest.param(c, id=name_of(c)) for c in COVERING[::5]])


def segmenter(**changes: Any) -> SFTForPointCloudSegmentation:
    return build(SFTForPointCloudSegmentation, **changes)


def logits(model: SFTForPointCloudSegmentation, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


@SOME_CONFIGURATIONS
def test_permuting_the_points_permutes_the_labels(choice: dict[str, Any]) -> None:
    model, batch = segmenter(**choice), random_batch([31])
    permutation = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    expected = logits(model, batch)[:, permutation]
    torch.testing.assert_close(logits(model, permute(batch, permutation)), expected, rtol=0, atol=1e-9)


@SOME_CONFIGURATIONS
def test_padding_does_not_change_a_cloud(choice: dict[str, Any]) -> None:
    model = segmenter(**choice)
    clouds = [random_cloud(size, seed=size) for size in (17, 9, 1)]
    for length in (17, 18, 37):
        together = logits(model, pad(clouds, length))
        for row, cloud in enumerate(clouds):
            size = len(cloud["points"])
            alone = logits(model, pad([cloud], size))[0]
            torch.testing.assert_close(together[row, :size], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pooling", ["attention", "mean", "max"])
@pytest.mark.parametrize("normals", [True, False], ids=["normals", "no normals"])
@pytest.mark.parametrize("reflection", [True, False], ids=["reflection", "rotation"])
def test_invariant_mode_ignores_the_pose(pooling: str, normals: bool, reflection: bool) -> None:
    batch = random_batch([40, 23], normals=normals)
    moved = move(batch, random_orthogonal(0, reflection), torch.tensor([1.0, -2.0, 0.5]))
    model = segmenter(rotation_invariant=True, pooling=pooling)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(logits(model, moved)[real], logits(model, batch)[real], rtol=0, atol=1e-6)
    plain = segmenter(pooling=pooling)
    assert (logits(plain, moved) - logits(plain, batch))[real].abs().max() > 1e-3


def test_the_loss_counts_labelled_points_only() -> None:
    model, batch = segmenter(), random_batch([9, 5])
    labels = torch.randint(0, 5, (2, 9), generator=torch.Generator().manual_seed(0))
    labels[0, 2] = -100
    counted = batch["attention_mask"].bool() & (labels != -100)
    expected = F.cross_entropy(logits(model, batch)[counted], labels[counted])
    # Labels of padding are ignored whatever they are.
    torch.testing.assert_close(model(**batch, labels=labels).loss, expected)
    labels[~batch["attention_mask"].bool()] = -100
    torch.testing.assert_close(
        model(**batch, labels=labels, num_items_in_batch=100).loss, expected * counted.sum() / 100
    )


def test_targets_of_points_may_be_numbers() -> None:
    model, batch = segmenter(problem_type="regression", num_labels=2), random_batch([9, 5])
    labels = torch.randn(2, 9, 2, dtype=torch.float64)
    labels[0, 3, 1] = torch.nan
    counted = batch["attention_mask"].bool()[..., None] & ~labels.isnan()
    expected = F.mse_loss(logits(model, batch)[counted], labels[counted])
    torch.testing.assert_close(model(**batch, labels=labels).loss, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 8, dtype=torch.long), r"`labels` has shape \(2, 8\): expected \(2, 9\)"),
        (torch.zeros(2, dtype=torch.long), "`labels` has shape"),
        (torch.full((2, 9), 5), "`labels` must be -100"),
        (torch.zeros(2, 9, 4), "`labels` has shape"),
    ],
)
def test_misfitting_labels_raise(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter()(**random_batch([9, 5]), labels=labels)


def test_gradient_reaches_every_parameter() -> None:
    model = segmenter(training=True, num_categories=2, category_parts=[[0, 1], [2, 3, 4]])
    batch = random_batch([17, 23]) | {"category": torch.tensor([0, 1])}
    model(**batch, labels=torch.randint(0, 5, (2, 23))).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def test_every_point_sees_the_whole_shape() -> None:
    # Only the pooled state can carry news from far away when there is a single sampled token.
    model = segmenter(num_sampled_tokens=1, local_mixing=False, num_hidden_layers=1, pooling="mean")
    with torch.no_grad():
        model.sft.encoder.layers[0].residual_scale.zero_()
    batch = random_batch([30])
    baseline = logits(model, batch)
    with torch.no_grad():
        model.classifier.pooled_dense.weight.zero_()
    assert (logits(model, batch) - baseline).abs().amax(-1).min() > 1e-4


def test_saving_and_the_auto_classes(tmp_path) -> None:
    model = build(
        SFTForPointCloudSegmentation, dtype=torch.float32, num_categories=2, category_parts=[[0, 1], [2, 3, 4]]
    )
    model.save_pretrained(tmp_path)
    loaded = AutoModelForPointCloudSegmentation.from_pretrained(tmp_path)
    assert isinstance(loaded, SFTForPointCloudSegmentation)
    assert loaded.config.category_parts == [[0, 1], [2, 3, 4]]
    batch = random_batch([9, 5], dtype=torch.float32) | {"category": torch.tensor([0, 1])}
    torch.testing.assert_close(logits(loaded.eval(), batch), logits(model, batch))
    assert "AutoModelForPointCloudSegmentation" in loaded.config.auto_map
    classifier, report = AutoModelForPointCloudClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert any(name.startswith("classifier.dense") for name in report["missing_keys"])
    assert torch.equal(classifier.sft.embeddings.input_proj.weight, model.sft.embeddings.input_proj.weight)


@pytest.mark.parametrize("parts", [[[0]], [[0], []], [[0], [-1]]])
def test_categories_without_parts_are_refused(parts: list[list[int]]) -> None:
    with pytest.raises(StrictDataclassError, match="category_parts"):
        SFTPointCloudConfig(num_categories=2, category_parts=parts)
