"""What a folder must hold to be published, and what its card may say. No Hub is involved."""

import dataclasses
import json
import re

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file, save_file

from hub.server import HubServer
from modeling_sft import (
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForPointCloudSegmentation,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTGraphProcessor,
    SFTPointCloudProcessor,
    SFTSequenceFeatureExtractor,
    byte_tokenizer,
    list_ops_tokenizer,
)
from modeling_sft.publishing import (
    CARD_SECTIONS,
    CardSection,
    check_card,
    check_folder,
    prepare,
    read_reports,
    render_card,
)
from modeling_sft.publishing.card import _PURPOSES, without_folders
from modeling_sft.publishing.example import example_inputs
from modeling_sft.publishing.files import LocalFile, format_size
from modeling_sft.training.tasks import TASKS
from tiny_models import build, build_graph, build_sequence


def test_the_card_says_what_the_folder_holds(folder):
    card = render_card(check_folder(folder), "lab/digits")
    report = json.loads((folder / "evaluation.json").read_text())
    index = {(entry.dataset_args["rotation"], entry.metric_type): entry for entry in card.data.eval_results}
    for rotation, values in report["results"].items():
        for name in ("accuracy", "mean_class_accuracy"):
            assert index[rotation, name].metric_value == values[name]
            assert f"{100 * values[name]:.2f}" in card.text
    log = json.loads((folder / "training_log.json").read_text())
    for words in (log["hardware"], log["date"], f"{log['num_parameters']:,}", "Seed: 0", "CC BY 4.0", "10 classes"):
        assert words in card.text
    assert "2408.05822" in card.text and "2408.05391" in card.text
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert "{{" not in card.content and "None" not in card.text
    image = re.search(r"!\[.*\]\((.*)\)", card.text)[1]
    assert (folder / image).is_file()
    (folder / image).unlink()
    assert "![" not in render_card(check_folder(folder), "lab/digits").text


def test_the_card_of_a_resumed_run_counts_all_processor_time(folder):
    path = folder / "training_log.json"
    log = json.loads(path.read_text())
    path.write_text(json.dumps(log | {"training_cpu_seconds": 5000.2, "training_seconds": 123.0}))
    card = render_card(check_folder(folder), "lab/digits")
    assert "Duration: 5000 s of processor time, 123 s by the clock since the last start" in card.text
    path.write_text(json.dumps(log | {"training_cpu_seconds": None, "training_seconds": None}))
    assert "Duration: not recorded" in render_card(check_folder(folder), "lab/digits").text


def test_every_task_has_its_purpose():
    assert set(TASKS) == set(_PURPOSES)


def test_the_snippet_of_the_card_runs(folder):
    card = render_card(check_folder(folder), "lab/digits")
    snippet = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1].replace("lab/digits", str(folder))
    names: dict = {}
    exec(snippet, names)
    inputs = example_inputs(names["model"], names["processor"])
    assert names["model"](**inputs).logits.shape == (1, 10)


def test_preparing_writes_the_card_once_and_lists_the_files(folder):
    with HubServer() as hub:
        publication = prepare(folder, "lab/digits")
        assert hub.requests == []
    names = {file.name for file in publication.files}
    assert {"README.md", "model.safetensors", "config.json", "recipe.yaml", "training_log.json"} <= names
    assert "modeling_sft_point_cloud.py" in names and "checkpoint-2/" in publication.left_out
    assert "model.safetensors" in str(publication)
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nA remark.\n")
    prepare(folder, "lab/digits")
    assert card.read_text().endswith("A remark.\n")


def test_the_code_is_generated_and_the_folder_stays_as_it_is(folder):
    expected = {path.name: path.read_bytes() for path in folder.glob("*.py")}
    assert {"configuration_sft.py", "modeling_sft_point_cloud.py", "processing_point_cloud_sft.py"} <= set(expected)
    (folder / "modeling_sft_point_cloud.py").write_text("# stale")
    (folder / "processing_point_cloud_sft.py").unlink()
    (folder / "own_pipeline.py").write_text("# of the user")
    before = {path.name: path.read_bytes() for path in folder.glob("*.py")}
    publication = prepare(folder, "lab/digits")
    names = [file.name for file in publication.files]
    assert names == sorted(set(names))
    uploaded = {file.name: file.read_bytes() for file in publication.files if file.name.endswith(".py")}
    assert uploaded == expected | {"own_pipeline.py": b"# of the user"}
    assert {path.name: path.read_bytes() for path in folder.glob("*.py")} == before


