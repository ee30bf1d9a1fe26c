"""BERT and Nystromformer as baselines: inputs, padding, gradients, saving, sizes."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from lab.baselines.sequences import (
    BertBaselineForSequenceClassification,
    BertBaselineForSequencePairClassification,
    NystromformerBaselineForSequenceClassification,
    NystromformerBaselineForSequencePairClassification,
    SequenceBaselineConfig,
)
from modeling_sft.encoder.losses import classification_loss, share_of_step
from tiny_models import randomise

SINGLE = (BertBaselineForSequenceClassification, NystromformerBaselineForSequenceClassification)
PAIRS = (BertBaselineForSequencePairClassification, NystromformerBaselineForSequencePairClassification)
LENGTHS = (37, 5, 20)


def config(**changes):
    fields = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "vocab_size": 19,
        "max_position_embeddings": 37,
        "num_landmarks": 8,
        "conv_kernel_size": 5,
        "num_labels": 4,
    }
    return SequenceBaselineConfig(**fields | changes)


def build(cls, training=False, **changes):
    torch.manual_seed(0)
    return randomise(cls(config(**changes))).train(training)


def batch(lengths=LENGTHS, num_features=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    if num_features:
        return {"input_features": torch.randn(*shape, num_features, generator=generator), "attention_mask": mask}
    return {"input_ids": torch.randint(1, 19, shape, generator=generator), "attention_mask": mask}


def logits_of(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("num_features", [0, 2])
@pytest.mark.parametrize("cls", SINGLE)
def test_padding_may_hold_anything(cls, num_features):
    model, inputs = build(cls, num_input_features=num_features), batch(num_features=num_features)
    expected = logits_of(model, **inputs)
    name = "input_features" if num_features else "input_ids"
    padding = inputs["attention_mask"] == 0
    garbage = inputs[name].clone()
    garbage[padding] = float("nan") if num_features else -100
    token_types = {"token_type_ids": padding.long()}
    assert expected.shape == (3, 4) and expected.isfinite().all()
    torch.testing.assert_close(logits_of(model, **inputs | {name: garbage}), expected, atol=0, rtol=0)
    torch.testing.assert_close(logits_of(model, **inputs, **token_types), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_features", [0, 2])
def test_bert_of_a_row_alone_equals_that_of_the_row_in_a_padded_batch(num_features):
    model = build(SINGLE[0], num_input_features=num_features)
    inputs = batch(num_features=num_features)
    together = logits_of(model, **inputs)
    for row, length in enumerate(LENGTHS):
        alone = {name: value[row : row + 1, :length] for name, value in inputs.items()}
        torch.testing.assert_close(logits_of(model, **alone), together[row : row + 1], atol=1e-5, rtol=0)


def test_nystromformer_depends_on_other_rows_only_through_the_start_of_its_inverse():
    # Peaked attention, where the inverse has not converged in its 6 steps, as after training.
    model, inputs = build(SINGLE[1]).double(), batch()
    with torch.no_grad():
        for layer in model.encoder.model.encoder.layer:
            layer.attention.self.query.weight.mul_(8)
    rows = slice(1, 3)
    padded = logits_of(model, **{name: value[rows] for name, value in inputs.items()})
    shorter = logits_of(model, **{name: value[rows, :20] for name, value in inputs.items()})
    torch.testing.assert_close(shorter, padded, atol=1e-9, rtol=0)

    def deviation():
        alone = [
            logits_of(model, **{name: value[row : row + 1, :length] for name, value in inputs.items()})
            for row, length in enumerate(LENGTHS)
        ]
        return (torch.cat(alone) - logits_of(model, **inputs)).abs().max()

    assert deviation() > 1e-4
    # The library's other start, by row and head, which its configuration cannot choose.
    for layer in model.encoder.model.encoder.layer:
        layer.attention.self.init_option = "exact"
    assert deviation() < 1e-9


@pytest.mark.parametrize("cls", SINGLE)
def test_every_token_and_its_position_count(cls):
    model, inputs = build(cls), batch((37, 20))
    expected = logits_of(model, **inputs)
    for position in (0, 19):
        changed = inputs["input_ids"].clone()
        changed[:, position] = changed[:, position] % 18 + 1
        assert ((logits_of(model, **inputs | {"input_ids": changed}) - expected).abs().amax(1) > 1e-4).all()
    swapped = inputs["input_ids"].clone()
    swapped[:, :20] = swapped[:, :20].flip(1)
    assert ((logits_of(model, **inputs | {"input_ids": swapped}) - expected).abs().amax(1) > 1e-4).all()
    types = torch.ones_like(swapped)
    assert not torch.allclose(logits_of(model, **inputs, token_type_ids=types), expected)


@pytest.mark.parametrize("cls", PAIRS)
def test_pairs_are_encoded_each_by_itself(cls):
    model, first, second = build(cls), batch((37, 20)), batch((11, 30), seed=1)
    inputs = first | {f"pair_{name}": value for name, value in second.items()}
    expected = logits_of(model, **inputs)
    padding = second["attention_mask"] == 0
    garbage = {"pair_input_ids": second["input_ids"].masked_fill(padding, 7)}
    torch.testing.assert_close(logits_of(model, **inputs | garbage), expected, atol=0, rtol=0)
    for name in ("input_ids", "pair_input_ids"):
        changed = {name: inputs[name] % 18 + 1}
        assert ((logits_of(model, **inputs | changed) - expected).abs().amax(1) > 1e-4).all()
    with pytest.raises(ValueError, match="`pair_input_ids` is missing"):
        model(**first)
    with pytest.raises(ValueError, match="`num_input_features` is 2"):
        cls(config(num_input_features=2))


@pytest.mark.parametrize(
    ("cls", "num_features"), [*[(cls, 0) for cls in (*SINGLE, *PAIRS)], *[(cls, 2) for cls in SINGLE]]
)
def test_gradient_reaches_all_parameters(cls, num_features):
    model = build(cls, training=True, num_input_features=num_features, hidden_dropout_prob=0.1)
    inputs = batch(num_features=num_features)
    if cls in PAIRS:
        inputs |= {f"pair_{name}": value for name, value in batch((7, 30, 8), seed=1).items()}
    labels = torch.tensor([3, -100, 1])
    outputs = model(**inputs, labels=labels, num_items_in_batch=8)
    torch.testing.assert_close(
        outputs.loss, share_of_step(classification_loss(outputs.logits, labels, model.config), labels, 8)
    )
    outputs.loss.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without
    # Added to all scores of a query alike, a key's bias cancels in the softmax.
    zero = {name for name, p in model.named_parameters() if not p.grad.any() and not name.endswith("key.bias")}
    assert not zero


@pytest.mark.parametrize("cls", [*SINGLE, *PAIRS])
def test_saved_models_load(cls, tmp_path):
    model, inputs = build(cls, pooling="mean"), batch()
    if cls in PAIRS:
        inputs |= {f"pair_{name}": value for name, value in batch((7, 30, 8), seed=1).items()}
    model.save_pretrained(tmp_path)
    loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(logits_of(loaded, **inputs), logits_of(model, **inputs), atol=0, rtol=0)


@pytest.mark.parametrize("cls", SINGLE)
def test_encoders_start_as_published_and_the_readout_as_that_of_sft(cls):
    torch.manual_seed(0)
    model = cls(config(hidden_size=96, num_hidden_layers=1))
    layer, embeddings = model.encoder.model.encoder.layer[0], model.encoder.model.embeddings
    for weight in (layer.attention.self.query.weight, embeddings.position_embeddings.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.input_embedding.weight[1:].std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.input_embedding.weight[0].any()
    assert model.classifier.dense.weight.std().item() == pytest.approx(96**-0.5, rel=0.1)


def test_bert_runs_scaled_dot_product_attention():
    assert build(SINGLE[0]).encoder.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("cls", SINGLE)
def test_bfloat16_autocast_trains(cls):
    model = build(cls, training=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**batch(), labels=torch.tensor([0, 1, 2]))
    outputs.loss.backward()
    torch.testing.assert_close(outputs.logits.float(), logits_of(model.eval(), **batch()), atol=0.1, rtol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("cls", "expected"), [(SINGLE[0], 187_274), (SINGLE[1], 187_922)], ids=("bert", "nystromformer")
)
def test_parameter_counts(cls, expected):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    model = cls(SequenceBaselineConfig(**sizes, max_position_embeddings=1024, num_labels=10))
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    print(f"{cls.__name__}: {parts}, of which positions {1024 * 64}")
    assert sum(parts.values()) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 25}, "`hidden_size` is 25"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` is 0"),
        ({"num_input_features": -1}, "`num_input_features` is -1"),
        ({"hidden_act": "gelo"}, "`hidden_act` is 'gelo'"),
        ({"hidden_dropout_prob": 1.0}, "`hidden_dropout_prob` is 1.0"),
        ({"conv_kernel_size": 4}, "`conv_kernel_size` is 4"),
        ({"pad_token_id": 19}, "`pad_token_id` is 19"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        config(**changes)


def test_continuous_features_have_no_token_for_padding():
    fields = {"vocab_size": 0, "num_input_features": 2}
    assert SequenceBaselineConfig(**fields, pad_token_id=3).pad_token_id is None  # else Transformers warns of 0 tokens


def test_bad_inputs_are_named():
    with pytest.raises(ValueError, match="`num_landmarks` is 37"):
        build(SINGLE[1], num_landmarks=37)
    model, inputs = build(SINGLE[1]), batch()
    for changes, message in (
        ({"input_ids": None}, "`input_ids` must be given"),
        ({"input_features": torch.zeros(3, 37, 1)}, "`input_features` not"),
        ({"input_ids": torch.ones(3, 38, dtype=torch.long)}, "`input_ids` has 38 tokens"),
        ({"input_ids": inputs["input_ids"] + 18}, "`input_ids` has values from"),
        ({"attention_mask": inputs["attention_mask"][:, :9]}, "`attention_mask` has shape"),
        ({"token_type_ids": torch.full((3, 37), 2)}, "`token_type_ids` has values"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs | changes)
    with pytest.raises(ValueError, match="`input_features` has shape"):
        build(SINGLE[0], num_input_features=2)(**batch(num_features=3))
