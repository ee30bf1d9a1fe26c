"""`sft predict`: answers of each kind of model for its kind of files."""

import io
import json

import numpy as np
import pytest
import torch

from modeling_sft import (
    SFTForMaskedLM,
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTForSequenceClassification,
    SFTPointCloudProcessor,
    byte_tokenizer,
)
from point_cloud_files import write_off
from saved_models import NAMES, saved


def test_predict_point_clouds(run, tmp_path):
    model = saved(tmp_path, SFTForPointCloudClassification, "test-sft-point-cloud", SFTPointCloudProcessor())
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(31, 3)))
    write_off(tmp_path / "mesh.off")
    files = [tmp_path / "cloud.npy", tmp_path / "mesh.off"]
    answers = json.loads(
        run("predict", tmp_path, *files, "--json", "--top_k", 3, "--batch_size", 2, "--device", "cpu")
    )
    assert [entry["input"] for entry in answers] == [str(path) for path in files]
    for entry in answers:
        with torch.no_grad():
            expected = model(**SFTPointCloudProcessor()(entry["input"])).logits[0].softmax(-1)
        scores = {label["label"]: label["score"] for label in entry["answer"]}
        assert [scores[name] for name in NAMES.values()] == pytest.approx(expected.tolist(), abs=1e-4)
    lines = run("predict", tmp_path, *files, "--top_k", 1, "--device", "cpu").splitlines()
    assert [line.split("\t")[1].split()[0] for line in lines] == [entry["answer"][0]["label"] for entry in answers]


def test_predict_points(run, tmp_path):
    saved(tmp_path, SFTForPointCloudSegmentation, "test-sft-point-cloud", SFTPointCloudProcessor())
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(31, 3)))
    (entry,) = json.loads(run("predict", tmp_path, tmp_path / "cloud.npy", "--json", "--device", "cpu"))
    labels = entry["answer"]["labels"]
    assert len(labels) == len(entry["answer"]["points"]) == 31
    line = run("predict", tmp_path, tmp_path / "cloud.npy", "--device", "cpu")
    assert all(f"{name} {labels.count(name)}" in line for name in set(labels))


def test_predict_texts_of_files_and_lines(run, folders, tmp_path, monkeypatch):
    text = "a film that nobody should have to see twice"
    (tmp_path / "texts.txt").write_text(f"{text}\n\nfine\n", encoding="utf-8")
    folder, options = folders / "sequence", ("--json", "--device", "cpu", "--top_k", 2)
    answers = json.loads(run("predict", folder, tmp_path / "texts.txt", *options))
    assert [entry["input"] for entry in answers] == [text, "fine"]
    assert [len(entry["answer"]) for entry in answers] == [2, 2]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{text}\nfine\n"))
    assert json.loads(run("predict", folder, *options)) == answers
    (tmp_path / "texts.tsv").write_text(f"label\ttext\n\t{text}\nbad\tfine\n", encoding="utf-8")
    assert json.loads(run("predict", folder, tmp_path / "texts.tsv", *options)) == answers


def test_predict_molecules(run, folders, tmp_path):
    pytest.importorskip("rdkit")
    folder = folders / "graph"
    (tmp_path / "new.smi").write_text("CCO ethanol\nc1ccccc1\n")
    (tmp_path / "new.csv").write_text('name,molecule\nethanol,CCO\n"benzene, pure",c1ccccc1\n')
    arguments = ("--json", "--device", "cpu")
    answers = json.loads(run("predict", folder, tmp_path / "new.smi", *arguments))
    assert [entry["input"] for entry in answers] == ["CCO", "c1ccccc1"]
    assert json.loads(run("predict", folder, tmp_path / "new.csv", "--column", "molecule", *arguments)) == answers
    assert "no column 'smiles': name one of name, molecule" in run("predict", folder, tmp_path / "new.csv")
    (tmp_path / "bad.smi").write_text("CCO\nC1CC\n")
    error = run("predict", folder, tmp_path / "bad.smi", "--device", "cpu")
    assert "bad.smi`: " in error and "C1CC" in error


def test_mistakes_are_named(run, tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "absent"):
        assert f"no saved model (config.json) in `{folder}`" in run("info", folder)
        assert f"no saved model (config.json) in `{folder}`" in run("predict", folder, "a.txt", "--json")
    saved(tmp_path / "masked", SFTForMaskedLM, "test-sft-sequence", byte_tokenizer())
    assert "SFTForMaskedLM, which labels nothing" in run("predict", tmp_path / "masked")
    texts = tmp_path / "texts"
    saved(texts, SFTForSequenceClassification, "test-sft-sequence", None)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "nothing to read" in run("predict", texts)
    assert "`cloud.off` is no file of lines: use one of .txt" in run("predict", texts, "cloud.off")
    assert "absent.txt" in run("predict", texts, "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "latin.txt` cannot be read as .txt in UTF-8" in run("predict", texts, tmp_path / "latin.txt")
    (tmp_path / "a.txt").write_text("text")
    assert "`top_k` must be an integer of at least 1" in run("predict", texts, tmp_path / "a.txt", "--top_k", 0)
    assert "`device` is 'cup'" in run("predict", texts, tmp_path / "a.txt", "--device", "cup")
    assert "no tokenizer" in run("predict", texts, tmp_path / "a.txt")
    clouds = tmp_path / "clouds"
    saved(clouds, SFTForPointCloudClassification, "test-sft-point-cloud", None)
    assert "no file `absent.off`" in run("predict", clouds, "absent.off")
    (tmp_path / "bad.off").write_text("no mesh")
    assert "preprocessor_config.json" in run("predict", clouds, tmp_path / "bad.off", "--device", "cpu")
    SFTPointCloudProcessor().save_pretrained(clouds)
    assert "bad.off" in run("predict", clouds, tmp_path / "bad.off", "--device", "cpu")
    (clouds / "model.safetensors").write_bytes(b"damaged")
    assert run("predict", clouds, tmp_path / "bad.off", "--device", "cpu")
    (clouds / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    assert "BertModel, which is no model of this package" in run("info", clouds)
