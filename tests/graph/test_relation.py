"""The graph relation through every backend against a loop over edges, and whole layers against the reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
from attention_cases import gradients
from configurations import covering_array, name_of, parametrize_graph_configurations, tiny_graph_config
from layers import check_gradients, relative_rms, run_layer
from modeling_sft import SFTGraphModel
from modeling_sft.attention import fused
from modeling_sft.attention.eager import eager_attention
from modeling_sft.attention.fused import compiled_attention, fused_attention
from modeling_sft.attention.inputs import AttentionInputs
from modeling_sft.attention.relation import Effect
from modeling_sft.graph.relation import GraphEdges, PreparedEdges, SFTGraphRelation
from modeling_sft.sampling.sample import Sample
from tiny_models import build_graph

HEADS, SCORE_CHANNELS, CHANNELS, WIDTH = 3, 5, 4, 24
CASES = covering_array(
    {
        "attention_score": ("maxout", "dot"),
        "attention_probability": ("relu", "softplus", "softmax"),
        "sampling_scope": ("layer", "head"),
        "sampling_estimator": ("gate", "soft"),
        "edge_vocab_sizes": ((4, 3), None),
        "sizes": ((1, 63, 7, 150), (3, 9, 9, 20), (2, 5, 4, 0), (1, 1, 1, 1)),
    }
)


def eager(inputs: AttentionInputs) -> Tensor:
    return eager_attention(inputs)[0]


def categories(batch: int, edges: int, generator: torch.Generator) -> Tensor:
    """Two categorical columns (B, E, 2), of 4 and 3 categories."""
    return torch.stack([torch.randint(0, high, (batch, edges), generator=generator) for high in (4, 3)], dim=-1)


def one_hot(features: Tensor | None) -> Tensor | None:
    """(B, E, 7) of (B, E, 2)."""
    if features is None:
        return None
    return torch.cat([torch.nn.functional.one_hot(features[..., i], n) for i, n in enumerate((4, 3))], -1).double()


def draw(case: dict[str, Any]) -> tuple[SFTGraphRelation, GraphEdges, Sample, dict[str, Tensor]]:
    """A relation, edges, a sample of distinct nodes (an extra token and unused slots among them), and other inputs."""
    batch, length, sampled, edges = case["sizes"]
    config = tiny_graph_config(**{name: value for name, value in case.items() if name != "sizes"})
    relation = SFTGraphRelation(config).double()
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    features = categories(batch, edges, generator) if config.has_edge_features else None
    with torch.no_grad():
        for parameter in relation.parameters():
            parameter.copy_(values(*parameter.shape) / 2)
    edge_mask = torch.rand(batch, edges, generator=generator) < 0.8
    index = torch.randint(0, length, (batch, 2, edges), generator=generator).masked_fill(~edge_mask[:, None], 0)
    # Every draw of nodes is one of distinct ones: a permutation, of which partners are the rest.
    samples = config.num_samples
    order = torch.rand(batch, samples, length + 2, generator=generator).argsort(-1)
    indices, rest = order[..., :sampled], order[..., sampled : 2 * sampled]
    unused = torch.rand(indices.shape, generator=generator) < 0.2
    unused[..., 0] = False
    indices = torch.where(unused, -1, indices)
    weights = partners = None
    if case["sampling_estimator"] == "soft":
        partners = torch.nn.functional.pad(rest, (0, sampled - rest.shape[-1]), value=-1).masked_fill(unused, -1)
        weights = torch.rand(indices.shape, generator=generator, dtype=torch.float64)
        weights = torch.where(partners < 0, 1.0, weights).requires_grad_()
    inputs = {
        "query": values(batch, HEADS, length, SCORE_CHANNELS),
        "key": values(batch, HEADS, sampled, SCORE_CHANNELS),
        "value": values(batch, HEADS, sampled, CHANNELS),
    }
    leaves = inputs | dict(relation.named_parameters())
    leaves |= {"weights": weights} if weights is not None else {}
    sample = Sample(indices, indices >= 0, weights, partners)
    return relation, GraphEdges(index, edge_mask, features, length), sample, leaves


def arguments(case: dict[str, Any], drawn: Any) -> AttentionInputs:
    relation, edges, sample, leaves = drawn
    prepared = relation.prepare(edges, sample)
    score, probability = case["attention_score"], case["attention_probability"]
    query, key, value = leaves["query"], leaves["key"], leaves["value"]
    return AttentionInputs(query, key, value, None, sample.valid, prepared, score, probability)


def expected_output(case: dict[str, Any], drawn: Any) -> Tensor:
    """The heads' outputs, row by row, head by head and edge by edge."""
    relation, edges, sample, leaves = drawn
    given, rows = reference.Edges(edges.edge_index, edges.edge_mask, one_hot(edges.edge_features)), []
    batch, _, length, _ = leaves["query"].shape
    for b, h in itertools.product(range(batch), range(HEADS)):
        own = h if sample.indices.shape[1] > 1 else 0
        phi = reference.relation_of_graph(given, b, length, sample.indices[b, own])
        if sample.partners is not None:
            share = sample.weights[b, own][:, None]
            other = reference.relation_of_graph(given, b, length, sample.partners[b, own])
            phi = share * phi + (1 - share) * other
        scores = reference.score(case["attention_score"], leaves["query"][b, h], leaves["key"][b, h])
        factor = reference.softplus(phi @ leaves["scale_weight"][h] + reference.UNIT_SCALE_LOGIT)
        scores = factor * scores + phi @ leaves["bias_weight"][h]
        weights = reference.probabilities(case["attention_probability"], scores, sample.valid[b, own], None)
        rows.append(weights @ leaves["value"][b, h])
    return torch.stack(rows).unflatten(0, (batch, HEADS))


