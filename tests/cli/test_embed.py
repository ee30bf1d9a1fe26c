"""`sft embed`: vectors of each kind of input, in each kind of file."""

import csv
import io
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoModel, PreTrainedTokenizerFast

from modeling_sft import (
    GraphFeatureExtractionPipeline,
    PointCloudFeatureExtractionPipeline,
    SFTForSequenceClassification,
    SFTGraphProcessor,
    SFTModel,
    SFTPointCloudProcessor,
    byte_tokenizer,
)
from saved_models import saved

TEXTS = ["a film that nobody should have to see twice", "fine", "not bad"]
CPU = ("--device", "cpu")


@pytest.fixture
def clouds(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.npy" for number in range(5)]
    for size, path in zip((31, 12, 25, 40, 9), paths):
        np.save(path, rng.normal(size=(size, 3)))
    return paths


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS), encoding="utf-8")
    return path


def token_states(folder, text):
    """The backbone's states of one text, without any padding."""
    model = SFTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**byte_tokenizer(20)(text, truncation=True, return_tensors="pt")).last_hidden_state[0]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_texts_are_pooled_without_their_padding(run, folders, texts, tmp_path, pooling):
    output = tmp_path / "vectors.npy"
    printed = run("embed", folders / "sequence", texts, "--output", output, "--pooling", pooling, *CPU)
    assert printed == f"3 vectors of 16 numbers written to {output}\n"
    vectors = np.load(output)
    assert vectors.dtype == np.float32 and vectors.shape == (3, 16)
    for text, vector in zip(TEXTS, vectors, strict=True):
        states = token_states(folders / "sequence", text)
        expected = states.mean(0) if pooling == "mean" else states.amax(0)
        assert vector == pytest.approx(expected.numpy(), abs=1e-5)


def test_texts_of_standard_input(run, folders, texts, tmp_path, monkeypatch):
    words = ("embed", folders / "sequence", "--output")
    run(*words, tmp_path / "a.npy", texts, *CPU)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(TEXTS)))
    run(*words, tmp_path / "b.npy", *CPU)
    assert (np.load(tmp_path / "a.npy") == np.load(tmp_path / "b.npy")).all()


def test_clouds_keep_their_order_in_any_batches(run, folders, clouds, tmp_path):
    model = AutoModel.from_pretrained(folders / "point-cloud")
    pipeline = PointCloudFeatureExtractionPipeline(model, SFTPointCloudProcessor(), device="cpu")
    expected = np.stack([pipeline(str(path), normalize=True) for path in clouds])
    for size in (1, 2, 8):
        output = tmp_path / "vectors.npy"
        options = ("--output", output, "--normalize", "--batch_size", size, *CPU)
        run("embed", folders / "point-cloud", *options, *clouds)
        vectors = np.load(output)
        assert vectors == pytest.approx(expected, abs=1e-5)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)


def test_molecules_in_tables(run, folders, tmp_path):
    pytest.importorskip("rdkit")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "new.csv").write_text("molecule\nCCO\nc1ccccc1\n")
    (tmp_path / "new.smi").write_text("CC(=O)O acid\n")
    files = (tmp_path / "new.csv", tmp_path / "new.smi", "--column", "molecule")
    for name in ("vectors.csv", "vectors.parquet"):
        run("embed", folders / "graph", *files, "--output", tmp_path / name, *CPU)
    molecules = ["CCO", "c1ccccc1", "CC(=O)O"]
    model = AutoModel.from_pretrained(folders / "graph")
    expected = np.stack(GraphFeatureExtractionPipeline(model, SFTGraphProcessor(), device="cpu")(molecules))
    header, *rows = csv.reader((tmp_path / "vectors.csv").open(newline="", encoding="utf-8"))
    assert header == ["input", *(f"v{index}" for index in range(16))]
    assert [row[0] for row in rows] == molecules
    vectors = np.array([row[1:] for row in rows], dtype=np.float32)
    assert vectors == pytest.approx(expected, abs=1e-5)
    table = parquet.read_table(tmp_path / "vectors.parquet").to_pydict()
    assert list(table) == header and table["input"] == molecules
    # Both tables hold the numbers in full.
    assert (np.array([table[name] for name in header[1:]], dtype=np.float32).T == vectors).all()


def test_progress_is_shown_on_a_terminal_only(folders, texts, tmp_path, run, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    words = ("embed", folders / "sequence", texts, "--output", tmp_path / "a.npy", *CPU)
    assert "vectors" in run(*words)  # which fails if anything but an error is on standard error
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        run(*words)
    assert "3/3" in terminal.getvalue()


def test_errors_name_the_file(run, folders, clouds, texts, tmp_path):
    words = ("--output", tmp_path / "vectors.npy", *CPU)
    clouds[3].write_bytes(b"damaged")
    assert "3.npy" in run("embed", folders / "point-cloud", *clouds, *words)
    assert "no file `absent.off`" in run("embed", folders / "point-cloud", "absent.off", *words)
    assert "absent.txt" in run("embed", folders / "sequence", "absent.txt", *words)
    assert "`cloud.off` is no file of lines" in run("embed", folders / "sequence", "cloud.off", *words)
    # A model of as many positions as the second file has tokens, and no limit in the tokenizer.
    short = tmp_path / "short"
    changes = {"position_embedding": "learned", "max_position_embeddings": 20}
    saved(short, SFTForSequenceClassification, "test-sft-sequence", byte_tokenizer(), **changes)
    (tmp_path / "fitting.txt").write_text("fine")
    error = run("embed", short, tmp_path / "fitting.txt", texts, *words, "--batch_size", 1)
    assert f"In `{texts}`: " in error and "has learned 20" in error
    assert not (tmp_path / "vectors.npy").exists()


def test_molecules_that_are_none_are_named(run, folders, tmp_path):
    pytest.importorskip("rdkit")
    (tmp_path / "good.smi").write_text("CCO\n" * 3)
    (tmp_path / "bad.smi").write_text("CCO\nC1CC\n")
    files = (tmp_path / "good.smi", tmp_path / "bad.smi")
    error = run("embed", folders / "graph", *files, "--output", tmp_path / "vectors.npy", "--batch_size", 3, *CPU)
    assert "bad.smi" in error and "C1CC" in error and "good.smi" not in error


def test_outputs_that_cannot_be_written_are_refused_first(run, folders, texts, tmp_path, monkeypatch):
    words = ("embed", folders / "sequence", texts, "--output")
    assert "use a name that ends in one of .npy, .csv, .parquet" in run(*words, tmp_path / "vectors.txt")
    assert f"there is no folder `{tmp_path / 'absent'}`" in run(*words, tmp_path / "absent" / "vectors.npy")
    assert "`batch_size` must be an integer of at least 1" in run(*words, tmp_path / "vectors.npy", "--batch_size", 0)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert 'pip install "modeling-sft[train]"' in run(*words, tmp_path / "vectors.parquet")


def test_texts_without_tokens_are_an_error(run, tmp_path):
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "fine": 2}, unk_token="[UNK]"))
    words.normalizer = normalizers.Replace("!", "")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
    saved(tmp_path, SFTForSequenceClassification, "test-sft-sequence", tokenizer)
    (tmp_path / "texts.txt").write_text("fine\n!!\n")
    error = run("embed", tmp_path, tmp_path / "texts.txt", "--output", tmp_path / "vectors.npy", *CPU)
    assert "texts.txt`: The text '!!' has no token" in error
