"""What each corruption does to rows, and that it does nothing else."""

import numpy as np
import pytest

from lab.analysis.changes import blank_steps
from lab.analysis.corruptions import CorruptedRows, corruptions_of
from lab.readers.sequence.rows import text_rows
from modeling_sft import byte_tokenizer
from modeling_sft.data import graph_rows
from modeling_sft.point_cloud.processing import SFTPointCloudProcessor
from modeling_sft.training import get_task

RNG = np.random.default_rng(0)


def clouds(count=3, size=80):
    points = RNG.normal(size=(count, size, 3))
    return [
        {
            "points": each,
            "normals": 2 * each,
            "point_features": each[:, :1],
            "point_labels": np.arange(size),
            "label": 1,
        }
        for each in points
    ]


def texts(pair=False):
    rows = text_rows(["ab" * 400, "cd" * 90], [0, 1], ["one", "two"])
    return rows.add_column("text_pair", ["xy" * 300, "z" * 40]) if pair else rows


def rings():
    """A ring in both directions, with loops, and features that name the pair."""
    ends = np.arange(40)
    edges = np.stack([ends, (ends + 1) % 40])
    edges = np.concatenate([edges, edges[::-1], [ends, ends]], axis=1)
    features = np.tile(ends, 3)[:, None]
    row = {"node_feat": np.ones((40, 1), dtype=np.int64), "edge_index": edges, "edge_attr": features, "y": 1}
    return graph_rows([row, row], ["a", "b"])


class Values(list):
    column_names = ["values", "label"]


def values():
    return Values({"values": RNG.uniform(1, 3, (size, 1)).astype(np.float32), "label": 1} for size in (100, 50))


CASES = {
    "point-cloud-classification": ("folder", clouds, SFTPointCloudProcessor()),
    "sequence-classification": ("text_files", texts, byte_tokenizer(600)),
    "sequence-pair-classification": ("aan", lambda: texts(pair=True), byte_tokenizer()),
    "values": ("mnist", values, None),
    "graph-classification": ("nci1", rings, None),
}


def found(name, dataset=None, rows=None):
    usual, make, processor = CASES[name]
    task = get_task("sequence-classification" if name == "values" else name)
    rows = make() if rows is None else rows
    return rows, corruptions_of(task, dataset or usual, rows, processor)


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", CASES)
def test_rows_depend_on_seed_and_index_alone_and_the_originals_stay(name):
    rows, corruptions = found(name)
    before = [{key: np.array(value) for key, value in dict(row).items()} for row in rows]
    for corruption, settings in corruptions.items():
        assert settings[0].severity == 0 and settings[0].corrupt(rows, 0) is rows
        for setting in settings[1:]:
            once, again, other = (setting.corrupt(rows, seed) for seed in (3, 3, 4))
            assert len(once) == len(rows)
            assert same(once[1], again[1]) and same(once[0], again[0])
            assert not same(once[0], rows[0])
            assert same(once[0], other[0]) == (corruption == "length")
            assert all(once[0][key] == before[0][key] for key in ("label", "y") if key in before[0])
    for row, old in zip(rows, before, strict=True):
        assert same(old, row)


def test_points_go_with_all_that_belongs_to_them():
    rows, corruptions = found("point-cloud-classification")
    assert [setting.name for setting in corruptions["rotation"]] == ["none", "z", "so3"]
    kept = [setting.corrupt(rows, 0)[1] for setting in corruptions["point_dropout"]]
    assert [len(row["points"]) for row in kept] == [80, 60, 40, 20]
    for row in kept:
        np.testing.assert_array_equal(row["points"], rows[1]["points"][row["point_labels"]])
        np.testing.assert_array_equal(row["normals"], 2 * row["points"])
        np.testing.assert_array_equal(row["point_features"], row["points"][:, :1])
    assert set(kept[3]["point_labels"]) < set(kept[2]["point_labels"])
    few = corruptions_of(
        get_task("point-cloud-classification"), "folder", rows, SFTPointCloudProcessor(num_points=20)
    )["point_dropout"]
    assert [len(setting.corrupt(rows, 0)[0]["points"]) for setting in few[1:]] == [15, 10, 5]


def test_jitter_is_a_share_of_the_radius():
    rows, corruptions = found("point-cloud-classification", rows=[{"points": 7 + 5 * RNG.normal(size=(3000, 3))}])
    points = rows[0]["points"]
    radius = np.linalg.norm(points - points.mean(axis=0), axis=1).max()
    for setting in corruptions["jitter"][1:]:
        moved = setting.corrupt(rows, 0)[0]["points"] - points
        assert moved.std() == pytest.approx(setting.severity * radius, rel=0.05)


