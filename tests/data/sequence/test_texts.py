"""The user's own tables and plain texts, and pairs of papers."""

import json

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Value

from modeling_sft.data import load_sequence_dataset

pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def write(path, table):
    path.parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(table)
    rows = [{name: values[row] for name, values in table.items()} for row in range(len(frame))]
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    else:
        path.write_text(
            json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        )


def load(folder, **options):
    return load_sequence_dataset("text_files", folder, **options)


TEXTS = ["0110", "NA", 'a, "b"\nsecond line', "naïve\tβ"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "json", "jsonl"])
def test_every_kind_of_table(tmp_path, suffix):
    write(tmp_path / f"train.{suffix}", {"text": TEXTS, "label": ["red", "NA", "blue", "red"], "number": range(4)})
    write(tmp_path / f"test.{suffix}", {"label": ["blue"], "text": ["7"]})
    splits = load(tmp_path)
    assert list(splits) == ["train", "test"]
    assert splits["train"]["text"][:] == TEXTS and splits["test"][0] == {"text": "7", "label": 1}
    assert splits["train"]["label"][:] == [2, 0, 1, 2] and splits["train"].column_names == ["text", "label"]
    assert splits["train"].features["label"] == splits["test"].features["label"]
    assert splits["train"].features["label"].names == ["NA", "blue", "red"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_integers_are_classes_in_the_order_of_numbers_and_floats_are_regression(tmp_path, suffix):
    write(tmp_path / f"train.{suffix}", {"text": ["a", "b", "c"], "label": [10, 9, -1], "score": [0.5, 2.0, -1.0]})
    write(tmp_path / f"validation.{suffix}", {"text": ["d"], "label": [9], "score": [3]})
    write(tmp_path / f"test.{suffix}", {"text": ["e"], "label": [10], "score": [4.5]})
    splits = load(tmp_path)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"].features["label"].names == ["-1", "9", "10"] and splits["train"]["label"][:] == [2, 1, 0]
    assert splits["validation"]["label"][:] == [1] and splits["test"]["label"][:] == [2]
    scores = load(tmp_path, label_column="score")
    assert all(rows.features["label"] == Value("float32") for rows in scores.values())
    assert scores["train"]["label"][:] == [0.5, 2.0, -1.0] and scores["validation"]["label"][:] == [3.0]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_the_task_makes_classes_of_floats_and_numbers_of_integers(tmp_path, suffix):
    table = {"text": ["a", "b", "c"], "flag": [1.0, 0.0, 1.0], "count": [3, 1, 2]}
    write(tmp_path / f"train.{suffix}", table)
    write(tmp_path / f"test.{suffix}", {"text": ["d"], "flag": [0.0], "count": [1]})
    flags = load(tmp_path, label_column="flag", task="classification")
    assert flags["train"].features["label"].names == ["0", "1"]
    assert flags["train"]["label"][:] == [1, 0, 1] and flags["test"]["label"][:] == [0]
    counts = load(tmp_path, label_column="count", task="regression")
    assert counts["train"].features["label"] == Value("float32") and counts["test"]["label"][:] == [1.0]
    write(tmp_path / f"train.{suffix}", {**table, "flag": [1.0, 0.0, 0.5]})
    with pytest.raises(ValueError, match="'flag' of row 2 .* 0.5, no class"):
        load(tmp_path, label_column="flag", task="classification")
    with pytest.raises(ValueError, match="task must be one of classification, regression, or None"):
        load(tmp_path, task="labels")


def test_pairs_several_labels_and_texts_alone(tmp_path):
    table = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "tags": [[1, 0, 1], [0, 0.5, 0]]}
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", table)
    columns = {"text_column": "premise", "pair_column": "hypothesis", "label_column": "tags"}
    rows = load(tmp_path, **columns)["train"]
    assert rows[1] == {"text": "b", "text_pair": "d", "label": [0.0, 0.5, 0.0]}
    assert rows.features["label"].feature == Value("float32")
    rows = load(tmp_path, text_column="hypothesis", label_column=None)["test"]
    assert rows.column_names == ["text"] and rows["text"][:] == ["c", "d"]
    with pytest.raises(ValueError, match="must differ; got premise, premise"):
        load(tmp_path, **{**columns, "pair_column": "premise"})


