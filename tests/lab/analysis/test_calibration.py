"""Calibration and failures against cases that were worked out by hand."""

import numpy as np
import pytest
from transformers import EvalPrediction

from lab.analysis.calibration import expected_calibration_error, measure_calibration, reliability_bins
from lab.analysis.classification import Answers, answers_of
from lab.analysis.failures import find_failures


def test_the_error_of_a_case_by_hand():
    # Bins of 1/5: (0.6, 0.8] holds 0.7 and 0.8 with one right, (0.8, 1] holds 0.9 and 1 with both right.
    bins = reliability_bins([0.7, 0.8, 0.9, 1.0], [1, 0, 1, 1], num_bins=5)
    assert [each["count"] for each in bins] == [0, 0, 0, 2, 2]
    assert bins[3] == {"lower": 0.6, "upper": 0.8, "count": 2, "confidence": 0.75, "accuracy": 0.5}
    assert bins[0]["accuracy"] is None
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)


def test_edges_belong_to_the_bin_below():
    counts = [each["count"] for each in reliability_bins(np.arange(16) / 15, np.ones(16))]
    assert counts == [2] + [1] * 14


def test_a_calibrated_model_has_no_error_and_an_overconfident_one_has():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 200_000)
    right = rng.uniform(size=200_000) < confidence
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    calibration = measure_calibration(Answers("single", probabilities, (~right).astype(np.int64)))
    assert calibration["expected_calibration_error"] < 0.005
    sure = np.where(probabilities > 0.5, 0.99, 0.01)
    overconfident = measure_calibration(Answers("single", sure, (~right).astype(np.int64)))
    assert overconfident["expected_calibration_error"] == pytest.approx(0.24, abs=0.01)
    for name in ("negative_log_likelihood", "brier_score"):
        assert overconfident[name] > calibration[name]


def test_likelihood_and_brier_score_by_hand():
    answers = Answers("single", np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([0, 1]))
    calibration = measure_calibration(answers)
    assert calibration["negative_log_likelihood"] == pytest.approx(-(np.log(0.5) + np.log(0.2)) / 2)
    assert calibration["brier_score"] == pytest.approx((0.375 + (0.01 + 0.64 + 0.49)) / 2)
    assert calibration["expected_calibration_error"] == pytest.approx((0.5 + 0.7) / 2)


@pytest.mark.parametrize("unknown", [np.nan, -100.0])
def test_unknown_labels_do_not_count(unknown):
    logits = np.log(np.array([[0.8, 0.3], [0.6, 0.9]]) / (1 - np.array([[0.8, 0.3], [0.6, 0.9]])))
    answers = answers_of(EvalPrediction(logits, np.array([[1.0, 0.0], [unknown, 1.0]])), "multi")
    calibration = measure_calibration(answers)
    assert calibration["num_predictions"] == 3
    assert calibration["brier_score"] == pytest.approx((0.04 + 0.09 + 0.01) / 3)
    assert calibration["negative_log_likelihood"] == pytest.approx(-np.log([0.8, 0.7, 0.9]).mean())
    assert calibration["expected_calibration_error"] == pytest.approx((0.2 + 0.3 + 0.1) / 3)
    first, second = find_failures(answers, ["acid", "amine"], [0, 1])["labels"]
    assert first == {"name": "acid", "known": 1, "positive": 1, "average_precision": None, "roc_auc": None}
    assert second == {"name": "amine", "known": 2, "positive": 1, "average_precision": 1.0, "roc_auc": 1.0}


@pytest.mark.parametrize(("confidence", "correct"), [([], []), ([0.5], [1, 0]), ([1.5], [1]), ([np.nan], [1])])
def test_what_is_no_confidence_is_refused(confidence, correct):
    with pytest.raises(ValueError, match="confidence"):
        reliability_bins(confidence, correct)


def test_answers_must_be_finite_and_known():
    with pytest.raises(ValueError, match="not finite"):
        answers_of(EvalPrediction(np.array([[np.nan, 1.0]]), np.array([0])), "single")
    with pytest.raises(ValueError, match="No label of these examples is known"):
        answers_of(EvalPrediction(np.array([[1.0]]), np.array([[np.nan]])), "multi")


def test_the_most_frequent_confusions_and_the_surest_wrong_answers():
    labels = np.array([0] * 4 + [1] * 4 + [2] * 4)
    predicted = np.array([0, 0, 1, 1, 1, 1, 1, 2, 0, 0, 0, 2])
    confidence = np.linspace(0.6, 0.9, 12)
    probabilities = np.full((12, 3), 0.0) + ((1 - confidence) / 2)[:, None]
    probabilities[np.arange(12), predicted] = confidence
    failures = find_failures(Answers("single", probabilities, labels), ["a", "b", "c"], np.arange(100, 112).tolist())
    assert failures["confusion_matrix"] == [[2, 2, 0], [0, 3, 1], [3, 0, 1]]
    assert failures["confusions"] == [
        {"true": "c", "predicted": "a", "count": 3},
        {"true": "a", "predicted": "b", "count": 2},
        {"true": "b", "predicted": "c", "count": 1},
    ]
    assert failures["num_wrong"] == 6
    assert [example["index"] for example in failures["examples"]] == [110, 109, 108, 107, 103, 102]
    assert failures["examples"][0]["confidence"] == pytest.approx(confidence[10])
