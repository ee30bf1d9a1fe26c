"""ListOps: labels agree with an independent evaluator, and expressions are those of Long Range Arena."""

import json
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.readers.sequence.list_ops_expressions import ListOpsGenerator, evaluate_list_ops
from modeling_sft.data import load_sequence_dataset

SMALL = {"min_length": 5, "max_length": 60, "max_depth": 4, "max_args": 4}
REFERENCE = {"MIN": min, "MAX": max, "MED": lambda v: int(statistics.median(v)), "SM": lambda v: sum(v) % 10}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def parse(text):
    """The tree by way of JSON: [operator, argument, ...]."""
    return json.loads(
        " ".join(f'["{token[1:]}"' if token[0] == "[" else token for token in text.split())
        .replace(" ]", "]")
        .replace(" ", ", ")
    )


def value(tree):
    return tree if isinstance(tree, int) else REFERENCE[tree[0]]([value(argument) for argument in tree[1:]])


def depth(tree):
    return 1 if isinstance(tree, int) else 1 + max(depth(argument) for argument in tree[1:])


def operators(tree):
    return [] if isinstance(tree, int) else [tree, *(node for argument in tree[1:] for node in operators(argument))]


def write(tree):
    return str(tree) if isinstance(tree, int) else f"[{tree[0]} {' '.join(write(argument) for argument in tree[1:])} ]"


TREES = st.recursive(
    st.integers(0, 9),
    lambda child: st.tuples(st.sampled_from(sorted(REFERENCE)), st.lists(child, min_size=1, max_size=6)).map(
        lambda node: [node[0], *node[1]]
    ),
    max_leaves=60,
)


@settings(max_examples=200, deadline=None)
@given(tree=TREES)
def test_evaluation(tree):
    assert parse(write(tree)) == tree
    assert evaluate_list_ops(write(tree)) == value(tree)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7), ("[MED 1 2 ]", 1), ("[MED 9 0 4 ]", 4), ("[SM 9 9 [MAX 1 3 ] ]", 1), ("[MIN 4 [MED 2 8 9 3 ] ]", 4)],
)
def test_known_values(text, expected):
    assert evaluate_list_ops(text) == expected


@pytest.mark.parametrize("text", ["", "1 2", "[MIN 1", "[MIN ]", "1 ]", "[MIN 1 ] ]", "[FIRST 1 2 ]", "( 1 )", "10"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="text"):
        evaluate_list_ops(text)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    index=st.integers(0, 2**32 - 1),
    min_length=st.integers(1, 20),
    max_depth=st.integers(3, 6),
    max_args=st.integers(5, 9),
)
def test_generated_expressions(seed, index, min_length, max_depth, max_args):
    generator = ListOpsGenerator(min_length, min_length + 40, max_depth, max_args)
    text = generator.expression(seed, 1, index)
    assert text == generator.expression(seed, 1, index)
    assert text != generator.expression(seed, 2, index) or len(text.split()) < 7
    assert min_length < len(text.split()) < min_length + 40
    tree = parse(text)
    assert depth(tree) <= max_depth
    assert all(2 <= len(node) - 1 <= max_args for node in operators(tree))
    assert evaluate_list_ops(text) == value(tree)


def test_the_defaults_are_those_of_long_range_arena():
    trees = []
    for index in range(150):
        text = ListOpsGenerator().expression(0, 0, index)
        assert 500 < len(text.split()) < 2000
        trees.append(parse(text))
        assert evaluate_list_ops(text) == value(trees[-1])
    assert {depth(tree) for tree in trees} <= set(range(5, 11)) and max(map(depth, trees)) == 10
    nodes = [node for tree in trees for node in operators(tree)]
    counts = np.bincount([len(node) - 1 for node in nodes], minlength=11)
    # Long trees have more arguments than uniform, and none of fewer than 2 or more than 10.
    assert counts[:2].sum() == 0 and len(counts) == 11 and counts[2:].min() > 0.05 * len(nodes)
    kinds = np.unique([node[0] for node in nodes], return_counts=True)[1]
    assert len(kinds) == 4 and np.abs(kinds / len(nodes) - 0.25).max() < 0.02
    digits = np.array([argument for node in nodes for argument in node[1:] if isinstance(argument, int)])
    assert np.abs(np.bincount(digits, minlength=10) / len(digits) - 0.1).max() < 0.01


def test_a_quarter_of_the_nodes_are_operators():
    # Nothing is dropped between these lengths but trees of a single digit, so that shares are those of the draw.
    generator = ListOpsGenerator(1, 10**4, max_depth=3, max_args=10)
    arguments = [argument for index in range(400) for argument in parse(generator.expression(3, 0, index))[1:]]
    share = np.mean([isinstance(argument, list) for argument in arguments])
    assert abs(share - 0.25) < 0.03
    sizes = np.bincount([len(parse(generator.expression(3, 0, index))) - 1 for index in range(400)])
    assert len(sizes) == 11 and sizes[2:].min() > 20