def test_without_a_test_file_a_stratified_share_is_held_out(tmp_path):
    write(tmp_path / "train.csv", {"text": [f"t{row}" for row in range(50)], "label": ["a"] * 30 + ["b"] * 20})
    splits = load(tmp_path, test_fraction=0.2)
    assert isinstance(splits["test"].features["label"], ClassLabel)
    assert np.bincount(splits["test"]["label"][:]).tolist() == [6, 4]
    assert sorted([*splits["train"]["text"], *splits["test"]["text"]]) == sorted(f"t{row}" for row in range(50))
    assert load(tmp_path, test_fraction=0.2)["test"]["text"][:] == splits["test"]["text"][:]
    assert len(load(tmp_path)["test"]) == 5
    assert len(load(tmp_path, label_column=None)["test"]) == 5


@pytest.mark.parametrize("fraction", [0, 1, True, "a"])
def test_fractions_out_of_range(tmp_path, fraction):
    with pytest.raises(ValueError, match="test_fraction must be between"):
        load(tmp_path, test_fraction=fraction)


@pytest.mark.parametrize(
    ("split", "table", "match"),
    [
        ("train", {"text": ["a"]}, "no column 'label' but text"),
        ("test", {"label": ["a"]}, "no column 'text'"),
        ("train", {"text": ["a", "", "c"], "label": [0, 1, 2]}, r"'text' of row 1 \(counted from 0\)"),
        ("train", {"text": ["a", "b", "  "], "label": [0, 1, 2]}, "'text' of row 2"),
        ("train", {"text": ["a", None], "label": [0, 1]}, "'text' of row 1"),
        ("train", {"text": ["a", "b"], "label": ["x", None]}, "'label' of row 1 .* no label"),
        ("train", {"text": ["a", "b"], "label": [1, None]}, "'label' of row 1 .* no label"),
        ("test", {"text": ["a", "b"], "label": ["red", "green"]}, "'label' of row 1 .*'green', none of the classes"),
        ("test", {"text": ["a"], "label": [0.5]}, "row 0 .* 0.5, none of the classes"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_wrong_rows_are_named(tmp_path, split, table, match, suffix):
    write(tmp_path / f"train.{suffix}", {"text": ["a", "b"], "label": ["red", "blue"]})
    write(tmp_path / f"test.{suffix}", {"text": ["a"], "label": ["red"]})
    write(tmp_path / f"{split}.{suffix}", table)
    with pytest.raises(ValueError, match=rf"{split}\.{suffix} is damaged.*{match}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([[1, 0], [1]], "row 1 .* list of 2 numbers"),
        ([[1, 0], [1, None]], "row 1 .* no finite number"),
        ([[], [1]], "row 0 .* no finite number"),
        ([0.5, float("nan")], "row 1"),
        ([0.5, float("inf")], "row 1 .* no finite number"),
    ],
)
def test_wrong_numbers_are_named(tmp_path, labels, match):
    write(tmp_path / "train.jsonl", {"text": ["a", "b"], "label": labels})
    with pytest.raises(ValueError, match=rf"train\.jsonl is damaged.*{match}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", b'text,label\n"a,1\n'),
        ("train.csv", b"text,label\na,1\nb,1,2,3\n"),
        ("train.csv", b"text,label\n"),
        ("train.csv", b""),
        ("train.csv", b"text,label\n\xff\xfe,1\n"),
        ("train.parquet", b"PAR1"),
        ("train.json", b"[{"),
        ("train.jsonl", b'{"text": "a", "lab'),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        load(tmp_path)


def test_absent_and_ambiguous_files(tmp_path):
    write(tmp_path / "test.csv", {"text": ["a"], "label": [1]})
    with pytest.raises(ValueError, match="no file train; expected layout"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is no folder; expected layout"):
        load(tmp_path / "absent")
    write(tmp_path / "train.csv", {"text": ["a"], "label": [1]})
    write(tmp_path / "train.tsv", {"text": ["a"], "label": [1]})
    with pytest.raises(ValueError, match=r"both train\.csv and train\.tsv"):
        load(tmp_path)
    (tmp_path / "train.tsv").unlink()
    (tmp_path / "test.csv").unlink()
    with pytest.raises(ValueError, match="a single row"):
        load(tmp_path)


def test_a_changed_file_is_read_anew(tmp_path):
    write(tmp_path / "train.csv", {"text": ["a", "b"], "label": [1, 1]})
    write(tmp_path / "test.csv", {"text": ["a"], "label": [1]})
    assert load(tmp_path)["train"]["text"][:] == ["a", "b"]
    write(tmp_path / "train.csv", {"text": ["c", "d", "e"], "label": [1, 1, 1]})
    assert load(tmp_path)["train"]["text"][:] == ["c", "d", "e"]


PLAIN = "One line.\n  second\n\n \nThird,\r\nfourth\n\n"


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("line", ["One line.", "  second", "Third,", "fourth"]),
        ("paragraph", ["One line.\n  second", "Third,\nfourth"]),
        ("document", ["One line.\n  second\n\n \nThird,\nfourth"]),
    ],
)
def test_plain_text(tmp_path, by, expected):
    (tmp_path / "train.txt").write_bytes(PLAIN.encode())
    (tmp_path / "validation.txt").write_bytes("\ufeffnaïve\n".encode())
    splits = load_sequence_dataset("plain_text", tmp_path, by=by)
    assert list(splits) == ["train", "validation"] and splits["train"].column_names == ["text"]
    assert splits["train"]["text"][:] == expected and splits["validation"]["text"][:] == ["naïve"]
    if by == "line":
        assert load_sequence_dataset("plain_text", tmp_path)["train"]["text"][:] == expected


def test_wrong_plain_texts(tmp_path):
    with pytest.raises(ValueError, match="by must be one of line, paragraph, document; got 'word'"):
        load_sequence_dataset("plain_text", tmp_path, by="word")
    (tmp_path / "train.txt").write_text("a\n")
    for by in ("line", "paragraph", "document"):
        (tmp_path / "test.txt").write_text(" \n\n")
        with pytest.raises(ValueError, match=r"test\.txt is damaged.*no text"):
            load_sequence_dataset("plain_text", tmp_path, by=by)
        (tmp_path / "test.txt").write_bytes(b"a\n\xff\n")
        with pytest.raises(ValueError, match=r"test\.txt is damaged.*UTF-8"):
            load_sequence_dataset("plain_text", tmp_path, by=by)


PAPERS = (
    "1.0\tP05-1\tW01-2\tb'tab \\t and na\\xc3\\xafve'\tb\"it's \\xff\"\n"
    "0.0\tA\tB\tplain \u2028 text\tother\r\n"
    "0\tC\tD\tb\tx\n"
)


def write_papers(folder, **lines):
    (folder / "tsv_data").mkdir(exist_ok=True)
    for name in ("train", "eval", "test"):
        content = lines.get(name, "1\tE\tF\ta\tb\n").encode()
        (folder / "tsv_data" / f"new_aan_pairs.{name}.tsv").write_bytes(content)


def test_papers(tmp_path):
    write_papers(tmp_path, train=PAPERS)
    splits = load_sequence_dataset("aan", tmp_path)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"][0] == {"text": "tab \t and naïve", "text_pair": "it's \ufffd", "label": 1}
    assert splits["train"][1] == {"text": "plain \u2028 text", "text_pair": "other", "label": 0}
    assert splits["train"][2] == {"text": "b", "text_pair": "x", "label": 0}
    assert splits["test"][0] == splits["validation"][0] == {"text": "a", "text_pair": "b", "label": 1}
    assert splits["train"].features["label"].names == ["unrelated", "related"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "no rows"),
        ("1\ta\tb\tc\n", "row 0 .* 4 fields"),
        ("1\ta\tb\tc\td\n1\ta\tb\tc\td\te\n", "row 1 .* 6 fields"),
        ("2\ta\tb\tc\td\n", "label of row 0 .*'2'"),
        ("1\ta\tb\tb'c\td\n", "literal"),
        ("1\ta\tb\tc\t \n", "row 0 .* empty"),
        ("1\ta\tb\tc\tb''\n", "row 0 .* empty"),
    ],
)
def test_wrong_papers_are_named(tmp_path, content, match):
    write_papers(tmp_path, eval=content)
    with pytest.raises(ValueError, match=rf"pairs\.eval\.tsv is damaged.*{match}"):
        load_sequence_dataset("aan", tmp_path)