class SpeedSection(CardSection):
    file_name = "speed.json"
    fields = ("words", "seconds")
    script = "scripts/speed.py"
    has_results = True

    def render(self, content, folder):
        return f"## Results of speed in {folder.name}\n\n| {content['seconds']} |"

    def check(self, text, content):
        if content is None and "speed" in text:
            raise ValueError("the card tells of speed that was never measured")

    def num_runs(self, content):
        return 3


@pytest.fixture
def with_speed(folder, monkeypatch):
    monkeypatch.setitem(CARD_SECTIONS, "speed.json", SpeedSection())
    (folder / "speed.json").write_text(json.dumps({"words": "fast", "seconds": 0.777125}))
    return folder


def test_a_section_of_others_stands_in_the_card_and_is_checked(with_speed):
    publication = prepare(with_speed, "lab/digits")
    assert "speed.json" in {file.name for file in publication.files}
    text = (with_speed / "README.md").read_text()
    assert "\n\n## Results of speed in run\n\n| 0.777125 |\n\n## Limits" in text
    assert "One run with one seed" not in text
    (with_speed / "README.md").write_text(text.replace("0.777125", "0.888125"))
    with pytest.raises(ValueError, match=r"says 0\.888125, which has no source"):
        prepare(with_speed, "lab/digits")
    (with_speed / "speed.json").unlink()
    (with_speed / "README.md").write_text(text.replace("0.777125", ""))
    with pytest.raises(ValueError, match="never measured"):
        prepare(with_speed, "lab/digits")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"words": "fast"}, r"speed\.json has no seconds: it must be a file of scripts/speed\.py"),
        (
            {"words": "fast", "seconds": 1, "task": "other"},
            r"speed\.json belongs to another model: its task is other.*Run scripts/speed\.py again",
        ),
    ],
)
def test_the_file_of_a_section_must_fit(with_speed, content, message):
    (with_speed / "speed.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        prepare(with_speed, "lab/digits")


def test_the_file_of_an_unknown_section_is_only_uploaded(with_speed, monkeypatch):
    monkeypatch.delitem(CARD_SECTIONS, "speed.json")
    assert "speed.json" in {file.name for file in prepare(with_speed, "lab/digits").files}
    text = (with_speed / "README.md").read_text()
    assert "speed" not in text and "One run with one seed" in text


@pytest.mark.parametrize("change", ["index", "table"])
def test_a_number_without_source_is_refused(folder, change):
    prepare(folder, "lab/digits")
    path = folder / "README.md"
    card = ModelCard.load(path)
    if change == "index":
        card.data.eval_results[0].metric_value = 0.987654
        card.save(path)
    else:
        shown = re.search(r"\| accuracy \(%\) \| ([\d.]+) \|", card.text)[1]
        path.write_text(card.content.replace(f"| {shown} |", "| 98.76 |", 1))
    with pytest.raises(ValueError, match=r"0\.987654.*no source" if change == "index" else r"98\.76.*no source"):
        prepare(folder, "lab/digits")


def test_a_number_of_another_split_or_rotation_is_no_source(folder):
    prepare(folder, "lab/digits")
    reports = read_reports(folder)
    values = reports["evaluation.json"]["results"]
    values["so3"]["accuracy"] = values["none"]["accuracy"] + 0.25
    card = ModelCard.load(folder / "README.md")
    card.data.eval_results[0].dataset_args = {"rotation": "so3"}
    with pytest.raises(ValueError, match="rotation=so3.*no source"):
        check_card(card, reports)


@pytest.mark.parametrize(
    ("text", "is_allowed"), [("12.35", True), ("12.3", True), ("12.4", False), ("0.1235", True), ("12", False)]
)
def test_rounded_numbers_count_as_the_number(folder, text, is_allowed):
    prepare(folder, "lab/digits")
    reports = read_reports(folder)
    reports["evaluation.json"]["results"] = {"none": {"accuracy": 0.12346}}
    card = ModelCard.load(folder / "README.md")
    card.data.eval_results = [card.data.eval_results[0]]
    card.data.eval_results[0].metric_value = 0.12346
    content = re.sub(
        r"## Results\n.*?\n## Limits", f"## Results\n\n| {text} |\n\n## Limits", card.text, flags=re.DOTALL
    )
    card = ModelCard(f"---\n{card.data.to_yaml()}\n---\n{content}")
    if is_allowed:
        check_card(card, reports)
    else:
        with pytest.raises(ValueError, match="no source"):
            check_card(card, reports)


def test_a_benchmark_gets_the_main_metric(folder):
    publication = prepare(folder, "lab/digits", benchmark="lab/digits-benchmark:rotated")
    path = folder / ".eval_results" / "digits-benchmark.yaml"
    assert ".eval_results/digits-benchmark.yaml" in {file.name for file in publication.files}
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    report = json.loads((folder / "evaluation.json").read_text())
    assert (entry.dataset_id, entry.task_id, entry.date) == ("lab/digits-benchmark", "rotated", report["date"])
    assert entry.value == report["results"]["none"]["accuracy"] and "rotation=none" in entry.notes
    path.write_text(path.read_text().replace(f"value: {entry.value}", "value: 0.987654"))
    with pytest.raises(ValueError, match=r"digits-benchmark.yaml says 0.987654, which has no source"):
        prepare(folder, "lab/digits")


def test_a_benchmark_needs_a_task_and_a_result(folder):
    report = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(report | {"split": "validation"}))
    with pytest.raises(ValueError, match="no accuracy of the test split"):
        prepare(folder, "lab/digits", benchmark="lab/digits:all")
    with pytest.raises(ValueError, match='`benchmark` must be "org/name:task"'):
        prepare(folder, "lab/digits", benchmark="lab/digits")
    assert not (folder / ".eval_results").exists()