def test_texts_keep_their_beginning():
    rows, corruptions = found("sequence-classification")
    assert [setting.name for setting in corruptions["length"]] == ["whole", "first 512", "first 256", "first 128"]
    assert [setting.severity for setting in corruptions["length"]] == [0, 1, 2, 3]
    for setting, length in zip(corruptions["length"][1:], (512, 256, 128), strict=True):
        cut = setting.corrupt(rows, 0)
        assert [row["text"] for row in cut] == [row["text"][:length] for row in rows]
    pairs, corruptions = found("sequence-pair-classification")
    shortest = corruptions["length"][-1].corrupt(pairs, 0)
    assert [(len(row["text"]), len(row["text_pair"])) for row in shortest] == [(128, 128), (128, 40)]


def test_characters_are_replaced_by_those_of_the_same_text():
    rows, corruptions = found("sequence-pair-classification")
    for setting in corruptions["replaced_characters"][1:]:
        for row, old in zip(setting.corrupt(rows, 0), rows, strict=True):
            for name in ("text", "text_pair"):
                assert len(row[name]) == len(old[name]) and set(row[name]) <= set(old[name])
                # One in two draws the character that was there.
                changed = sum(one != other for one, other in zip(row[name], old[name], strict=True))
                assert changed <= round(setting.severity * len(old[name]))
            if setting.severity == 0.1 and len(old["text"]) == 800:
                changed = sum(one != other for one, other in zip(row["text"], old["text"], strict=True))
                assert 20 <= changed <= 60


def test_noise_and_missing_steps_of_values():
    rows, corruptions = found("values")
    assert list(corruptions) == ["noise", "missing_steps"]
    wide = {"values": np.linspace(-2, 8, 5000)[:, None]}
    for setting in corruptions["noise"][1:]:
        noise = setting.corrupt([wide], 0)[0]["values"] - wide["values"]
        assert noise.std() == pytest.approx(10 * setting.severity, rel=0.05)
    for setting in corruptions["missing_steps"][1:]:
        image, sequence = (row["values"][:, 0] == 0 for row in setting.corrupt(rows, 0))
        lines = image.reshape(10, 10)
        assert lines.all(axis=1).sum() == round(10 * setting.severity) == lines.any(axis=1).sum()
        assert sequence.sum() == round(50 * setting.severity)
    assert (blank_steps({"values": np.ones((7, 2))}, np.random.default_rng(0), 0.5)["values"] == 0).all(1).sum() == 4


def test_both_directions_of_an_edge_go_together():
    rows, corruptions = found("graph-classification")
    for setting in corruptions["removed_edges"]:
        row = setting.corrupt(rows, 0)[0]
        edges = [tuple(edge) for edge in np.asarray(row["edge_index"]).T.tolist()]
        pairs = {tuple(sorted(edge)) for edge in edges}
        assert len(pairs) == 80 - round(80 * setting.severity)
        assert all((target, source) in edges for source, target in edges)
        assert len(edges) == sum(1 if source == target else 2 for source, target in pairs)
        for (source, target), [feature] in zip(edges, np.asarray(row["edge_attr"]), strict=True):
            assert feature in (source, target) and (abs(source - target) <= 1 or feature == 39)
    alone = graph_rows([{"node_feat": np.ones((1, 1)), "edge_index": np.zeros((2, 0), np.int64), "y": 0}], ["a", "b"])
    assert np.shape(corruptions["removed_edges"][3].corrupt(alone, 0)[0]["edge_index"]) == (2, 0)


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("sequence-classification", "lra_listops", []),
        ("sequence-classification", "listops", []),
        ("sequence-classification", "imdb", ["length", "replaced_characters"]),
        ("values", "pathfinder32", ["noise"]),
        ("values", "mnist", ["noise", "missing_steps"]),
    ],
)
def test_corruptions_that_change_labels_are_left_out(name, dataset, expected):
    assert list(found(name, dataset)[1]) == expected


def test_regression_and_masked_tokens_have_no_corruptions():
    for task in ("sequence-regression", "masked-language-modeling", "graph-regression", "link-prediction"):
        assert corruptions_of(get_task(task), "any", texts(), byte_tokenizer()) == {}


def test_rows_can_be_read_one_after_the_other():
    rows = CorruptedRows([{"a": 1}, {"a": 2}], lambda row, rng: {"a": row["a"] + rng.integers(100)}, 0)
    assert [row["a"] for row in rows] == [rows[0]["a"], rows[1]["a"]]
