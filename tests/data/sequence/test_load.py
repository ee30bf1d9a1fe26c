"""Sequence data sets by name: registry, IMDb and ListOps."""

import inspect

import numpy as np
import pandas as pd
import pytest

from modeling_sft.data import load_sequence_dataset
from modeling_sft.data.sequence.readers import SEQUENCE_READERS
from paths import ROOT

pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match="'imdb'"):
        load_sequence_dataset("imbd")
    with pytest.raises(ValueError, match=r"plain_text, text_files, aan, .*, pathx\)\."):
        load_sequence_dataset("xyz")


def test_unknown_options_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="'mnist' has no option 'by'; it has none"):
        load_sequence_dataset("mnist", tmp_path, by="line")
    with pytest.raises(ValueError, match="'plain_text' has no option 'unit'; it has by"):
        load_sequence_dataset("plain_text", tmp_path, unit="line")


@pytest.mark.parametrize("name", sorted(SEQUENCE_READERS))
def test_every_data_set_is_documented_and_says_what_it_lacks(tmp_path, name):
    page = (ROOT / "docs" / "sequence_data.md").read_text()
    assert f"`{name}`" in page
    parameters = inspect.signature(SEQUENCE_READERS[name].read).parameters
    assert list(parameters)[1:] == list(SEQUENCE_READERS[name].options)
    for option in SEQUENCE_READERS[name].options:
        assert f"`{option}`" in page
    if name != "lra_listops":
        with pytest.raises(ValueError, match=f"(?is)data_dir is needed for {name};.*expected layout.*DATA_DIR/"):
            load_sequence_dataset(name)
        with pytest.raises(ValueError, match="(?s)expected layout.*DATA_DIR/"):
            load_sequence_dataset(name, tmp_path)


REVIEWS = {
    "train": [("bad", 0), ("worse\nthan <br /> that", 0), ("a naïve delight", 1)],
    "test": [("no", 0), ("yes", 1)],
}


def write_imdb_tables(folder, **tables):
    (folder / "imdb").mkdir(parents=True)
    for split, reviews in REVIEWS.items():
        table = tables.get(split, {"text": [text for text, _ in reviews], "label": [label for _, label in reviews]})
        frame = pd.DataFrame(table)
        if frame.get("label", pd.Series(dtype=object)).dtype == np.int64:
            frame = frame.astype({"label": np.int8})
        frame.to_parquet(folder / "imdb" / f"{split}.parquet")


def write_imdb_folders(folder):
    for split, reviews in REVIEWS.items():
        for name in ("neg", "pos"):
            (folder / "aclImdb" / split / name).mkdir(parents=True)
        for number, (text, label) in enumerate(reviews):
            # 2, 10, 18: sorted as numbers.
            path = folder / "aclImdb" / split / ("neg", "pos")[label] / f"{8 * number + 2}_{9 * label + 1}.txt"
            path.write_bytes(text.encode())


def test_both_layouts_of_imdb_give_the_same_rows(tmp_path):
    write_imdb_tables(tmp_path / "a")
    write_imdb_folders(tmp_path / "b")
    for folder in ("a", "b"):
        splits = load_sequence_dataset("imdb", tmp_path / folder)
        assert list(splits) == ["train", "test"]
        for split, rows in splits.items():
            assert [(row["text"], row["label"]) for row in rows] == REVIEWS[split]
            assert rows.features["label"].names == ["negative", "positive"]
            assert rows.column_names == ["text", "label"]


def test_the_first_bytes_of_reviews_end_with_a_whole_character(tmp_path):
    write_imdb_tables(tmp_path)
    texts = load_sequence_dataset("imdb", tmp_path, max_bytes=5)["train"]["text"]
    assert list(texts) == ["bad", "worse", "a na"]  # The ï is the fifth byte and the sixth.
    with pytest.raises(ValueError, match="max_bytes must be an integer of at least 4"):
        load_sequence_dataset("imdb", tmp_path, max_bytes=3)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"text": ["a"]}, "no column 'label' but text"),
        ({"label": [0]}, "no column 'text'"),
        ({"text": [], "label": []}, "no rows"),
        ({"text": ["a", None], "label": [0, 1]}, "row 1 .* None"),
        ({"text": ["a", " "], "label": [0, 1]}, "row 1"),
        ({"text": ["a"], "label": [2]}, "between 0 and 1"),
        ({"text": ["a"], "label": [-1]}, "between 0 and 1"),
        ({"text": ["a"], "label": [1.0]}, "integers"),
        ({"text": ["a"], "label": ["pos"]}, "integers"),
    ],
)
def test_wrong_tables_are_named(tmp_path, table, match):
    write_imdb_tables(tmp_path, test=table)
    with pytest.raises(ValueError, match=rf"test\.parquet is damaged.*{match}"):
        load_sequence_dataset("imdb", tmp_path)


def test_truncated_and_absent_tables(tmp_path):
    write_imdb_tables(tmp_path)
    path = tmp_path / "imdb" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read.*truncated"):
        load_sequence_dataset("imdb", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"no file .*train\.parquet; expected layout"):
        load_sequence_dataset("imdb", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [("3_1.txt", b"\xff\xfe", "no UTF-8"), ("3_1.txt", b" \n", "it is empty"), ("three.txt", b"a", "not named")],
)
def test_wrong_reviews_are_named(tmp_path, name, content, match):
    write_imdb_folders(tmp_path)
    (tmp_path / "aclImdb" / "test" / "neg" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged.*{match}"):
        load_sequence_dataset("imdb", tmp_path)


def test_absent_class_folders(tmp_path):
    write_imdb_folders(tmp_path)
    (tmp_path / "aclImdb" / "test" / "pos" / "10_10.txt").unlink()
    with pytest.raises(ValueError, match="test/pos has no review"):
        load_sequence_dataset("imdb", tmp_path)
    (tmp_path / "aclImdb" / "test" / "pos").rmdir()
    with pytest.raises(ValueError, match="(?s)no folder .*test/pos; expected"):
        load_sequence_dataset("imdb", tmp_path)


LIST_OPS = {
    "text": ["[MAX 1 2 ]", "[SM 9 2 ]", "[MIN 4 3 ]", "[MED 5 8 ]"],
    "label": [2, 1, 3, 6],
    "split": ["train", "test", "val", "train"],
}


def write_list_ops(folder, **changes):
    (folder / "listops").mkdir()
    table = {name: values for name, values in (LIST_OPS | changes).items() if values is not None}
    pd.DataFrame(table).to_parquet(folder / "listops" / "listops.parquet")


def test_list_ops(tmp_path):
    write_list_ops(tmp_path)
    splits = load_sequence_dataset("listops", tmp_path)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"][:] == {"text": ["[MAX 1 2 ]", "[MED 5 8 ]"], "label": [2, 6]}
    assert splits["validation"][0] == {"text": "[MIN 4 3 ]", "label": 3}
    assert splits["test"][0] == {"text": "[SM 9 2 ]", "label": 1}
    assert splits["train"].features["label"].names == [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"split": None}, "no column 'split'"),
        ({"split": ["train", "test", "val", "dev"]}, "'dev', which is no split"),
        ({"split": ["train", "test", "test", "test"]}, "no row of 'val'"),
        ({"label": [2, 1, 3, 10]}, "between 0 and 9"),
        ({"text": ["[MAX 1 2 ]", "", "1", "2"]}, "row 1"),
    ],
)
def test_wrong_list_ops_are_named(tmp_path, changes, match):
    write_list_ops(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"listops\.parquet is damaged.*{match}"):
        load_sequence_dataset("listops", tmp_path)