def test_a_card_without_results_is_refused(folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    with pytest.raises(ValueError, match="no results in its metadata"):
        prepare(folder, "lab/digits")


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _rename_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _drop_tensor(folder):
    state = load_file(folder / "model.safetensors")
    state.pop(sorted(state)[0])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _spoil_tensor(folder):
    state = load_file(folder / "model.safetensors")
    state[sorted(state)[0]].view(-1)[0] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _evaluate_another_model(folder):
    report = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(report | {"num_parameters": 3}))


def _use_fewer_neighbors(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_neighbors": 2}))


def _forget_the_class(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "a.SFTPointCloudConfig"}}))


def _write_tags(folder):
    (folder / "README.md").write_text("---\nmodel-index: !!python/object/apply:os.getcwd []\n---\n")


def _link_a_secret(folder):
    (folder.parent / "secret").write_text("of someone else")
    (folder / "notes.txt").symlink_to(folder.parent / "secret")


def _write_token(folder):
    (folder / "notes.txt").write_text("HF_TOKEN=hf_" + "abcdefghij" * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no saved model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (_truncate, "model.safetensors is truncated or damaged"),
        (_rename_weights, "weights must be safetensors"),
        (_drop_tensor, "do not fit the model .missing keys"),
        (_spoil_tensor, "not finite"),
        (lambda folder: (folder / "evaluation.json").unlink(), "no evaluation.json"),
        (
            lambda folder: (folder / "evaluation.json").write_text("[]"),
            "evaluation.json has no task, .*: it must be a file of scripts/evaluate.py",
        ),
        (_evaluate_another_model, "belongs to another model: its num_parameters is 3"),
        (lambda folder: (folder / "training_log.json").unlink(), "training_log.json is missing"),
        (lambda folder: (folder / "training_log.json").write_text("{"), "training_log.json is missing or damaged"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "processor in `folder` does not load"),
        (_use_fewer_neighbors, "Model and processor in `folder` do not go together"),
        (_forget_the_class, "`auto_map` in config.json has no entry for SFTForPointCloudClassification"),
        (lambda folder: (folder / "evaluation.json").write_text("[" * 100_000), "evaluation.json is missing or dam"),
        (lambda folder: (folder / "README.md").write_text(f"---\n{'[' * 2_000}\n---\n"), "metadata of README.md"),
        (_write_tags, "metadata of README.md cannot be read .*python/object"),
        (_link_a_secret, "notes.txt is a link that leads out of the folder: replace it by a copy"),
        (_write_token, "looks like a Hub token"),
    ],
)
def test_a_folder_that_is_not_fit_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        prepare(folder, "lab/digits")


