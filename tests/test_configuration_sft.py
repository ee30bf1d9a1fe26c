"""Configurations: ranges, near misses, round trip."""

import re

import pytest
from huggingface_hub.errors import StrictDataclassError

from modeling_sft import SFTConfig, SFTGraphConfig, SFTModel, SFTPointCloudConfig


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 30},
        {"hidden_size": 0},
        {"num_hidden_layers": 0},
        {"num_sampled_tokens": 0},
        {"score_head_dim": 0},
        {"hidden_act": "gelo"},
        {"num_sampled_tokens_range": [4, 2]},
        {"num_sampled_tokens_range": [0, 2]},
        {"num_sampled_tokens_range": [1, 2, 3]},
        {"sampling_noise": -0.1},
        {"sampling_noise": 1e-12},
        {"sampling_noise": float("nan")},
        {"sampling_noise": float("inf")},
        {"sampling_temperature": 0},
        {"importance_scale": float("nan")},
        {"norm_eps": 0},
        {"hidden_dropout_prob": 1.0},
        {"attention_probs_dropout_prob": -0.1},
        {"drop_path_prob": 1},
        {"num_extra_tokens": -1},
        {"num_neighbors": 0},
        {"local_mixing_size": 17},
        {"num_point_features": -1},
        {"num_categories": -1},
        {"residual_scale_init": -1},
        {"initializer_range": 0.0},
    ],
    ids=str,
)
def test_out_of_range_fields_raise_naming_field_value_and_remedy(changes):
    (field, value), *_ = changes.items()
    with pytest.raises(StrictDataclassError, match=f"`{field}` is {re.escape(repr(value))}: use"):
        SFTPointCloudConfig(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_score": "max_out"},
        {"sampling_estimator": "hard"},
        {"hidden_size": "64"},
        {"use_normals": "yes"},
        {"num_sampled_tokens_range": (1, 2)},
    ],
    ids=str,
)
def test_wrong_types_and_modes_raise_naming_the_field(changes):
    with pytest.raises((StrictDataclassError, TypeError), match=next(iter(changes))):
        SFTPointCloudConfig(**changes)


@pytest.mark.parametrize(
    ("typo", "field"),
    [
        ("num_sampled_token", "num_sampled_tokens"),
        ("hidden_sizes", "hidden_size"),
        ("sampling_noises", "sampling_noise"),
        ("hidden_dropout", "hidden_dropout_prob"),
        ("use_normal", "use_normals"),
    ],
)
def test_near_misses_raise_with_the_suggestion(typo, field):
    with pytest.raises(ValueError, match=f"`{typo}`: did you mean `{field}`"):
        SFTPointCloudConfig(**{typo: 1})


def test_weights_start_with_the_variance_of_their_width():
    layer = SFTModel(SFTConfig(hidden_size=144, num_hidden_layers=1)).encoder.layers[0]
    assert layer.feed_forward.up_proj.weight.std().item() == pytest.approx(1 / 12, rel=0.05)
    assert (layer.residual_scale == 1).all()
    assert SFTConfig(hidden_size=64).initializer_range == 0.125
    assert SFTConfig(hidden_size=64, initializer_range=0.02).initializer_range == 0.02


def test_fields_that_are_not_ours_pass():
    config = SFTPointCloudConfig(num_labels=3, finetuning_task="demo", attn_implementation="eager")
    assert config.num_labels == 3
    assert config.finetuning_task == "demo"


