"""Adapter that runs Transformers' own model tests against this package's classes."""

import random

import torch
from mtm_harness import Suite, floats_tensor, ids_tensor

import modeling_sft


def point_cloud_config() -> modeling_sft.SFTPointCloudConfig:
    """A tiny configuration without randomness in training, sampling fewer tokens than the inputs have."""
    return modeling_sft.SFTPointCloudConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        num_sampled_tokens=4,
        sampling_noise=0.0,
        residual_scale_init=1.0,
        num_neighbors=3,
        local_mixing_size=3,
        num_labels=3,
    )


def point_cloud_inputs(config: modeling_sft.SFTPointCloudConfig, batch_size: int, length: int) -> dict:
    """Points with unit normals; every other row ends in two padded points.

    The same ones each time: rare clouds of seven points have moments so large that rounding alone exceeds 1e-5.
    """
    rng = random.Random(0)
    points, normals = (floats_tensor([batch_size, length, 3], rng=rng) for _ in range(2))
    normals = torch.nn.functional.normalize(normals - 0.5, dim=-1)
    return {"points": points, "normals": normals, "attention_mask": padded_mask(batch_size, length)}


def sequence_config() -> modeling_sft.SFTConfig:
    """A tiny configuration without randomness in training, sampling fewer tokens than the inputs have."""
    return modeling_sft.SFTConfig(
        vocab_size=99,
        type_vocab_size=2,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        num_sampled_tokens=4,
        sampling_noise=0.0,
        residual_scale_init=1.0,
        local_mixing_size=3,
        num_labels=3,
    )


def sequence_inputs(config: modeling_sft.SFTConfig, batch_size: int, length: int) -> dict:
    """Random token ids of two types; every other row ends in two padded tokens."""
    return {
        "input_ids": ids_tensor([batch_size, length], config.vocab_size),
        "attention_mask": padded_mask(batch_size, length),
        "token_type_ids": ids_tensor([batch_size, length], config.type_vocab_size),
    }


def pair_inputs(config: modeling_sft.SFTConfig, batch_size: int, length: int) -> dict:
    """Two random sequences per row, the second one shorter and without the last ids.

    The test that shrinks the vocabulary removes those from `input_ids` alone.
    """
    return {
        "input_ids": ids_tensor([batch_size, length], config.vocab_size),
        "attention_mask": padded_mask(batch_size, length),
        "pair_input_ids": ids_tensor([batch_size, length - 2], config.vocab_size - 15),
        "pair_attention_mask": padded_mask(batch_size, length - 2),
    }


def graph_config() -> modeling_sft.SFTGraphConfig:
    """A tiny configuration without randomness in training, sampling fewer nodes than the inputs have."""
    return modeling_sft.SFTGraphConfig(
        node_vocab_sizes=[7, 3],
        num_node_features=2,
        edge_vocab_sizes=[5],
        num_node_encodings=3,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        num_sampled_tokens=4,
        sampling_noise=0.0,
        residual_scale_init=1.0,
        num_labels=3,
    )


def graph_inputs(config: modeling_sft.SFTGraphConfig, batch_size: int, length: int) -> dict:
    """Random graphs; every other row ends in two padded nodes, and in three padded edges."""
    categories = [ids_tensor([batch_size, length, 1], size) for size in config.node_vocab_sizes]
    edge_mask = torch.ones(batch_size, 3 * length, dtype=torch.long)
    edge_mask[::2, -3:] = 0
    return {
        "node_features": torch.cat([*categories, floats_tensor([batch_size, length, 2])], dim=-1),
        "node_encodings": floats_tensor([batch_size, length, 3]),
        "edge_index": ids_tensor([batch_size, 2, 3 * length], length - 2),
        "edge_features": ids_tensor([batch_size, 3 * length, 1], 5),
        "edge_mask": edge_mask,
        "attention_mask": padded_mask(batch_size, length),
    }


def link_inputs(config: modeling_sft.SFTGraphConfig, batch_size: int, length: int) -> dict:
    """Random graphs with three pairs of nodes each."""
    return graph_inputs(config, batch_size, length) | {"node_pairs": ids_tensor([batch_size, 3, 2], length - 2)}


def pad_nodes(inputs: dict, count: int) -> dict:
    """The same graphs with `count` more padded nodes, and as many edges as before."""
    nodes = ("node_features", "node_encodings", "attention_mask")
    return inputs | pad_tokens({name: inputs[name] for name in nodes}, count)