def test_nothing_is_written_through_links(folder):
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "README.md").symlink_to(outside / "card.md")
    results = folder / ".eval_results"
    results.symlink_to(outside)
    with pytest.raises(ValueError, match=r"\.eval_results is a link that leads out"):
        prepare(folder, "lab/digits", benchmark="lab/benchmark:digits")
    results.unlink()
    results.mkdir()
    (results / "benchmark.yaml").symlink_to(outside / "benchmark.yaml")
    prepare(folder, "lab/digits", benchmark="lab/benchmark:digits")
    assert not list(outside.iterdir())
    assert not (folder / "README.md").is_symlink() and not (results / "benchmark.yaml").is_symlink()


@pytest.mark.parametrize("repo_id", ["digits", "lab/", "lab/a/b"])
def test_a_name_without_owner_is_refused(folder, repo_id):
    with pytest.raises(ValueError, match="org/name|Repo id must"):
        prepare(folder, repo_id)


@pytest.mark.parametrize(
    ("model", "processor"),
    [
        (lambda: build(SFTForPointCloudSegmentation, torch.float32, use_normals=True), SFTPointCloudProcessor()),
        (lambda: build(SFTForPointCloudSegmentation, torch.float32, num_categories=3), SFTPointCloudProcessor()),
        (lambda: build_graph(SFTForGraphClassification, torch.float32, num_node_encodings=0), SFTGraphProcessor()),
        (lambda: build_graph(SFTForLinkPrediction, torch.float32, num_node_encodings=0), SFTGraphProcessor()),
        (lambda: build_sequence(SFTForSequenceClassification, torch.float32, vocab_size=260), byte_tokenizer()),
        (lambda: build_sequence(SFTForSequencePairClassification, torch.float32, vocab_size=260), byte_tokenizer()),
        (lambda: build_sequence(dtype=torch.float32, vocab_size=260), list_ops_tokenizer()),
        (
            lambda: build_sequence(dtype=torch.float32, vocab_size=0, num_input_features=2),
            SFTSequenceFeatureExtractor(2),
        ),
    ],
    ids=["normals", "categories", "graph", "links", "bytes", "pairs", "list-ops", "values"],
)
def test_each_kind_of_model_has_an_example(model, processor):
    model = model()
    with torch.no_grad():
        outputs = model(**example_inputs(model, processor))
    assert torch.isfinite(outputs.logits).all() and outputs.logits.shape[0] == 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("scripts/train.py configuration/digits/sft.yaml seed=1", None),
        (
            "/opt/lab/scripts/train.py recipe.yaml --data_dir /data/private/sets",
            "train.py recipe.yaml --data_dir sets",
        ),
        ("train.py --data_dir=/data/sets/ dataset.path=/a/b.csv", "train.py --data_dir=sets/ dataset.path=b.csv"),
    ],
)
def test_commands_lose_their_folders(command, expected):
    assert without_folders(command) == (expected or command)


def test_hashes_are_those_of_git_and_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"what is up, doc?")
    assert LocalFile.read(path, "file").git_oid == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    path.write_bytes(b"abc")
    assert LocalFile.read(b"abc", "file") == dataclasses.replace(LocalFile.read(path, "file"), source=b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    file = LocalFile.read(path, "file")
    assert file.sha256 == sha256 and file.size == 3
    assert [format_size(size) for size in (0, 999, 1000, 2_500_000)] == ["0 B", "999 B", "1.0 kB", "2.5 MB"]