def load(**options):
    return load_sequence_dataset("lra_listops", **{"num_train": 30, "num_validation": 6, "num_test": 7} | options)


def test_rows():
    splits = load(**SMALL)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 30, "validation": 6, "test": 7}
    texts = [row["text"] for rows in splits.values() for row in rows]
    assert len(set(texts)) == 43
    for rows in splits.values():
        assert rows.column_names == ["text", "label"]
        assert rows.features["label"].names == [str(digit) for digit in range(10)]
        assert [row["label"] for row in rows] == [value(parse(row["text"])) for row in rows]


def test_rows_are_a_function_of_the_seed_and_their_number():
    few, many = load(**SMALL), load(num_train=50, num_validation=9, num_test=8, **SMALL)
    for split in few:
        assert few[split]["text"][:] == many[split]["text"][: len(few[split])]
    other = load(seed=1, **SMALL)
    assert not set(few["train"]["text"]) & set(other["train"]["text"])
    assert few["train"]["text"][0] == ListOpsGenerator(**SMALL).expression(0, 2, 0)


def test_repeated_expressions_are_dropped_within_and_across_splits():
    generator = ListOpsGenerator(min_length=1, max_length=5, max_depth=2, max_args=2)
    sizes = {"test": 60, "train": 90}
    texts = {split: list(generator.distinct(0, sizes, split)) for split in sizes}
    assert [len(set(texts[split])) for split in sizes] == [60, 90]
    assert not set(texts["test"]) & set(texts["train"])
    # [OP d d ] has 4 operators and 100 pairs of digits.
    with pytest.raises(ValueError, match="500 different expressions"):
        list(generator.distinct(0, {"test": 500}, "test"))


def test_generating_again_uses_the_cache(monkeypatch):
    first = load(**SMALL)["train"]["text"][:]
    monkeypatch.setattr(ListOpsGenerator, "expression", None)
    assert load(**SMALL)["train"]["text"][:] == first


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_train": 0}, "num_train"),
        ({"num_validation": 1.5}, "num_validation"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"min_length": 0}, "min_length"),
        ({"min_length": 500, "max_length": 501}, "max_length must be at least min_length"),
        ({"max_args": 1}, "max_args"),
        ({"max_depth": True}, "max_depth"),
        ({"max_depth": 3}, "longest expressions have 122 tokens"),
        ({"min_length": 13, "max_length": 15, "max_args": 2}, "widen the range"),
    ],
)
def test_options_that_cannot_be_met(options, match, monkeypatch):
    monkeypatch.setattr("lab.readers.sequence.list_ops_expressions.MAX_ATTEMPTS", 500)
    with pytest.raises(ValueError, match=match):
        load(**options)


def write_release(folder, **lines):
    folder = folder / "listops-1000"
    folder.mkdir()
    for name in ("train", "val", "test"):
        rows = lines.get(name, ["( ( ( [MAX 4 ) 8 ) ] )\t8"])
        (folder / f"basic_{name}.tsv").write_text("\r\n".join(["Source\tTarget", *rows, ""]), newline="")


def test_the_files_of_long_range_arena(tmp_path):
    write_release(tmp_path, train=["( ( ( ( [SM 4 ) 8 ) 9 ) ] )\t1", "( ( [MIN 3 ) ] )\t3"])
    splits = load_sequence_dataset("lra_listops", tmp_path)
    assert splits["train"]["text"][:] == ["[SM 4 8 9 ]", "[MIN 3 ]"] and splits["train"]["label"][:] == [1, 3]
    assert splits["validation"][0] == splits["test"][0] == {"text": "[MAX 4 8 ]", "label": 8}


@pytest.mark.parametrize(
    "rows", [[], ["[MAX 4 8 ]"], ["[MAX 4 8 ]\t"], ["\t3"], ["[MAX 4 8 ]\t10"], ["[MAX 4 8 ]\t8\t8"]]
)
def test_damaged_files_are_named(tmp_path, rows):
    write_release(tmp_path, val=rows)
    with pytest.raises(ValueError, match=r"basic_val\.tsv is damaged"):
        load_sequence_dataset("lra_listops", tmp_path)


def test_absent_and_foreign_files(tmp_path):
    write_release(tmp_path)
    (tmp_path / "listops-1000" / "basic_test.tsv").write_text("Text\tLabel\n1\t1\n")
    with pytest.raises(ValueError, match="Source and Target"):
        load_sequence_dataset("lra_listops", tmp_path)
    (tmp_path / "listops-1000" / "basic_test.tsv").unlink()
    with pytest.raises(ValueError, match=r"(?s)no file .*basic_test\.tsv; expected layout"):
        load_sequence_dataset("lra_listops", tmp_path)