def test_round_trip_keeps_every_field(tmp_path):
    config = SFTPointCloudConfig(
        num_sampled_tokens_range=[8, 16],
        score_head_dim=None,
        sampling_scope="head",
        sampling_noise=0,
        use_normals=True,
        id2label={0: "a", 1: "b", 2: "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    config.save_pretrained(tmp_path)
    assert SFTPointCloudConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_modality_is_the_class_and_not_a_field(tmp_path):
    assert SFTPointCloudConfig.modality == "point_cloud"
    assert "modality" not in SFTPointCloudConfig().to_dict()


@pytest.mark.parametrize(
    ("noise", "choice", "resolved"),
    [(0.0, None, "topk"), (0.0, "systematic", "topk"), (0.5, None, "systematic"), (0.5, "topk", "topk")],
)
def test_the_selection_at_inference_follows_the_noise(noise, choice, resolved):
    config = SFTPointCloudConfig(sampling_noise=noise, sampling_inference=choice)
    assert config.resolved_sampling_inference == resolved


# Sequences


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": -1},
        {"num_input_features": -1},
        {"type_vocab_size": -1},
        {"max_position_embeddings": 0},
        {"local_mixing_size": 0},
        {"pad_token_id": 260},
        {"pad_token_id": -1},
        {"hidden_size": 30},
        {"context_hash_sizes": [2, 0]},
        {"context_hash_buckets": 1},
        {"context_hash_buckets": 1000},
        {"context_hash_dim": -1},
        {"context_count_dim": -1},
        {"context_hash_seed": -1},
        {"context_hash_dropout": 1.0},
    ],
    ids=str,
)
def test_out_of_range_fields_of_sequences_raise_naming_field_value_and_remedy(changes):
    (field, value), *_ = changes.items()
    with pytest.raises(StrictDataclassError, match=f"`{field}` is {re.escape(repr(value))}: use"):
        SFTConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "`vocab_size` is 0: a model needs token ids .* or continuous inputs"),
        ({"position_embedding": "learned"}, "`max_position_embeddings` is None: set the largest length"),
        ({"position_embedding": "rotary"}, "position_embedding"),
        ({"vocab_size": "260"}, "vocab_size"),
        ({"vocab_size": 0, "num_input_features": 1, "context_hash_sizes": [2]}, "context hashes are of token ids"),
        ({"vocab_size": 259, "context_hash_words": True}, "words are found in the 260 token ids of `byte_tokenizer`"),
    ],
    ids=str,
)
def test_sequence_fields_that_do_not_fit_raise(changes, message):
    with pytest.raises((StrictDataclassError, TypeError), match=message):
        SFTConfig(**changes)


def test_near_misses_of_sequence_fields_raise_with_the_suggestion():
    with pytest.raises(ValueError, match="`max_position_embedding`: did you mean `max_position_embeddings`"):
        SFTConfig(max_position_embedding=512)


@pytest.mark.parametrize("radius", [-1, 65])
def test_an_out_of_range_radius_raises(radius):
    with pytest.raises(StrictDataclassError, match=f"`context_hash_radius` is {radius}: use None or an integer"):
        SFTGraphConfig(node_vocab_sizes=[3], context_hash_radius=radius)


def test_what_sequences_accept():
    # Tokens that were added to the bytes.
    assert SFTConfig(vocab_size=264, context_hash_words=True).num_context_kinds == 2
    assert SFTConfig(vocab_size=0, num_input_features=1).vocab_size == 0
    assert SFTConfig(pad_token_id=None).pad_token_id is None
    assert SFTConfig(pad_token_id=259).pad_token_id == 259
    # Offsets are in the embeddings: the relation, which costs, is off, unlike that of clouds.
    assert (SFTConfig().relation, SFTPointCloudConfig().relation) == (False, True)
    assert SFTConfig.modality == "sequence" and "modality" not in SFTConfig().to_dict()


def test_a_round_trip_of_a_sequence_configuration_keeps_every_field(tmp_path):
    config = SFTConfig(
        vocab_size=31,
        num_input_features=2,
        type_vocab_size=2,
        position_embedding="learned",
        max_position_embeddings=64,
        relation=True,
        pad_token_id=None,
        num_labels=4,
    )
    config.save_pretrained(tmp_path)
    loaded = SFTConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert "SFTForSequencePairClassification" in str(loaded.auto_map)
