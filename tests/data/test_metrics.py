"""Metrics agree with values computed by hand."""

import numpy as np
import pytest

from modeling_sft.data import classification_metrics


def test_values_by_hand():
    labels = [0, 0, 0, 1]
    assert classification_metrics([0, 0, 1, 1], labels, 3) == {
        "accuracy": pytest.approx(3 / 4),
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
    }


def test_a_predicted_class_that_does_not_occur_counts_as_an_error_only():
    assert classification_metrics([2, 0, 0, 1], [0, 0, 0, 1], 3)["mean_class_accuracy"] == pytest.approx(5 / 6)


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
        ([0, 1], [0, -100], "labels must hold integers"),
        ([0.0, 1.0], [0, 1], "predictions must hold integers"),
    ],
)
def test_bad_input_is_refused(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(predictions, labels, 3)