def padded_mask(batch_size: int, length: int) -> torch.Tensor:
    """A mask whose every other row ends in two padded tokens."""
    mask = torch.ones(batch_size, length, dtype=torch.long)
    mask[::2, -2:] = 0
    return mask


def pad_tokens(inputs: dict, count: int) -> dict:
    """The same rows with `count` more padded tokens."""
    widths = {2: (0, count), 3: (0, 0, 0, count)}
    return {name: torch.nn.functional.pad(value, widths[value.dim()]) for name, value in inputs.items()}


SUITES = [
    Suite(
        name="SFTPointCloud",
        module="modeling_sft",
        config=point_cloud_config,
        inputs=point_cloud_inputs,
        roles={
            modeling_sft.SFTPointCloudModel: "base",
            modeling_sft.SFTForPointCloudClassification: "custom",
            modeling_sft.SFTForPointCloudSegmentation: "custom",
        },
        labels={
            modeling_sft.SFTForPointCloudClassification: lambda config, batch_size, length: {
                "labels": torch.arange(batch_size) % config.num_labels
            },
            modeling_sft.SFTForPointCloudSegmentation: lambda config, batch_size, length: {
                "labels": torch.arange(batch_size * length).view(batch_size, length) % config.num_labels
            },
        },
        tester_attrs={"key_length": 4},
        flags={"test_resize_embeddings": False},
        skips={"test_model_get_set_embeddings": "points enter through linear layers: there is no embedding table"},
        config_has_text_modality=False,
        pad=pad_tokens,
        remote_code=True,
    ),
    Suite(
        name="SFTSequence",
        module="modeling_sft",
        config=sequence_config,
        inputs=sequence_inputs,
        roles={
            modeling_sft.SFTModel: "base",
            modeling_sft.SFTForMaskedLM: "masked-lm",
            modeling_sft.SFTForSequenceClassification: "sequence-classification",
            modeling_sft.SFTForTokenClassification: "token-classification",
        },
        tester_attrs={"key_length": 4},
        pad=pad_tokens,
        remote_code=True,
    ),
    # On its own: it has no `logits` that the test of padding could compare.
    Suite(
        name="SFTQuestionAnswering",
        module="modeling_sft",
        config=sequence_config,
        inputs=sequence_inputs,
        roles={modeling_sft.SFTForQuestionAnswering: "question-answering"},
        tester_attrs={"key_length": 4},
    ),
    Suite(
        name="SFTSequencePair",
        module="modeling_sft",
        config=sequence_config,
        inputs=pair_inputs,
        roles={modeling_sft.SFTForSequencePairClassification: "custom"},
        labels={
            modeling_sft.SFTForSequencePairClassification: lambda config, batch_size, length: {
                "labels": torch.arange(batch_size) % config.num_labels
            },
        },
        tester_attrs={"key_length": 4},
        pad=pad_tokens,
    ),
    Suite(
        name="SFTGraph",
        module="modeling_sft",
        config=graph_config,
        inputs=graph_inputs,
        roles={
            modeling_sft.SFTGraphModel: "base",
            modeling_sft.SFTForGraphClassification: "custom",
            modeling_sft.SFTForNodeClassification: "custom",
        },
        labels={
            modeling_sft.SFTForGraphClassification: lambda config, batch_size, length: {
                "labels": torch.arange(batch_size) % config.num_labels
            },
            modeling_sft.SFTForNodeClassification: lambda config, batch_size, length: {
                "labels": torch.arange(batch_size * length).view(batch_size, length) % config.num_labels
            },
        },
        tester_attrs={"key_length": 4},
        flags={"test_resize_embeddings": False},
        skips={"test_model_get_set_embeddings": "nodes have several tables and numbers: there is no single table"},
        config_has_text_modality=False,
        pad=pad_nodes,
        remote_code=True,
    ),
    # On its own: it takes pairs of nodes as well.
    Suite(
        name="SFTGraphLinks",
        module="modeling_sft",
        config=graph_config,
        inputs=link_inputs,
        roles={modeling_sft.SFTForLinkPrediction: "custom"},
        labels={
            modeling_sft.SFTForLinkPrediction: lambda config, batch_size, length: {
                "labels": torch.arange(batch_size * 3).view(batch_size, 3) % 2
            },
        },
        tester_attrs={"key_length": 4},
        flags={"test_resize_embeddings": False},
        skips={"test_model_get_set_embeddings": "nodes have several tables and numbers: there is no single table"},
        config_has_text_modality=False,
        pad=pad_nodes,
    ),
]
