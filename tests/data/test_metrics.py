"""Metrics agree with values computed by hand."""

import numpy as np
import pytest
import torch

from modeling_sft.data import classification_metrics, restricted_argmax, segmentation_metrics
from modeling_sft.data.graph.metrics import mean_roc_auc
from modeling_sft.data.metrics import regression_metrics


def test_values_by_hand():
    labels = [0, 0, 0, 1]
    assert classification_metrics([0, 0, 1, 1], labels, 3) == {
        "accuracy": pytest.approx(3 / 4),
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
    }


def test_two_classes_by_hand():
    labels = [0, 0, 1, 1, -100]
    logits = [[2.0, 1.0], [0.0, 3.0], [5.0, 5.5], [1.0, 4.5], [0.0, 9.0]]
    # Of the four pairs of a negative and a positive row, that of rows 1 and 2 alone is in wrong order.
    by_hand = {"accuracy": 3 / 4, "mean_class_accuracy": 3 / 4, "f1": 4 / 5, "roc_auc": 3 / 4}
    assert classification_metrics(logits, labels, 2) == pytest.approx(by_hand)
    del by_hand["roc_auc"]
    assert classification_metrics(np.argmax(logits, axis=1), labels, 2) == pytest.approx(by_hand)
    alone = classification_metrics(logits[2:4], labels[2:4], 2)
    assert alone["f1"] == 1 and np.isnan(alone["roc_auc"])
    assert classification_metrics([[1.0, 0.0]], [1], 2)["f1"] == 0


def test_a_predicted_class_that_does_not_occur_counts_as_an_error_only():
    assert classification_metrics([2, 0, 0, 1], [0, 0, 0, 1], 3)["mean_class_accuracy"] == pytest.approx(5 / 6)


def test_rows_without_a_label_do_not_count():
    assert classification_metrics([2, 0, 0, 1], [-100, 0, 0, 1], 3) == classification_metrics([0, 0, 1], [0, 0, 1], 3)
    assert regression_metrics([9.0, 1.0, 2.0], [np.nan, 1.5, -100.0]) == regression_metrics([1.0, 2.0], [1.5, -100.0])
    scores, labels = np.array([[0.1], [0.9], [0.4], [0.3]]), np.array([[0.0], [1.0], [1.0], [-100.0]])
    assert mean_roc_auc(scores, labels) == mean_roc_auc(scores, np.where(labels == -100, np.nan, labels)) == 1.0


def test_logits_and_perfect_predictions():
    logits = np.eye(5)[[3, 1, 4]]
    assert classification_metrics(logits, [3, 1, 4], 5) == {"accuracy": 1.0, "mean_class_accuracy": 1.0}


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "labels must have shape"),
        ([0, 1], [0], "predictions must have shape"),
        (np.zeros((2, 4)), [0, 1], "predictions must have shape"),
        (np.full((2, 3), np.nan), [0, 1], "NaN"),
        ([0, 3], [0, 1], "predictions must hold integers"),
        ([0, 1], [0, -1], "labels must hold integers"),
        ([0, 1], [-100, -100], "labels are all -100"),
        ([0.0, 1.0], [0, 1], "predictions must hold integers"),
    ],
)
def test_bad_input_is_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(predictions, labels, 3)


def test_iou_of_shapes_by_hand():
    labels = [[0, 0, 1, 1], [2, 2, 2, -100]]
    predictions = [[0, 1, 1, 1], [2, 2, 3, 0]]
    # Shape 0: 1/2 and 2/3; shape 1: 2/3 and 0/1, the padded point left out.
    by_shape = [(1 / 2 + 2 / 3) / 2, (2 / 3 + 0) / 2]
    parts = [[0, 1], [2, 3]]
    metrics = segmentation_metrics(predictions, labels, 4, category=[0, 1], category_parts=parts)
    assert metrics == {
        "instance_miou": pytest.approx(np.mean(by_shape)),
        "class_miou": pytest.approx(np.mean(by_shape)),
        "accuracy": pytest.approx(5 / 7),
    }


def test_a_part_that_is_neither_there_nor_predicted_counts_as_right():
    metrics = segmentation_metrics([[0, 0]], [[0, 0]], 4, category=[0], category_parts=[[0, 1, 2, 3]])
    assert metrics["instance_miou"] == 1
    metrics = segmentation_metrics([[0, 1]], [[0, 0]], 4, category=[0], category_parts=[[0, 1, 2, 3]])
    assert metrics["instance_miou"] == pytest.approx((1 / 2 + 0 + 1 + 1) / 4)
    assert segmentation_metrics([[0, 1]], [[0, 0]], 4)["instance_miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_classes_weigh_alike_whatever_their_number_of_shapes():
    labels = [[0, 0], [0, 0], [0, 0], [1, 1]]
    predictions = [[0, 0], [0, 0], [0, 0], [1, 2]]
    metrics = segmentation_metrics(predictions, labels, 3, category=[0, 0, 0, 1], category_parts=[[0], [1, 2]])
    assert metrics["instance_miou"] == pytest.approx((3 + 1 / 4) / 4)
    assert metrics["class_miou"] == pytest.approx((1 + 1 / 4) / 2)


def test_without_categories_the_classes_are_the_labels():
    labels, predictions = [[0, 0, 1, 1], [0, 0, 0, 0]], [[0, 0, 1, 0], [0, 0, 0, 0]]
    metrics = segmentation_metrics(predictions, labels, 5)
    assert metrics["class_miou"] == pytest.approx((6 / 7 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 1]], [[0]], 2), "predictions and labels"),
        (([0], [0], 2), "predictions and labels"),
        (([[0, 0], [0, 0]], [[0, 0], [-100, -100]], 2), "labels of shape 1"),
        (([[2, 0]], [[0, 0]], 2), "predictions must hold"),
        (([[0, 0]], [[0, -1]], 2), "labels must hold"),
        (([[0, 0]], [[0, 0]], 2, [0]), "category and category_parts"),
        (([[0, 0]], [[0, 0]], 2, [1], [[0, 1]]), "category must be"),
        (([[0, 0]], [[0, 1]], 2, [0], [[0]]), "no part of its category"),
    ],
)
def test_bad_segmentations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        segmentation_metrics(*arguments)


def test_predictions_stay_within_the_category():
    logits = torch.tensor([[[9.0, 1, 2, 3]], [[9.0, 1, 2, 3]]])
    parts = [[0, 1], [1, 2]]
    assert restricted_argmax(logits).tolist() == [[0], [0]]
    assert restricted_argmax(logits, torch.tensor([0, 1]), parts).tolist() == [[0], [2]]
