"""The configurations that the tests sweep: a seeded covering array (fast tier) and the full product (full tier)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from modeling_sft import SFTConfig, SFTGraphConfig, SFTPointCloudConfig

FACTORS: dict[str, tuple[Any, ...]] = {
    "attention_score": ("maxout", "dot", "signed_min"),
    "attention_probability": ("relu", "softplus", "softmax"),
    "attention_leak": (True, False),
    "sampling_scope": ("layer", "head"),
    "sampling_estimator": ("gate", "soft", "straight_through"),
    "sampling_inference": ("systematic", "topk"),
    "norm_position": ("pre", "post"),
    "norm_type": ("layer", "rms", "batch"),
}
EXTRA_FACTORS: dict[str, tuple[Any, ...]] = {
    "relation": (True, False),
    "num_extra_tokens": (0, 2),
    "residual_scale_init": (1.0, 0.5),
    "sampling_noise": (0.25, 0.0),
}

Choice = dict[str, Any]


def covering_array(factors: Mapping[str, Sequence[Any]], strength: int = 2, seed: int = 0) -> list[Choice]:
    """Rows in which every combination of values of any `strength` factors occurs.

    Greedy: each row is the best of 50 random completions of a combination that is still missing.
    """
    generator = random.Random(seed)
    names = list(factors)
    missing = {
        tuple(zip(group, values, strict=True))
        for group in itertools.combinations(names, strength)
        for values in itertools.product(*(factors[name] for name in group))
    }

    def complete(start: Mapping[str, Any]) -> Choice:
        return {name: start[name] if name in start else generator.choice(factors[name]) for name in names}

    def covered(row: Choice) -> set[tuple[tuple[str, Any], ...]]:
        return {tuple((name, row[name]) for name in group) for group in itertools.combinations(names, strength)}

    rows: list[Choice] = []
    while missing:
        start = dict(min(missing, key=repr))
        best = max((complete(start) for _ in range(50)), key=lambda row: len(covered(row) & missing))
        missing -= covered(best)
        rows.append(best)
    return rows


def full_product(factors: Mapping[str, Sequence[Any]] = FACTORS) -> list[Choice]:
    return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


COVERING = covering_array(FACTORS | EXTRA_FACTORS, strength=3)
# Sequences repeat what all modalities share on fewer rows: all pairs, and all triples in the full tier.
SEQUENCE_FACTORS = (
    FACTORS
    | EXTRA_FACTORS
    | {
        "local_mixing": (True, False),
        "position_embedding": ("sinusoidal", "learned", "none"),
        "context_hash_sizes": (None, (1, 3)),
    }
)
SEQUENCE_COVERING = covering_array(SEQUENCE_FACTORS)
# So do graphs.
GRAPH_FACTORS = (
    FACTORS
    | EXTRA_FACTORS
    | {"local_mixing": (True, False), "edge_vocab_sizes": ((4, 3), None), "context_hash_radius": (None, 2)}
)
GRAPH_COVERING = covering_array(GRAPH_FACTORS)


def name_of(choice: Mapping[str, Any]) -> str:
    return "-".join(value if isinstance(value, str) else f"{name}={value}" for name, value in choice.items())


def parametrize_configurations(full: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on each `choice` of the covering array (all pairs and all triples).

    With `full`, it runs in the full tier on the full product of `FACTORS` as well, the other factors drawn at random.
    """
    generator = random.Random(1)
    parameters = [pytest.param(choice, id=name_of(choice)) for choice in COVERING]
    for choice in full_product() if full else []:
        others = {name: generator.choice(values) for name, values in EXTRA_FACTORS.items()}
        parameters.append(pytest.param(choice | others, id=f"full-{name_of(choice)}", marks=pytest.mark.full))
    return pytest.mark.parametrize("choice", parameters)


def parametrize_sequence_configurations(full: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on each `choice` of the sequences' covering array (all pairs).

    With `full`, it runs in the full tier on all triples as well.
    """
    parameters = [pytest.param(choice, id=name_of(choice)) for choice in SEQUENCE_COVERING]
    for choice in covering_array(SEQUENCE_FACTORS, strength=3) if full else []:
        parameters.append(pytest.param(choice, id=f"full-{name_of(choice)}", marks=pytest.mark.full))
    return pytest.mark.parametrize("choice", parameters)


def parametrize_graph_configurations(full: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As `parametrize_sequence_configurations`, for graphs."""
    parameters = [pytest.param(choice, id=name_of(choice)) for choice in GRAPH_COVERING]
    for choice in covering_array(GRAPH_FACTORS, strength=3) if full else []:
        parameters.append(pytest.param(choice, id=f"full-{name_of(choice)}", marks=pytest.mark.full))
    return pytest.mark.parametrize("choice", parameters)


TINY: Choice = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "score_head_dim": 5,
    "num_sampled_tokens": 7,
    "sampling_temperature": 0.7,
    "importance_scale": 1.3,
    "norm_eps": 1e-3,
    "local_mixing_size": 4,
    "residual_scale_init": 1.0,
    "num_labels": 5,
}
# Few rows, so that some neighbourhoods share one.
SMALL_TABLES: Choice = {"context_hash_buckets": 64, "context_hash_dim": 6, "context_count_dim": 10}


def tiny_config(**changes: Any) -> SFTPointCloudConfig:
    """A small configuration with odd sizes and no neutral factor: D = 24, H = 3, d = 8, d_s = 5, K = 7."""
    return SFTPointCloudConfig(**(TINY | {"num_neighbors": 4} | changes))


def tiny_sequence_config(**changes: Any) -> SFTConfig:
    """As `tiny_config`, for sequences: 23 token ids, 2 token types, relation on."""
    fields: Choice = {"vocab_size": 23, "type_vocab_size": 2, "max_position_embeddings": 80, "relation": True}
    fields |= SMALL_TABLES | changes
    sizes = fields.pop("context_hash_sizes", None)
    return SFTConfig(**(TINY | fields), context_hash_sizes=None if sizes is None else list(sizes))


def tiny_graph_config(**changes: Any) -> SFTGraphConfig:
    """As `tiny_config`, for graphs: two categories and two numbers per node, two categories per edge."""
    fields: Choice = {"node_vocab_sizes": [5, 3], "num_node_features": 2, "num_node_encodings": 3}
    fields |= {"edge_vocab_sizes": (4, 3)} | SMALL_TABLES | changes
    edges = fields.pop("edge_vocab_sizes")
    return SFTGraphConfig(**(TINY | fields), edge_vocab_sizes=None if edges is None else list(edges))