def all_gradients(output: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.autograd.grad(output, list(leaves.values()), direction, allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {name: torch.zeros_like(leaf) if one is None else one for (name, leaf), one in pairs}


def assert_equals_the_loop(function: Callable[[AttentionInputs], Tensor], case: dict[str, Any]) -> None:
    drawn = draw(case)
    output, expected = function(arguments(case, drawn)), expected_output(case, drawn)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    found, wanted = all_gradients(output, drawn[3]), all_gradients(expected, drawn[3])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("function", [eager, fused_attention], ids=["eager", "fused"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_outputs_and_gradients_equal_a_loop_over_edges(
    function: Callable, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_equals_the_loop(function, case)
    monkeypatch.setattr(fused, "MIN_QUERIES", 1)
    monkeypatch.setattr(fused, "TILE_ELEMENTS", 3 * 7 * 20)
    monkeypatch.setattr("modeling_sft.attention.eager.CHUNK_ELEMENTS", 3 * 3 * 9 * 4)
    assert_equals_the_loop(function, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:3], ids=name_of)
def test_compiled_outputs_and_gradients_equal_a_loop_over_edges(case: dict[str, Any]) -> None:
    assert_equals_the_loop(compiled_attention, case)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_traced_code_computes_the_same_effect(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    relation, edges, sample, _ = draw(case)
    sparse = relation.prepare(edges, sample)
    assert isinstance(sparse, PreparedEdges)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    dense = relation.prepare(edges, sample)
    assert isinstance(dense, Effect)
    torch.testing.assert_close(dense.effect(), sparse.effect(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_parts_are_parts_of_the_whole(case: dict[str, Any]) -> None:
    prepared = draw(case)[0].prepare(*draw(case)[1:3])
    whole = prepared.effect()
    batch, _, length, _ = whole[0].shape
    everything = (slice(0, 100),)
    for rows, queries in itertools.product(
        (slice(0, 1), slice(1, 3), *everything), (slice(0, 4), slice(3, 9), *everything)
    ):
        if rows.start < batch and queries.start < length:
            part = prepared.rows(rows).queries(queries).effect()
            for found, all_of_it in zip(part, whole, strict=True):
                torch.testing.assert_close(found, all_of_it[rows, :, queries], rtol=0, atol=1e-12)


def test_a_relation_starts_as_the_identity() -> None:
    case = CASES[0] | {"sizes": (3, 9, 9, 20), "edge_vocab_sizes": [4, 3]}
    _, edges, sample, _ = draw(case)
    fresh = SFTGraphModel(tiny_graph_config(**{k: v for k, v in case.items() if k != "sizes"}))
    scale, bias = fresh.double().encoder.layers[0].attention.relation.prepare(edges, sample).effect()
    torch.testing.assert_close(scale, torch.ones_like(scale), rtol=0, atol=1e-6)
    assert (bias == 0).all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@parametrize_graph_configurations()
def test_layer_equals_the_float64_reference(choice: dict[str, Any], training: bool) -> None:
    model = build_graph(SFTGraphModel, **(choice | {"num_hidden_layers": 1}))
    layer = model.encoder.layers[0].train(training)
    generator = torch.Generator().manual_seed(0)
    x, direction = (torch.randn(3, 13, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))
    sizes, edge_mask = torch.tensor([13, 9, 5])[:, None], torch.arange(29) < torch.tensor([29, 17, 1])[:, None]
    mask = torch.arange(13) < sizes
    index = (torch.rand(3, 2, 29, generator=generator) * sizes[..., None]).long().masked_fill(~edge_mask[:, None], 0)
    given = categories(3, 29, generator) if model.config.has_edge_features else None
    direction = direction * mask[..., None]
    x.requires_grad_()

    edges = GraphEdges(index, edge_mask, given, 13)
    output, weights, sample, noise = run_layer(layer, x, mask, edges)
    config, state = layer.attention.config, dict(layer.named_parameters()) | dict(layer.named_buffers())
    expected, attentions = reference.layer(
        state, config, x, mask, reference.Edges(index, edge_mask, one_hot(given)), sample, training, noise
    )
    torch.testing.assert_close(output[mask], expected[mask], rtol=0, atol=1e-10)
    real = mask[:, None].expand(attentions.shape[:3])
    torch.testing.assert_close(weights[real], attentions[real], rtol=0, atol=1e-10)
    leaves = {"input": x, **dict(layer.named_parameters())}
    found, wanted = (gradients(value, leaves, direction) for value in (output, expected))
    check_gradients(found, wanted, 1e-9)
    assert relative_rms(output[mask], x.detach()[mask]) > 1e-2
