"""The count of answers that follow the order of points or nodes."""

from __future__ import annotations

import pytest

from lab.analysis import order
from lab.analysis.changes import jitter_points
from lab.analysis.corruptions import CorruptedRows
from modeling_sft.sampling import selection


def test_answers_on_clouds_and_graphs_do_not_follow_the_order(digits, graphs, monkeypatch):
    # The digits' points lie on a lattice: which of equally far ones are neighbours follows their order.
    load_rows = order.Evaluator.load_rows

    def jittered(evaluator, data_dir):
        rows = load_rows(evaluator, data_dir)
        return CorruptedRows(rows, lambda row, rng: jitter_points(row, rng, 0.01), 0) if data_dir is None else rows

    monkeypatch.setattr(order.Evaluator, "load_rows", jittered)
    for trained in (digits, graphs):
        report = order.measure_order(*trained)
        assert report.changed_predictions == 0
        assert 0 < report.median < 1e-5
        assert report.changed_logits <= 1


def test_a_selection_by_index_is_noticed(graphs, digits, monkeypatch):
    # Every choice a tie, and no content to tell tokens apart.
    for steps in ("STEPS_PER_UNIT", "CONTENT_STEPS_PER_UNIT"):
        monkeypatch.setattr(selection, steps, 2.0**-20)
    report = order.measure_order(*digits, limit=20)
    assert report.rows == 20
    assert report.changed_logits == 20
    assert "20 of 20 rows (100.00%) change a logit" in str(report)


def test_models_of_sequences_are_refused(texts):
    with pytest.raises(ValueError, match="clouds or graphs"):
        order.measure_order(*texts)
