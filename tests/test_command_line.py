"""`python -m modeling_sft`: what it lists, says and predicts, and how it ends."""

import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_sft import (
    SFTForGraphClassification,
    SFTForMaskedLM,
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTForSequenceClassification,
    SFTGraphProcessor,
    SFTPointCloudProcessor,
    byte_tokenizer,
)
from modeling_sft.command_line import format_package, main
from modeling_sft.presets import PRESETS, preset
from modeling_sft.training.recipe_files import recipe_paths
from point_cloud_files import write_off
from tiny_models import randomise

ROOT = Path(__file__).resolve().parent.parent
NAMES = {0: "good", 1: "bad", 2: "ugly"}


def saved(folder, cls, name, processor, **changes):
    torch.manual_seed(0)
    model = randomise(cls(preset(name, **({"id2label": NAMES} | changes)))).eval()
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return model


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert code == (2 if captured.err.startswith("error: ") else 0), captured.err
        return captured.err if code else captured.out

    return call


def test_list(run):
    listed = json.loads(run("list", "--json"))
    assert set(listed) == {"presets", "tasks", "recipes"} and set(listed["presets"]) == set(PRESETS)
    assert set(listed["recipes"]) == set(recipe_paths(ROOT / "configuration"))
    assert listed["recipes"]["samsa-digits"]["task"] == "point-cloud-classification"
    # Its task stands in its base.
    assert listed["recipes"]["nci1-gine"]["task"] == "graph-classification"
    assert listed["recipes"]["nci1-gine"]["description"] == "A peer of nci1: GINE, as wide and deep."
    assert {entry["task"] for entry in listed["recipes"].values()} <= set(listed["tasks"])
    assert all(listed["tasks"].values())
    text = format_package(listed)
    for name in ("node-classification", "samsa-digits"):
        assert re.search(rf"^  {name}  ", text, re.MULTILINE)
    # The table of the documentation is this text.
    assert text.split("\n\n")[0] in (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")


def test_info(run, tmp_path):
    processor = SFTPointCloudProcessor()
    name = "test-sft-point-cloud"
    model = saved(tmp_path, SFTForPointCloudClassification, name, processor, num_sampled_tokens_range=[3, 9])
    described = json.loads(run("info", tmp_path, "--json"))
    assert described["class"] == "SFTForPointCloudClassification" and described["modality"] == "point_cloud"
    assert described["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert described["num_sampled_tokens"] == 6 and described["labels"] == list(NAMES.values())
    assert described["evaluation"] is None
    report = {"model": "m", "task": "point-cloud-classification", "dataset": "digits", "split": "test"}
    report |= {"num_examples": 9, "num_parameters": 5, "num_sampled_tokens": 6}
    report["results"] = {"none": {"accuracy": 0.4321}}
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    text = run("info", tmp_path)
    for part in (f"{described['num_parameters']:,}", "6 (trained with 3 to 9)", "3: good, bad, ugly", "43.21"):
        assert part in text
    assert json.loads(run("info", tmp_path, "--json"))["evaluation"] == report
    (tmp_path / "evaluation.json").write_text("{")
    assert "evaluation.json` is damaged" in run("info", tmp_path)


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


def test_predict_texts_of_files_and_lines(run, tmp_path, monkeypatch):
    saved(tmp_path, SFTForSequenceClassification, "test-sft-sequence", byte_tokenizer(20))
    text = "a film that nobody should have to see twice"
    (tmp_path / "texts.txt").write_text(f"{text}\n\nfine\n", encoding="utf-8")
    answers = json.loads(run("predict", tmp_path, tmp_path / "texts.txt", "--json", "--device", "cpu", "--top_k", 2))
    assert [entry["input"] for entry in answers] == [text, "fine"]
    assert [len(entry["answer"]) for entry in answers] == [2, 2]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{text}\nfine\n"))
    assert json.loads(run("predict", tmp_path, "--json", "--device", "cpu", "--top_k", 2)) == answers
    (tmp_path / "texts.tsv").write_text(f"label\ttext\n\t{text}\nbad\tfine\n", encoding="utf-8")
    table = (tmp_path / "texts.tsv", "--json", "--device", "cpu", "--top_k", 2)
    assert json.loads(run("predict", tmp_path, *table)) == answers


def test_predict_molecules(run, tmp_path):
    pytest.importorskip("rdkit")
    saved(tmp_path, SFTForGraphClassification, "test-sft-graph", SFTGraphProcessor())
    (tmp_path / "new.smi").write_text("CCO ethanol\nc1ccccc1\n")
    (tmp_path / "new.csv").write_text('name,molecule\nethanol,CCO\n"benzene, pure",c1ccccc1\n')
    arguments = ("--json", "--device", "cpu")
    answers = json.loads(run("predict", tmp_path, tmp_path / "new.smi", *arguments))
    assert [entry["input"] for entry in answers] == ["CCO", "c1ccccc1"]
    assert json.loads(run("predict", tmp_path, tmp_path / "new.csv", "--column", "molecule", *arguments)) == answers
    assert "no column 'smiles': name one of name, molecule" in run("predict", tmp_path, tmp_path / "new.csv")
    (tmp_path / "bad.smi").write_text("CCO\nC1CC\n")
    error = run("predict", tmp_path, tmp_path / "bad.smi", "--device", "cpu")
    assert "Input 1 of the list" in error and "C1CC" in error


def test_errors_are_said_and_end_with_2(run, tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "absent"):
        assert f"no saved model (config.json) in `{folder}`" in run("info", folder)
        assert f"no saved model (config.json) in `{folder}`" in run("predict", folder, "a.txt", "--json")
    saved(tmp_path / "masked", SFTForMaskedLM, "test-sft-sequence", byte_tokenizer())
    assert "SFTForMaskedLM, which labels nothing" in run("predict", tmp_path / "masked")
    texts = tmp_path / "texts"
    saved(texts, SFTForSequenceClassification, "test-sft-sequence", None)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "nothing to classify" in run("predict", texts)
    assert "`cloud.off` is no file of lines: use one of .txt" in run("predict", texts, "cloud.off")
    assert "absent.txt" in run("predict", texts, "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "latin.txt` cannot be read as .txt in UTF-8" in run("predict", texts, tmp_path / "latin.txt")
    (tmp_path / "a.txt").write_text("text")
    assert "`top_k` is 0" in run("predict", texts, tmp_path / "a.txt", "--top_k", 0)
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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"model_type": []}', "wrong type .TypeError"),
        ("config.json", '{"a":' * 100_000, "RecursionError"),
        ("config.json", '{"model_type": "sft_point_cloud", "hidden_size": -24}', "hidden_size"),
        ("model.safetensors", "damaged", "header"),
        ("evaluation.json", "[" * 100_000, "damaged"),
        ("evaluation.json", '{"results": 3}', "wrong type"),
        ("evaluation.json", '{"results": {}}', "has no results"),
    ],
    ids=range(7),
)
def test_broken_folders_are_said_in_one_line(run, tmp_path, monkeypatch, capsys, name, text, message):
    saved(tmp_path, SFTForPointCloudClassification, "test-sft-point-cloud", SFTPointCloudProcessor())
    (tmp_path / name).write_text(text)
    np.save(tmp_path / "cloud.npy", np.zeros((9, 3)))
    capsys.readouterr()  # the first save of a process shows its progress
    lines = []
    if name == "model.safetensors":
        lines.append(run("predict", tmp_path, tmp_path / "cloud.npy", "--device", "cpu"))
    else:
        lines.append(run("info", tmp_path))
    if name != "evaluation.json":
        monkeypatch.setattr("sys.argv", ["evaluate.py", str(tmp_path), "--dataset", "digits"])
        assert runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))["main"]() == 2
        lines.append(capsys.readouterr().err)
    for line in lines:
        assert line.startswith("error: ") and line.count("\n") == 1 and re.search(message, line)


def test_wrong_words_and_help(capsys):
    for words in ([], ["predict"], ["sing"], ["predict", "folder", "--top_k", "many"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "usage: python -m modeling_sft" in capsys.readouterr().err
    for words, parts in (
        (["--help"], ("list", "info", "predict", "examples:")),
        (["predict", "--help"], (".off", ".smi")),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        help_text = capsys.readouterr().out
        assert ended.value.code == 0 and all(part in help_text for part in parts)


@pytest.mark.slow
def test_the_package_runs_as_a_module(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "modeling_sft", "info", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2 and "no saved model" in result.stderr
