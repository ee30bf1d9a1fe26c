"""Metrics of graphs agree with values computed by hand and by scikit-learn."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sft.data.graph import metrics

NAN = float("nan")


def test_labels_without_both_kinds_of_rows_are_left_out():
    scores = np.array([[0.9, 0.1, 0.3, 0.2], [0.8, 0.2, 0.3, 0.1], [0.1, 0.3, 0.3, 0.5]])
    labels = np.array([[1, 0, 1, NAN], [0, 0, 1, 0], [1, 0, 1, 1]])
    # First label: positives at ranks 1 and 3; last: its known rows are in order; the others are all alike.
    assert metrics.mean_average_precision(scores, labels) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert metrics.mean_roc_auc(scores, labels) == pytest.approx((0.5 + 1) / 2)
    assert metrics.mean_roc_auc(scores[:, 0], labels[:, 0]) == pytest.approx(0.5)


def test_errors_are_means_over_targets_without_the_missing():
    targets = np.array([[0.0, NAN, NAN], [1.0, 2.0, NAN]])
    guesses = np.array([[3.0, 9.0, 9.0], [5.0, 4.0, 9.0]])
    assert metrics.mean_absolute_error(guesses, targets) == pytest.approx((3.5 + 2) / 2)
    assert metrics.root_mean_squared_error(guesses, targets) == pytest.approx((np.sqrt(12.5) + 2) / 2)


def test_classes():
    labels = np.array([0, 0, 1, -100, 2])
    guesses = np.array([0, 1, 1, 1, 1])
    assert metrics.accuracy(guesses, labels) == pytest.approx(0.5)
    assert metrics.macro_f1(guesses, labels) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert metrics.macro_f1(np.eye(3)[guesses], labels) == metrics.macro_f1(guesses, labels)


SCORES = np.array([[0.5, 0.9, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0], [0.0] * 4, [0.0] * 4])
LINKS = np.array([[0, 0, 1], [1, 2, 3]])


@pytest.mark.parametrize(
    ("competitors", "ranks"),
    [
        # Nodes 0 and 3 are level with node 2; node 1 is a better target of node 0, but a true one.
        ("raw", [1, 3, 1]),
        ("filtered", [1, 2, 1]),
        ("filtered_without_loops", [1, 1.5, 1]),
    ],
)
def test_ranks_by_each_definition(competitors, ranks):
    assert metrics.link_ranks(SCORES, LINKS, competitors).tolist() == ranks
    other = np.arange(9.0).reshape(3, 3)
    graphs = ([SCORES, other, other], [LINKS, [[2], [1]], np.empty((2, 0))])
    # In the second graph node 2, the source itself, is better than node 1; the third has no links.
    second = 1.0 if competitors == "filtered_without_loops" else 1 / 2
    expected = (np.mean([1 / rank for rank in ranks]) + second) / 2
    assert metrics.mean_reciprocal_rank(*graphs, competitors) == pytest.approx(expected)


@given(data=st.data(), num_nodes=st.integers(2, 7))
def test_ranks_agree_with_sorting(data, num_nodes):
    order = data.draw(st.permutations(range(num_nodes * num_nodes)))
    scores = np.array(order, dtype=float).reshape(num_nodes, num_nodes)
    node = st.integers(0, num_nodes - 1)
    links = np.array(data.draw(st.lists(st.tuples(node, node), min_size=1, max_size=9, unique=True))).T
    for competitors in metrics.COMPETITORS:
        expected = []
        for source, target in links.T:
            true = set(links[1, links[0] == source]) if competitors != "raw" else set()
            true |= {source} if competitors == "filtered_without_loops" else set()
            rivals = [other for other in range(num_nodes) if other == target or other not in true]
            expected.append(1 + sorted(rivals, key=lambda other: -scores[source, other]).index(target))
        assert metrics.link_ranks(scores, links, competitors).tolist() == expected


def test_labels_and_targets_agree_with_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    # Rounded, so that there are ties.
    scores, labels = rng.normal(size=(57, 5)).round(1), rng.integers(0, 2, (57, 5)).astype(float)
    for ours, theirs in (("mean_average_precision", "average_precision_score"), ("mean_roc_auc", "roc_auc_score")):
        expected = getattr(sklearn_metrics, theirs)(labels, scores, average="macro")
        assert getattr(metrics, ours)(scores, labels) == pytest.approx(expected, abs=1e-12)
        masked = np.where(rng.random(labels.shape) < 0.3, NAN, labels)
        known = [~np.isnan(column) for column in masked.T]
        expected = np.mean([getattr(sklearn_metrics, theirs)(labels[k, t], scores[k, t]) for t, k in enumerate(known)])
        assert getattr(metrics, ours)(scores, masked) == pytest.approx(expected, abs=1e-12)
    for ours, theirs in (
        ("mean_absolute_error", "mean_absolute_error"),
        ("root_mean_squared_error", "root_mean_squared_error"),
    ):
        targets = rng.normal(size=(57, 5))
        expected = getattr(sklearn_metrics, theirs)(targets, scores)
        assert getattr(metrics, ours)(scores, targets) == pytest.approx(expected, abs=1e-12)
    classes, guesses = rng.integers(0, 4, 57), rng.integers(0, 5, 57)
    assert metrics.macro_f1(guesses, classes) == pytest.approx(
        sklearn_metrics.f1_score(classes, guesses, average="macro", zero_division=0)
    )


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("mean_average_precision", ([0.1, 0.2], [1, 1]), "not defined"),
        ("mean_roc_auc", ([0.1, 0.2], [2, 1]), "0, 1, or NaN"),
        ("mean_roc_auc", ([0.1, NAN], [0, 1]), "finite"),
        ("mean_roc_auc", ([[0.1, 0.2]], [0, 1]), "same|both have shape"),
        ("mean_absolute_error", ([0.1], [NAN]), "not NaN"),
        ("root_mean_squared_error", ([0.1], [np.inf]), "finite"),
        ("macro_f1", ([0], [-100]), "none that counts"),
        ("accuracy", ([0, 1], [0]), "predictions must have shape"),
        ("accuracy", ([0], [0.0]), "labels must have shape"),
        ("link_ranks", (np.zeros((2, 3)), [[0], [1]]), r"\(n, n\)"),
        ("link_ranks", (np.zeros((2, 2)), [[0], [2]]), "between 0 and 1"),
        ("link_ranks", (np.zeros((2, 2)), [[0.0], [1.0]]), "of integers"),
        ("link_ranks", (np.full((2, 2), np.inf), [[0], [1]]), "finite"),
        ("link_ranks", (np.zeros((2, 2)), [[0], [1]], "filter"), "competitors must be one of raw, filtered"),
        ("mean_reciprocal_rank", ([], []), "no graph with a true link"),
        ("mean_reciprocal_rank", (np.zeros((2, 2, 2)), [[[0], [1]]]), "got 2 and 1"),
    ],
)
def test_bad_input_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, function)(*(np.array(one) if isinstance(one, list) else one for one in arguments))


def in_two_batches(metric, predictions, references, **options):
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    metric.add_batch(predictions=predictions[2:], references=references[2:])
    return metric.compute(**options)


class TestEvaluate:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch):
        pytest.importorskip("evaluate")
        for variable in ("HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE"):
            monkeypatch.setenv(variable, "1")

    @pytest.mark.parametrize(
        "name", ["MeanAveragePrecision", "MeanRocAuc", "MeanAbsoluteError", "RootMeanSquaredError"]
    )
    def test_labels_and_targets(self, tmp_path, name):
        from modeling_sft.data.graph import metric_modules as modules

        scores, labels = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3]]), np.array([[1, NAN], [0, 0], [1, 1]])
        metric = getattr(modules, name)(cache_dir=str(tmp_path))
        expected = {metric.function: getattr(metrics, metric.function)(scores, labels)}
        # Means of batches would be others.
        assert in_two_batches(metric, scores, labels) == expected
        assert metric.compute(predictions=scores, references=labels) == expected

    @pytest.mark.parametrize("name", ["MacroF1", "Accuracy"])
    def test_classes(self, tmp_path, name):
        from modeling_sft.data.graph import metric_modules as modules

        guesses, labels = np.array([0, 1, 1, 1, 2]), np.array([0, 1, 2, -100, 2])
        metric = getattr(modules, name)(cache_dir=str(tmp_path))
        expected = {metric.function: getattr(metrics, metric.function)(guesses, labels)}
        assert in_two_batches(metric, guesses, labels) == expected
        assert metric.compute(predictions=guesses, references=labels) == expected

    @pytest.mark.parametrize("competitors", metrics.COMPETITORS)
    def test_links(self, tmp_path, competitors):
        from modeling_sft.data.graph import metric_modules as modules

        graphs = [SCORES.tolist(), np.arange(9.0).reshape(3, 3).tolist(), [[0.5]]]
        links = [LINKS.tolist(), [[2], [1]], [[], []]]
        metric = modules.MeanReciprocalRank(cache_dir=str(tmp_path))
        expected = {"mean_reciprocal_rank": metrics.mean_reciprocal_rank(graphs, links, competitors)}
        assert in_two_batches(metric, graphs, links, competitors=competitors) == expected


@pytest.mark.slow
def test_data_is_imported_without_optional_libraries():
    script = """
import sys
blocked = ("datasets", "evaluate", "networkx", "pandas", "rdkit", "scipy", "sklearn", "torch_geometric")
sys.modules.update(dict.fromkeys(blocked))
import modeling_sft.data, modeling_sft.data.graph.metrics
try:
    import modeling_sft.data.graph.metric_modules
except ImportError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert output.returncode == 0, output.stderr
    assert "modeling-sft[graphs]" in output.stdout
