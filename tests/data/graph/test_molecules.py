"""MoleculeNet and the user's own tables of SMILES."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling_sft.data.graph.readers import load_graph_dataset
from modeling_sft.data.graph.smiles_splits import scaffold_indices
from modeling_sft.data.graph.smiles_tables import find_targets, read_smiles_table

SMILES = ["C" * length for length in range(1, 9)] + ["c1ccccc1", "C1CCCCC1", "c1ccccc1C"]
"""Eleven molecules; row i < 8 has i + 1 atoms, and rows 8 and 10 share a scaffold."""


pytestmark = pytest.mark.usefixtures("own_dataset_cache")


def write(folder, targets, name="train.csv", smiles=SMILES):
    """Targets as they are written, one per row."""
    (folder / name).write_text("smiles,y\n" + "".join(f"{one},{y}\n" for one, y in zip(smiles, targets)))
    return folder / name


def test_the_largest_scaffolds_that_fit_go_to_training():
    scaffolds = ["a"] * 5 + ["b", "b"] + ["c", "d", "e"]
    train, validation, test = scaffold_indices(scaffolds)
    assert train.tolist() == [0, 1, 2, 3, 4, 5, 6, 9]
    # Of the groups of one row, the last comes first.
    assert validation.tolist() == [8] and test.tolist() == [7]


@given(
    scaffolds=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    shares=st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)),
)
def test_no_scaffold_is_in_two_splits(scaffolds, shares):
    fractions = [share / sum(shares) for share in shares]
    parts = scaffold_indices(scaffolds, fractions)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(scaffolds)))
    assert sum(len({scaffolds[row] for row in part}) for part in parts) == len(set(scaffolds))
    assert len(parts[0]) <= fractions[0] * len(scaffolds) + 1e-6


@pytest.mark.parametrize(
    ("written", "task", "names"),
    [
        (["0.5", "1", "2"], None, None),
        (["1.0", "0.0", "1.0"], None, None),
        (["0", "1", "0"], None, ("0", "1")),
        (["0", "", "1"], None, ("0", "1")),
        (["True", "False", "True"], None, ("False", "True")),
        (["b", "a", "b"], None, ("a", "b")),
        (["b", "NA", "b"], None, ("b",)),
        (["10", "9", "10"], "classification", ("9", "10")),
        (["10", "9", ""], "regression", None),
        (["0", "1", "0"], "regression", None),
        (["1.0", "", "2.0"], "classification", ("1", "2")),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_values_say_what_the_targets_are(tmp_path, written, task, names, kind):
    path = write(tmp_path, written)
    if kind == "parquet":
        table = read_smiles_table(path, "smiles")
        path = tmp_path / "train.parquet"
        table.to_parquet(path)
    assert find_targets(path, read_smiles_table(path, "smiles"), "smiles", None, task).class_names == names


def test_one_column_of_labels(tmp_path):
    path = write(tmp_path, ["1", "", "0", "1.0"])
    rows = load_graph_dataset("smiles_files", path, task="labels", fractions=[1, 0, 0])["train"]
    np.testing.assert_array_equal(np.array(rows["y"]), [[1], [np.nan], [0], [1]])


@pytest.mark.parametrize(
    ("written", "task", "match"),
    [
        (["3", "7", "3"], None, "integers from 3 to 7, which may be classes or numbers: set task"),
        (["1.5", "2", "x"], None, "'y' of row 2 .*'x', no number as in other rows"),
        (["1.5", "", "x"], "regression", "'y' of row 2 .*'x', no finite number"),
        (["inf", "1", "2"], None, "'y' of row 0 .*inf, no finite number"),
        (["1", "1e300", "2"], None, r"'y' of row 1 .*1e\+300, no finite number"),
        (["x", "y", "z"], None, "another text in each row"),
        (["1", "", "2.5"], "classification", "'y' of row 2 .*2.5, no class"),
        (["1", "", "2"], "labels", "'y' of row 2 .*2.0, not 0, 1 or missing, as a label"),
        (["", "", ""], "classification", "'y' has no classes"),
        (["1", "2", "3"], "ranking", "task must be one of classification, labels, regression"),
    ],
)
def test_unclear_targets_are_refused(tmp_path, written, task, match):
    path = write(tmp_path, written)
    with pytest.raises(ValueError, match=match):
        find_targets(path, read_smiles_table(path, "smiles"), "smiles", None, task)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "time"}, "split must be one of random, scaffold"),
        ({"fractions": [0.8, 0.1]}, "fractions must be three numbers"),
        ({"fractions": [0.8, 0.1, 0.2]}, "add up to 1"),
        ({"fractions": [1.2, -0.1, -0.1]}, "fractions must be three numbers"),
        ({"fractions": "0.8"}, "fractions must be three numbers"),
        ({"fractions": [0, 0.5, 0.5]}, "fractions must begin with a number above 0"),
        ({"seed": -1}, "seed must be"),
        ({"on_error": "ignore"}, "on_error must be one of raise, skip"),
        ({"smiles_column": "mol"}, "no column 'mol' but smiles, y; name that of the SMILES as smiles_column"),
        ({"target_columns": "z"}, "target_columns has 'z', but .* has y"),
        ({"target_columns": ["y", "y"]}, "each once"),
        ({"target_columns": "smiles"}, "target_columns has 'smiles'"),
    ],
)
def test_options_are_checked(tmp_path, options, match):
    write(tmp_path, ["0.5"] * 11)
    with pytest.raises(ValueError, match=match):
        load_graph_dataset("smiles_files", tmp_path, **options)


def test_files_are_checked(tmp_path):
    path = write(tmp_path, ["0.5"] * 11)
    with pytest.raises(ValueError, match="unknown kind"):
        load_graph_dataset("smiles_files", path.rename(tmp_path / "train.xlsx"))
    path = write(tmp_path, ["0.5"] * 11)
    pd.read_csv(path).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="both train.csv and train.parquet"):
        load_graph_dataset("smiles_files", tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"no table")
    path.unlink()
    with pytest.raises(ValueError, match="train.parquet is damaged .*cannot be read"):
        load_graph_dataset("smiles_files", tmp_path)
    for content, match in (("", "cannot be read"), ("smiles,y\n", "no rows")):
        (tmp_path / "one.csv").write_text(content)
        with pytest.raises(ValueError, match=f"one.csv is damaged .*{match}"):
            load_graph_dataset("smiles_files", tmp_path / "one.csv")


class TestWithRdkit:
    @pytest.fixture(autouse=True)
    def rdkit(self):
        pytest.importorskip("rdkit")

    def test_moleculenet(self, tmp_path):
        (tmp_path / "moleculenet").mkdir()
        smiles = ["C" * length for length in range(1, 11)] + ["C("]
        pd.DataFrame({"smiles": smiles, "y": np.arange(11.0)}).to_parquet(tmp_path / "moleculenet" / "esol.parquet")
        for _ in range(2):  # the second time from the cache
            with pytest.warns(UserWarning, match="1 of 11 rows of .* cannot be read"):
                splits = load_graph_dataset("esol", tmp_path, split="random", seed=3)
        assert [len(rows) for rows in splits.values()] == [8, 1, 1]
        for rows in splits.values():
            for row in rows:
                assert row["y"].dtype == np.float32 and row["y"].tolist() == [row["num_nodes"] - 1]

    def test_random_split(self, tmp_path):
        path = write(tmp_path, [f"{row}.5" for row in range(11)])
        splits = load_graph_dataset("smiles_files", path, fractions=[0.5, 0.25, 0.25], seed=1)
        rows = {name: [math.floor(y[0]) for y in part["y"][:]] for name, part in splits.items()}
        assert [len(part) for part in rows.values()] == [5, 3, 3]
        assert sorted(sum(rows.values(), [])) == list(range(11)) and all(
            part == sorted(part) for part in rows.values()
        )
        other = load_graph_dataset("smiles_files", path, fractions=[0.5, 0.25, 0.25], seed=2)
        assert other["test"]["y"][:].tolist() != splits["test"]["y"][:].tolist()
        assert list(load_graph_dataset("smiles_files", path, fractions=[0.7, 0, 0.3])) == ["train", "test"]
        assert len(load_graph_dataset("smiles_files", path, fractions=[1, 0, 0])["train"]) == 11
        with pytest.raises(ValueError, match="random split of the 11 molecules .*leaves validation empty"):
            load_graph_dataset("smiles_files", path, fractions=[0.98, 0.01, 0.01])

    def test_scaffold_groups_stay_together(self, tmp_path):
        write(tmp_path, [f"{row}.5" for row in range(11)])
        splits = load_graph_dataset("smiles_files", tmp_path, split="scaffold", fractions=[0.75, 0.2, 0.05])
        rows = [[math.floor(y[0]) for y in part["y"][:]] for part in splits.values()]
        assert rows == [list(range(8)), [8, 10], [9]]

    def test_unreadable_smiles_are_named_or_skipped(self, tmp_path):
        smiles = ["C", "C(", "CC", "", "NA", "CCC"]
        write(tmp_path, ["0.5"] * 6, smiles=smiles)
        with pytest.raises(ValueError, match=r"row 1 .*'C\('.* for 2 more rows \(3, 4\).*on_error=\"skip\""):
            load_graph_dataset("smiles_files", tmp_path)
        for split in ("random", "scaffold"):
            with pytest.warns(UserWarning, match="3 of 6 rows"):
                splits = load_graph_dataset(
                    "smiles_files", tmp_path, split=split, fractions=[1, 0, 0], on_error="skip"
                )
            assert [int(row["num_nodes"]) for row in splits["train"]] == [1, 2, 3]
        write(tmp_path, ["0.5"] * 2, smiles=["C(", ""])
        with pytest.raises(ValueError, match="no row has a SMILES in column 'smiles' that RDKit can read"):
            load_graph_dataset("smiles_files", tmp_path, on_error="skip")

    def test_absent_classes_are_named_or_skipped(self, tmp_path):
        write(tmp_path, ["active", "", "inactive"], smiles=["C", "CC", "CCC"])
        with pytest.raises(ValueError, match="'y' of row 1 .*no class: fill it in"):
            load_graph_dataset("smiles_files", tmp_path)
        with pytest.warns(UserWarning, match="1 of 3 rows"):
            rows = load_graph_dataset("smiles_files", tmp_path, on_error="skip", fractions=[1, 0, 0])["train"]
        assert rows.features["y"].names == ["active", "inactive"]
        assert [(int(row["num_nodes"]), int(row["y"])) for row in rows] == [(1, 0), (3, 1)]

    def test_all_files_have_the_classes_of_the_training_data(self, tmp_path):
        write(tmp_path, ["b", "a", "b"])
        path = write(tmp_path, ["a", "b"], "test.tsv")
        path.write_text(path.read_text().replace(",", "\t"))
        splits = load_graph_dataset("smiles_files", tmp_path)
        assert {name: rows["y"][:].tolist() for name, rows in splits.items()} == {"train": [1, 0, 1], "test": [0, 1]}
        write(tmp_path, ["a", "c"], "validation.csv")
        with pytest.raises(ValueError, match="validation.csv .*row 1 .*'c', none of the classes .*a, b"):
            load_graph_dataset("smiles_files", tmp_path)
        (tmp_path / "validation.csv").write_text("smiles,z\nC,a\n")
        with pytest.raises(ValueError, match="validation.csv .*no column 'y' but smiles, z"):
            load_graph_dataset("smiles_files", tmp_path)

    def test_several_targets(self, tmp_path):
        table = pd.DataFrame({"b": [1, None], "mol": ["CC", "CC"], "a": [None, 0.5]})
        table.to_csv(tmp_path / "train.csv", index=False)
        table.to_parquet(tmp_path / "test.parquet")
        options = {"smiles_column": "mol", "target_columns": ["a", "b"]}
        splits = load_graph_dataset("smiles_files", tmp_path, **options)
        assert list(splits) == ["train", "test"]
        for rows in splits.values():
            assert rows["y"][:].dtype == np.float32
            np.testing.assert_array_equal(np.stack(rows["y"][:]), [[np.nan, 1], [0.5, np.nan]])
        with pytest.raises(ValueError, match="'a' of row 1 .*0.5, not 0, 1 or missing"):
            load_graph_dataset("smiles_files", tmp_path, task="classification", **options)
        with pytest.raises(ValueError, match="columns b, a beside 'mol': name the targets as target_columns"):
            load_graph_dataset("smiles_files", tmp_path, smiles_column="mol")
        table.assign(a=["x", "y"]).to_csv(tmp_path / "train.csv", index=False)
        with pytest.raises(ValueError, match="'a' of row 0 .*'x', no finite number"):
            load_graph_dataset("smiles_files", tmp_path, **options)
