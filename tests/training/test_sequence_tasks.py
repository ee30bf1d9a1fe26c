"""Training and evaluating sequence models on tables and texts, from recipe to report."""

import csv
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from modeling_sft import (
    AutoModelForSequencePairClassification,
    byte_pair_tokenizer,
    byte_tokenizer,
    character_tokenizer,
)
from modeling_sft.training import SFTTrainer, evaluate, format_report, get_task, train
from tiny_recipes import tiny_recipe, tiny_sequence_recipe

WORDS = {"animal": ["cat", "dog", "hen", "little mouse"], "plant": ["oak", "rose", "thistle", "moss"]}


def sentences(count, seed):
    """Sentences of many lengths, each of one class."""
    rng = np.random.default_rng(seed)
    labels = ["animal", "plant"] * (count // 2)
    return [" and ".join(rng.choice(WORDS[label], rng.integers(1, 8))) for label in labels], labels


def write_csv(path, columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One folder of files per kind of data."""
    folder = tmp_path_factory.mktemp("data")
    for kind in ("classes", "pairs", "numbers", "texts"):
        (folder / kind).mkdir()
    for split, count, seed in (("train", 40, 0), ("test", 14, 1)):
        texts, labels = sentences(count, seed)
        write_csv(folder / "classes" / f"{split}.csv", {"text": texts, "label": labels})
        order = np.random.default_rng(seed).permutation(count)
        others = [texts[index] for index in order]
        same = [int(labels[index] == label) for index, label in zip(order, labels, strict=True)]
        write_csv(folder / "pairs" / f"{split}.csv", {"text": texts, "other": others, "label": same})
        numbers = [float(len(text)) / 10 for text in texts]
        Dataset.from_dict({"text": texts, "label": numbers}).to_parquet(folder / "numbers" / f"{split}.parquet")
        (folder / "texts" / f"{split}.txt").write_text("\n".join(texts), encoding="utf-8")
    return folder


KINDS = {
    "sequence-classification": "classes",
    "sequence-pair-classification": "pairs",
    "sequence-regression": "numbers",
    "masked-language-modeling": "texts",
    "pre-training": "texts",
}
OVERRIDES = {
    "sequence-pair-classification": ("dataset.pair_column=other",),
    "masked-language-modeling": ("dataset.name=plain_text", "augmentation={mean_span_length: 3.0}"),
    "pre-training": ("dataset.name=plain_text", "model.context_hash_sizes=[1]", "model.context_hash_dropout=0.5"),
}
AUTO_CLASSES = {
    "sequence-classification": AutoModelForSequenceClassification,
    "sequence-pair-classification": AutoModelForSequencePairClassification,
    "sequence-regression": AutoModelForSequenceClassification,
    "masked-language-modeling": AutoModelForMaskedLM,
    "pre-training": AutoModelForPreTraining,
}
MAIN_METRICS = {  # of each task, what checkpoints are chosen by, and whether more of it is better
    "sequence-classification": ("accuracy", True),
    "sequence-pair-classification": ("accuracy", True),
    "sequence-regression": ("mean_absolute_error", False),
    "masked-language-modeling": ("bits_per_token", False),
    "pre-training": ("cross_entropy", False),
}
BYTE_PAIRS = "processor={tokenizer: bpe, vocab_size: 280, max_length: 40}"
tasks = pytest.mark.parametrize("task", KINDS)


def recipe_of(task, *overrides):
    return tiny_sequence_recipe(f"task={task}", *OVERRIDES.get(task, ()), *overrides)


def assert_same_weights(one, other, prefix=""):
    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    one, other = ({k: v for k, v in weights.items() if k.startswith(prefix)} for weights in (one, other))
    assert one.keys() == other.keys() and one
    assert all(torch.equal(one[name], other[name]) for name in one)


@tasks
def test_a_run_trains_evaluates_and_saves_model_and_tokenizer(data, tmp_path, task):
    log = train(recipe_of(task), tmp_path, data / KINDS[task])
    metric, greater_is_better = MAIN_METRICS[task]
    assert np.isfinite(log["validation"][metric]) and log["best_checkpoint"].startswith("checkpoint-")
    values = [entry[f"eval_{metric}"] for entry in log["log_history"] if f"eval_{metric}" in entry]
    assert log["validation"][metric] == (max if greater_is_better else min)(values[:3])
    model = AUTO_CLASSES[task].from_pretrained(tmp_path)
    assert log["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert model.config.vocab_size == 260 and model.config.pad_token_id == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("Aé")["input_ids"] == byte_tokenizer()("Aé")["input_ids"] and tokenizer.model_max_length == 40

    report = evaluate(
        tmp_path, data / KINDS[task], batch_size=5, sampled_passes=2, output=tmp_path / "evaluation.json"
    )
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report
    (result,) = report["results"].values()
    assert report["task"] == task and report["num_examples"] == 14
    assert {"f1", "roc_auc"} <= set(result) or not task.endswith("-classification")
    assert len(set(result["sampled"]["values"])) <= 2 and np.isfinite(result["sampled"]["mean"])
    assert metric.replace("_", " ") in format_report(report)
    again = evaluate(tmp_path, data / KINDS[task], batch_size=14)
    assert again["results"]["none"] == pytest.approx({k: v for k, v in result.items() if k != "sampled"}, rel=1e-4)


def test_the_classes_have_the_names_of_the_file(data, tmp_path):
    train(recipe_of("sequence-classification", "training.max_steps=2"), tmp_path, data / "classes")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "animal", 1: "plant"}


def test_a_classifier_learns_and_a_regression_beats_the_mean(data, tmp_path):
    longer = ("training.max_steps=60", "training.eval_steps=20", "training.save_steps=20", "model.sampling_noise=0")
    train(recipe_of("sequence-classification", *longer), tmp_path / "classes", data / "classes")
    assert evaluate(tmp_path / "classes", data / "classes")["results"]["none"]["accuracy"] > 0.8
    train(recipe_of("sequence-regression", *longer), tmp_path / "numbers", data / "numbers")
    result = evaluate(tmp_path / "numbers", data / "numbers")["results"]["none"]
    assert result["r2"] > 0.2, result


@pytest.mark.parametrize(
    ("task", "strategy", "others"),
    [
        pytest.param("sequence-classification", "group_by_length", (), marks=pytest.mark.slow),
        ("masked-language-modeling", "random", ()),
        pytest.param("sequence-pair-classification", "group_by_length", (), marks=pytest.mark.slow),
        pytest.param("sequence-regression", "random", (), marks=pytest.mark.slow),
        pytest.param("masked-language-modeling", "group_by_length", (), marks=pytest.mark.slow),
        pytest.param("sequence-classification", "random", (BYTE_PAIRS,), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_weights(data, tmp_path, monkeypatch, task, strategy, others):
    overrides = (f"training.train_sampling_strategy={strategy}", "model.hidden_dropout_prob=0.1", *others)
    recipe = recipe_of(task, *overrides, "model.num_sampled_tokens_range=[3, 8]")
    log = train(recipe, tmp_path / "whole", data / KINDS[task])
    calls = iter(range(1, 10**9))
    original = SFTTrainer.training_step

    def training_step(self, *args, **kwargs):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(SFTTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", data / KINDS[task])
    resumed = train(recipe, tmp_path / "cut", data / KINDS[task], resume=True)
    assert_same_weights(tmp_path / "whole" / "checkpoint-6", tmp_path / "cut" / "checkpoint-6")
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    losses = [[e["loss"] for e in entry["log_history"] if "loss" in e] for entry in (log, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


@pytest.mark.slow
def test_grouping_by_length_saves_padding(tmp_path, monkeypatch):
    texts, labels = sentences(120, 0)
    write_csv(tmp_path / "train.csv", {"text": texts, "label": labels})
    filled = []
    original = SFTTrainer.training_step

    def training_step(self, model, inputs, *args, **kwargs):
        filled[-1].append(float(inputs["attention_mask"].float().mean()))
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    settings = ("dataset.validation_fraction=0", "training.eval_strategy=no", "training.max_steps=20")
    for strategy in ("random", "group_by_length"):
        filled.append([])
        grouped = (f"training.train_sampling_strategy={strategy}", "training.per_device_train_batch_size=4")
        train(recipe_of("sequence-classification", *settings, *grouped), tmp_path / strategy, tmp_path)
    assert len(filled[0]) == len(filled[1]) == 20
    assert np.mean(filled[1]) > np.mean(filled[0]) + 0.1


def test_a_tokenizer_of_ones_own_decides_the_vocabulary(data, tmp_path):
    tokenizer = character_tokenizer(sentences(40, 0)[0])
    tokenizer.save_pretrained(tmp_path / "characters")
    own = f"processor.tokenizer={tmp_path / 'characters'}"
    recipe = recipe_of("sequence-classification", own, "training.max_steps=2")
    train(recipe, tmp_path / "run", data / "classes")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").config.vocab_size == len(tokenizer)
    saved = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert saved("oak")["input_ids"] == tokenizer("oak")["input_ids"] and saved.model_max_length == 40
    assert 0 <= evaluate(tmp_path / "run", data / "classes")["results"]["none"]["accuracy"] <= 1


@pytest.fixture(scope="module")
def byte_pair_run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("byte_pairs")
    train(recipe_of("sequence-classification", BYTE_PAIRS, "training.max_steps=2"), folder, data / "classes")
    return folder


def test_a_tokenizer_is_trained_on_the_training_texts_alone(data, byte_pair_run):
    recipe = recipe_of("sequence-classification", BYTE_PAIRS)
    texts = get_task(recipe.task).load_rows(recipe, data / "classes", "train")["text"]
    assert len(texts) == 30  # neither the 10 held out for validation nor the test split
    expected = byte_pair_tokenizer(texts, 280, model_max_length=40)
    saved = AutoTokenizer.from_pretrained(byte_pair_run)
    assert saved.get_vocab() == expected.get_vocab() and len(saved) == 280 and saved.model_max_length == 40
    assert saved(texts[0])["input_ids"] == expected(texts[0])["input_ids"]
    assert AutoModelForSequenceClassification.from_pretrained(byte_pair_run).config.vocab_size == 280
    assert 0 <= evaluate(byte_pair_run, data / "classes")["results"]["none"]["accuracy"] <= 1


def test_a_tokenizer_is_trained_on_pairs_and_on_texts_without_their_labels(data):
    def vocabulary(task, *overrides):
        recipe = recipe_of(task, BYTE_PAIRS, *overrides)
        return get_task(task).fit_processor(recipe, data / KINDS[task]).get_vocab()

    few = "dataset.train_fraction=0.1"
    assert vocabulary("sequence-classification", few) == vocabulary("sequence-classification")
    joined = get_task("sequence-pair-classification").load_rows(
        recipe_of("sequence-pair-classification"), data / "pairs", "train"
    )
    both = byte_pair_tokenizer([*joined["text"], *joined["text_pair"]], 280)
    assert vocabulary("sequence-pair-classification") == both.get_vocab()


def test_fine_tuning_keeps_the_trained_tokenizer(data, tmp_path, byte_pair_run):
    upper = tmp_path / "upper"
    upper.mkdir()
    texts, labels = sentences(40, 3)
    write_csv(upper / "train.csv", {"text": [text.upper() for text in texts], "label": labels})
    start = (f"pretrained={byte_pair_run}", "processor={tokenizer: bpe, max_length: 30}", "training.max_steps=2")
    train(recipe_of("sequence-classification", *start), tmp_path / "run", upper)
    kept, first = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "run", byte_pair_run))
    assert kept.get_vocab() == first.get_vocab() and kept.model_max_length == 30
    with pytest.raises(ValueError, match="`processor.vocab_size` is for .* which a new model trains; remove it"):
        train(recipe_of("sequence-classification", *start, "processor.vocab_size=280"), tmp_path / "other", upper)


def test_spans_are_masked_in_training_alone(data):
    recipe = recipe_of("masked-language-modeling", "augmentation={mlm_probability: 0.3, mean_span_length: 20}")
    task = get_task(recipe.task)
    rows, processor = task.load_rows(recipe, data / "texts", "train"), task.build_processor(recipe)
    masking = task.build_augmentation(recipe)
    in_training = task.prepare_training(rows, processor, recipe.seed, masking)
    otherwise = task.prepare(rows, processor, recipe.seed)
    for dataset, expected, lonely in ((in_training, 0.3, 0.2), (otherwise, 0.15, 1.0)):
        chosen = np.concatenate([item["labels"] != -100 for item in dataset])
        # Where a chosen token begins a run: seldom in spans, mostly where tokens are drawn one by one.
        begins = chosen & ~np.concatenate([[False], chosen[:-1]])
        assert abs(chosen.mean() - expected) < 0.12
        assert (begins.sum() / chosen.sum() < lonely) and (lonely < 1 or begins.sum() > 0.7 * chosen.sum())


@pytest.fixture(scope="module")
def language_model(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model")
    train(recipe_of("masked-language-modeling", "seed=5"), folder, data / "texts")
    return folder


@pytest.mark.parametrize("task", ["sequence-classification", "sequence-pair-classification", "sequence-regression"])
def test_fine_tuning_starts_from_the_backbone_of_the_language_model(data, tmp_path, language_model, task):
    frozen = ("training.learning_rate=0", "training.max_steps=2", "model.pooling=mean")
    recipe = recipe_of(task, f"pretrained={language_model}", *frozen)
    # Fields of the pretrained model that the recipe leaves out stay as they are.
    for name in ("hidden_size", "num_hidden_layers", "score_head_dim", "num_sampled_tokens"):
        del recipe.model[name]
    train(recipe, tmp_path, data / KINDS[task])
    assert_same_weights(tmp_path, language_model, prefix="sft.")
    model = AUTO_CLASSES[task].from_pretrained(tmp_path)
    assert model.config.pooling == "mean" and model.config.num_sampled_tokens == 6
    assert model.config.num_labels == (1 if task == "sequence-regression" else 2)
    assert np.isfinite(evaluate(tmp_path, data / KINDS[task])["results"]["none"][get_task(task).main_metric])


def test_the_seed_decides_the_new_head_alone(data, language_model):
    task = get_task("sequence-classification")
    recipes = [recipe_of("sequence-classification", f"pretrained={language_model}") for _ in range(2)]
    rows = task.load_rows(recipes[0], data / "classes", "train")
    models = []
    for seed, recipe in enumerate(recipes):
        torch.manual_seed(seed)
        models.append(task.build_model(recipe, rows, task.build_processor(recipe)).state_dict())
    different = {name for name in models[0] if not torch.equal(models[0][name], models[1][name])}
    assert different and all(name.startswith("classifier.") for name in different)


def test_pretrained_models_must_fit(data, tmp_path, language_model, monkeypatch):
    # Without a network the Hub's client would try for most of a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def fails(message, kind, *overrides):
        with pytest.raises(ValueError, match=message):
            train(tiny_sequence_recipe(*overrides), tmp_path / str(len(list(tmp_path.iterdir()))), data / kind)

    fails(
        "260 token ids and the recipe's tokenizer 19",
        "classes",
        f"pretrained={language_model}",
        "processor.tokenizer=list_ops",
    )
    fails("`processor.tokenizer` 'absent' is none of bpe, bytes, list_ops", "classes", "processor.tokenizer=absent")
    fails("`pretrained` .* cannot be loaded", "classes", f"pretrained={tmp_path / 'absent'}")
    with pytest.raises(ValueError, match="`pretrained` does not go with `baseline`"):
        tiny_sequence_recipe("model={}", "baseline=bert", f"pretrained={language_model}")


def test_a_pretrained_point_cloud_model_is_refused(data, tmp_path):
    train(tiny_recipe("training.max_steps=2"), tmp_path / "clouds")
    with pytest.raises(ValueError, match="is of type sft_point_cloud: name a model of type sft"):
        train(tiny_sequence_recipe(f"pretrained={tmp_path / 'clouds'}"), tmp_path / "texts", data / "classes")


def test_a_pretrained_model_of_another_size_is_refused(data, tmp_path, language_model):
    for override in ("model.hidden_size=32", "model.num_hidden_layers=3"):
        recipe = tiny_sequence_recipe(f"pretrained={language_model}", override)
        with pytest.raises(ValueError, match=r"weights of other shapes .*sft\..*: remove the fields"):
            train(recipe, tmp_path, data / "classes")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("processor.mean=[0.5]", "for continuous values: remove `tokenizer`"),
        ("processor.feature_size=2", "for continuous values: remove `tokenizer`"),
        ("processor.lowercase=true", "`processor.lowercase` is for `processor.tokenizer` bpe"),
        ("processor={tokenizer: bpe, vocab_size: 260}", "vocab_size must be an integer of at least 261; got 260"),
        ("processor={tokenizer: bpe, lowercase: 1}", "lowercase must be True or False; got 1"),
        ("processor.max_length=0", "max_length"),
        ("dataset.text_colum=body", "did you mean `text_column`"),
        ("model.vocab_size=99", "`model.vocab_size` cannot stand in a recipe"),
        ("model.num_labels=2", "`model.num_labels` cannot stand in a recipe"),
        ("augmentation={jitter: 0.1}", "has no augmentation"),
        ("task=masked-language-modeling processor={tokenizer: bytes}", "`processor.max_length` are missing"),
        ("task=masked-language-modeling augmentation={mean_span: 6}", "did you mean `mean_span_length`"),
        ("task=masked-language-modeling augmentation={mean_span_length: 0}", "mean_span_length must be a number"),
    ],
)
def test_wrong_settings_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        tiny_sequence_recipe(*(override.split(" ", 1) if override.startswith("task") else [override]))


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        ("sequence-classification", "numbers", "no classes in its column `label`: train `sequence-regression`"),
        ("sequence-regression", "classes", "no numbers in its column `label`: train `sequence-classification`"),
        ("sequence-pair-classification", "classes", "text_pair"),
    ],
)
def test_data_that_do_not_fit_the_task_are_refused(data, tmp_path, task, kind, message):
    with pytest.raises(ValueError, match=message):
        train(tiny_sequence_recipe(f"task={task}"), tmp_path, data / kind)


def test_texts_without_tokenizer_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="'values'"):
        train(tiny_sequence_recipe("processor={}"), tmp_path, data / "classes")


def test_evaluation_on_other_labels_is_refused(data, tmp_path):
    train(recipe_of("sequence-classification", "training.max_steps=2"), tmp_path / "run", data / "classes")
    texts, labels = sentences(6, 0)
    for split in ("train", "test"):
        write_csv(tmp_path / f"{split}.csv", {"text": texts, "label": [label.upper() for label in labels]})
    with pytest.raises(ValueError, match="the model was trained for"):
        evaluate(tmp_path / "run", tmp_path)


def test_data_of_one_class_are_refused(tmp_path):
    write_csv(tmp_path / "train.csv", {"text": sentences(8, 0)[0], "label": ["same"] * 8})
    write_csv(tmp_path / "test.csv", {"text": sentences(4, 1)[0], "label": ["same"] * 4})
    with pytest.raises(ValueError, match=r"has 1 class \(same\): give at least two"):
        train(recipe_of("sequence-classification"), tmp_path / "run", tmp_path)


def test_evaluation_without_the_tokenizer_says_what_is_missing(data, tmp_path):
    train(recipe_of("sequence-classification", "training.max_steps=2"), tmp_path, data / "classes")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises((OSError, ValueError), match="tokenizer"):
        evaluate(tmp_path, data / "classes")
