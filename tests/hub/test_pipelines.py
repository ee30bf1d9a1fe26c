"""Saved sequence models in Transformers' pipelines, found by the folder alone."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, pipeline
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

import modeling_sft
from modeling_sft import SFTConfig, byte_tokenizer

TEXTS = ["the cat sat on the mat", "a dog", "no cats, no dogs: only the quiet street"]
MAX_LENGTH = 30


def word_tokenizer():
    """Words as tokens, trained here; other names of special tokens, and token types, which the model lacks."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]", "[PAD]", "[MASK]"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
    )


TOKENIZERS = {"bytes": lambda: byte_tokenizer(MAX_LENGTH), "words": word_tokenizer}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def saved(folder, class_name, tokenizer):
    """A random model, saved with its tokenizer; the folder's name is all that a pipeline gets."""
    torch.manual_seed(0)
    config = SFTConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_sampled_tokens=6,
        residual_scale_init=1.0,
        initializer_range=0.5,
        id2label={0: "bad", 1: "good", 2: "ugly"},
    )
    model = getattr(modeling_sft, class_name)(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def silent_pipeline(task, folder):
    """The pipeline, made without any warning or error in the log."""
    with CaptureLogger(logging.get_logger("transformers")) as log:
        made = pipeline(task, model=str(folder), device="cpu")
    assert "not supported" not in log.out and "rror" not in log.out, log.out
    assert made.tokenizer.model_max_length == MAX_LENGTH
    return made


def probabilities(model, tokenizer, text):
    inputs = tokenizer(text, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[0].softmax(-1)


def test_text_classification_in_batches_with_truncation(tmp_path, tokenizer):
    model = saved(tmp_path, "SFTForSequenceClassification", tokenizer)
    classify = silent_pipeline("text-classification", tmp_path)
    long_text = " ".join(TEXTS * 4)
    answers = classify([*TEXTS, long_text], batch_size=3, truncation=True, top_k=None)
    for text, answer in zip([*TEXTS, long_text], answers, strict=True):
        expected = probabilities(model, tokenizer, text)
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert [scores[name] for name in ("bad", "good", "ugly")] == pytest.approx(expected.tolist(), abs=1e-5)


def test_token_classification_says_where_the_tokens_stand(tmp_path, tokenizer):
    model = saved(tmp_path, "SFTForTokenClassification", tokenizer)
    label = silent_pipeline("token-classification", tmp_path)
    for text, entries in zip(TEXTS[:2], label(TEXTS[:2], batch_size=2), strict=True):
        expected = probabilities(model, tokenizer, text)
        assert [entry["entity"] for entry in entries] == [
            model.config.id2label[i] for i in expected.argmax(-1).tolist()
        ]
        assert [entry["score"] for entry in entries] == pytest.approx(expected.amax(-1).tolist(), abs=1e-5)
        spans = [text[entry["start"] : entry["end"]] for entry in entries]
        assert "".join(spans).replace(" ", "") == text.replace(" ", "")


def test_fill_mask(tmp_path, tokenizer):
    model = saved(tmp_path, "SFTForMaskedLM", tokenizer)
    fill = silent_pipeline("fill-mask", tmp_path)
    text = f"a {tokenizer.mask_token} dog"
    as_token = {"split_special_tokens": False}
    guesses = fill([text, text], tokenizer_kwargs=as_token, top_k=4)
    assert guesses[0] == guesses[1] and len(guesses[0]) == 4
    inputs = tokenizer(text, return_tensors="pt", **as_token)
    (position,) = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()
    with torch.no_grad():
        expected = model(**inputs).logits[0, position[0]].softmax(-1).topk(4)
    assert [guess["token"] for guess in guesses[0]] == expected.indices.tolist()
    assert [guess["score"] for guess in guesses[0]] == pytest.approx(expected.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("class_name", ["SFTModel", "SFTForSequenceClassification"])
def test_feature_extraction_gives_the_states_of_the_backbone(tmp_path, tokenizer, class_name):
    model = saved(tmp_path, class_name, tokenizer)
    extract = silent_pipeline("feature-extraction", tmp_path)
    for text, states in zip(TEXTS, extract(TEXTS), strict=True):
        with torch.no_grad():
            inputs = tokenizer(text, return_tensors="pt")
            expected = getattr(model, "sft", model)(**inputs).last_hidden_state
        np.testing.assert_allclose(states, expected.numpy(), atol=1e-5)
