"""The sequence relation through every backend against a loop over pairs, and whole layers against the reference."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reference
from attention_cases import assert_close, gradients
from configurations import covering_array, parametrize_sequence_configurations, tiny_sequence_config
from layers import check_gradients, relative_rms, run_layer
from modeling_sft import SFTModel
from modeling_sft.attention import fused
from modeling_sft.attention.eager import eager_attention
from modeling_sft.attention.fused import compiled_attention, fused_attention
from modeling_sft.attention.inputs import AttentionInputs
from modeling_sft.sampling.sample import Sample
from modeling_sft.sequence.relation import (
    NUM_OFFSET_FEATURES,
    SequencePositions,
    SFTSequenceRelation,
    offset_features,
)
from tiny_models import build_sequence

Attention = Callable[[AttentionInputs], Tensor]


def eager(inputs: AttentionInputs) -> Tensor:
    return eager_attention(inputs)[0]


class Case(NamedTuple):
    """A configuration of the attention functions and the sizes of their inputs; odd ones by default."""

    score: str = "maxout"
    probability: str = "relu"
    leak: bool = True
    mixed: bool = False
    scope: str = "layer"
    batch: int = 1
    heads: int = 3
    length: int = 63
    sampled: int = 7
    score_channels: int = 5
    channels: int = 4
    positions: str = "counted"


FACTORS = {
    "score": ("maxout", "dot", "signed_min"),
    "probability": ("relu", "softplus", "softmax"),
    "leak": (True, False),
    "mixed": (True, False),
    "scope": ("layer", "head"),
    "positions": ("counted", "gaps", "strided"),
}
CASES = [Case(**choice) for choice in covering_array(FACTORS)]
SIZES: list[dict[str, int]] = [
    {},
    {"batch": 3, "length": 9, "sampled": 31, "channels": 9},
    {"length": 1, "sampled": 1, "score_channels": 1, "channels": 1, "heads": 1},
]


class Drawn(NamedTuple):
    """Inputs of a case; `leaves` are those that gradients are taken of, by name."""

    leaves: dict[str, Tensor]
    indices: Tensor
    partners: Tensor | None
    positions: Tensor
    upstream: Tensor


def draw(case: Case, dtype: torch.dtype = torch.float64) -> Drawn:
    generator = torch.Generator().manual_seed(0)
    batch, heads, length, sampled = case.batch, case.heads, case.length, case.sampled
    samples = heads if case.scope == "head" else 1

    def values(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    valid = torch.ones(batch, samples, sampled, dtype=torch.bool)
    valid[..., 1:] = torch.rand(batch, samples, sampled - 1, generator=generator) < 0.8
    valid[..., 1:2] = True
    # Index `length` and the next are extra tokens, without a place; slot 1 always holds one.
    indices = torch.randint(0, length + 2, valid.shape, generator=generator)
    indices[..., 1:2] = length
    leaves = {
        "query": values(batch, heads, length, case.score_channels),
        "key": values(batch, heads, sampled, case.score_channels),
        "value": values(batch, heads, sampled, case.channels),
        "scale_weight": values(heads, NUM_OFFSET_FEATURES) / 4,
        "bias_weight": values(heads, NUM_OFFSET_FEATURES) / 4,
    }
    if case.leak:
        leaves["leak_logits"] = values(batch, heads, sampled)
    partners = None
    if case.mixed:
        partners = torch.randint(0, length + 1, valid.shape, generator=generator)
        partners[..., 2:4] = length
        partners = torch.where(valid & (torch.rand(valid.shape, generator=generator) < 0.8), partners, -1)
        weights = torch.rand(valid.shape, generator=generator).double()
        leaves["weights"] = weights
    positions = torch.arange(length).expand(batch, -1)
    if case.positions != "counted":
        positions = torch.randint(0, 40, (batch, length), generator=generator).cumsum(1)
    if case.positions == "strided":
        positions = positions.flip(1).mT.contiguous().mT
    leaves = {name: leaf.to(dtype).requires_grad_() for name, leaf in leaves.items()}
    upstream = values(batch, heads, length, case.channels)
    return Drawn(leaves, torch.where(valid, indices, -1), partners, positions, upstream)


def weights_of(drawn: Drawn) -> Any:
    """The share of each sampled token in its mixture: all, where it has no partner."""
    return None if drawn.partners is None else torch.where(drawn.partners < 0, 1.0, drawn.leaves["weights"])


def arguments(case: Case, drawn: Drawn) -> AttentionInputs:
    """What the attention functions compute from, the relation made by the module."""
    leaves, valid = drawn.leaves, drawn.indices >= 0
    fields = {"hidden_size": 8 * case.heads, "num_attention_heads": case.heads}
    relation = SFTSequenceRelation(tiny_sequence_config(**fields, sampling_estimator="soft" if case.mixed else "gate"))
    for name in ("scale_weight", "bias_weight"):
        delattr(relation, name)
        setattr(relation, name, leaves[name])
    sequence = SequencePositions(drawn.positions, int(drawn.positions.max()))
    prepared = relation.prepare(sequence, Sample(drawn.indices, valid, weights_of(drawn), drawn.partners))
    query, key, value = leaves["query"], leaves["key"], leaves["value"]
    return AttentionInputs(query, key, value, leaves.get("leak_logits"), valid, prepared, case.score, case.probability)


def expected_output(case: Case, drawn: Drawn) -> Tensor:
    """The heads' outputs in float64, row by row, head by head and pair by pair."""
    leaves, rows = {name: leaf.double() for name, leaf in drawn.leaves.items()}, []
    for b, h in itertools.product(range(case.batch), range(case.heads)):
        own = h if case.scope == "head" else 0
        indices, positions = drawn.indices[b, own], drawn.positions[b]
        phi = reference.relation_of_sequence(positions, indices)
        if drawn.partners is not None:
            share = weights_of(drawn)[b, own][:, None]
            phi = share * phi + (1 - share) * reference.relation_of_sequence(positions, drawn.partners[b, own])
        scores = reference.score(case.score, leaves["query"][b, h], leaves["key"][b, h])
        factor = reference.softplus(phi @ leaves["scale_weight"][h] + reference.UNIT_SCALE_LOGIT)
        scores = factor * scores + phi @ leaves["bias_weight"][h]
        logits = leaves["leak_logits"][b, h] if case.leak else None
        rows.append(reference.probabilities(case.probability, scores, indices >= 0, logits) @ leaves["value"][b, h])
    return torch.stack(rows).unflatten(0, (case.batch, case.heads))


@functools.cache
def expected_outputs_and_gradients(case: Case) -> dict[str, Tensor]:
    drawn = draw(case)
    output = expected_output(case, drawn)
    return {"output": output.detach()} | gradients(output, drawn.leaves, drawn.upstream)


def assert_equals_the_loop(function: Attention, case: Case, dtype: torch.dtype = torch.float64) -> None:
    drawn = draw(case, dtype)
    output = function(arguments(case, drawn))
    found = {"output": output.detach()} | gradients(output, drawn.leaves, drawn.upstream)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_close(found, expected_outputs_and_gradients(case), tolerance, (case, dtype))


# Features


def test_offset_features_are_what_they_say() -> None:
    offsets = torch.tensor([-100_003, -64, -1, 0, 1, 5, 4**8])
    features = offset_features(offsets, torch.float64)
    assert features.shape == (7, NUM_OFFSET_FEATURES)
    for row, offset in zip(features, offsets.tolist(), strict=True):
        angles = [2 * math.pi * (offset % 4**p) / 4**p for p in range(1, 9)]
        sign = (offset > 0) - (offset < 0)
        expected = [1, sign, math.log1p(abs(offset)), *map(math.cos, angles), *map(math.sin, angles)]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_offset_features_stay_exact_far_away_in_float32() -> None:
    offsets = torch.tensor([2**22 - 1, 2**21 + 3, 1_000_001, -1_000_001])
    single, double = offset_features(offsets, torch.float32), offset_features(offsets, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-6)


def test_a_relation_starts_as_the_identity() -> None:
    prepared = arguments(Case(), draw(Case())).relation
    assert prepared is not None
    zero = prepared._replace(
        scale_table=torch.zeros_like(prepared.scale_table),
        bias_table=torch.zeros_like(prepared.bias_table),
    )
    fresh = SFTModel(tiny_sequence_config()).encoder.layers[0].attention.relation
    drawn = draw(Case())
    found = fresh.prepare(
        SequencePositions(drawn.positions, 62), Sample(drawn.indices, drawn.indices >= 0, None, None)
    )
    for scale, bias in (zero.effect(), found.effect()):
        torch.testing.assert_close(scale, torch.ones_like(scale), rtol=0, atol=1e-6)
        assert (bias == 0).all()


# Backends


@pytest.mark.parametrize("function", [eager, fused_attention], ids=["eager", "fused"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_outputs_and_gradients_equal_a_loop_over_pairs(
    function: Attention, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "MIN_QUERIES", 1)
    monkeypatch.setattr(fused, "TILE_ELEMENTS", 3 * 7 * 20)
    for sizes in SIZES:
        assert_equals_the_loop(function, case._replace(**sizes))


@pytest.mark.parametrize("function", [eager, fused_attention], ids=["eager", "fused"])
def test_float32_is_close_to_a_loop_over_pairs(function: Attention) -> None:
    # With a leak: rounding in the relu of an almost empty row is divided by little more than its eps of 1e-3.
    for case in CASES:
        if case.leak and case.positions == "strided":
            assert_equals_the_loop(function, case, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(positions="gaps"), Case(mixed=True, scope="head", probability="softmax")])
def test_compiled_outputs_and_gradients_equal_a_loop_over_pairs(case: Case) -> None:
    for sizes in SIZES:
        assert_equals_the_loop(compiled_attention, case._replace(**sizes), torch.float32)


class CountTables(TorchDispatchMode):
    """Counts new tensors of a shape; views, and tensors changed in place, are not new."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {leaf.data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        new = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.data_ptr() not in known)
        self.count += sum(leaf.shape == self.shape for leaf in new)
        return result


def test_backward_makes_one_gradient_of_the_tables_whatever_the_number_of_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One for every tile would make training quadratic in the length.
    monkeypatch.setattr(fused, "MIN_QUERIES", 1)
    counts = []
    for elements in (10**6, 3 * 7 * 3):
        monkeypatch.setattr(fused, "TILE_ELEMENTS", elements)
        inputs = arguments(Case(mixed=True), draw(Case(mixed=True)))
        relation = inputs.relation
        assert relation is not None
        tables = [relation.scale_table.detach().requires_grad_(), relation.bias_table.detach().requires_grad_()]
        output = fused_attention(
            inputs._replace(relation=relation._replace(scale_table=tables[0], bias_table=tables[1]))
        )
        with CountTables(tables[0].shape) as counted:
            torch.autograd.grad(output.sum(), tables)
        counts.append(counted.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("needed", [0, 1])
def test_a_table_without_a_gradient_stays_as_it_is(needed: int) -> None:
    inputs = arguments(Case(), draw(Case()))
    assert inputs.relation is not None
    tables = [inputs.relation.scale_table.detach(), inputs.relation.bias_table.detach()]
    before, gradients_of_needed = [table.clone() for table in tables], []
    for free in ([needed], [0, 1]):
        leaves = [table.requires_grad_(number in free) for number, table in enumerate(tables)]
        bound = inputs.relation._replace(scale_table=leaves[0], bias_table=leaves[1])
        output = fused_attention(inputs._replace(relation=bound))
        gradients_of_needed += torch.autograd.grad(output.sum(), leaves[needed], retain_graph=True)
    assert torch.equal(tables[1 - needed], before[1 - needed])
    torch.testing.assert_close(*gradients_of_needed)


# Layers


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@parametrize_sequence_configurations()
def test_layer_equals_the_float64_reference(choice: dict[str, Any], training: bool) -> None:
    model = build_sequence(SFTModel, **(choice | {"num_hidden_layers": 1}))
    layer = model.encoder.layers[0].train(training)
    generator = torch.Generator().manual_seed(0)
    x, direction = (torch.randn(3, 17, 24, generator=generator, dtype=torch.float64) for _ in range(2))
    place = torch.arange(17)
    # One row whole, one padded on the right, one on both sides.
    mask = torch.stack([place >= 0, place < 9, (place >= 4) & (place < 9)])
    positions = torch.randint(0, 9, (3, 17), generator=generator).cumsum(1).masked_fill(~mask, 0)
    direction = direction * mask[..., None]
    x.requires_grad_()

    sequence = SequencePositions(positions, int(positions.max()))
    output, weights, sample, noise = run_layer(layer, x, mask, sequence)
    config, state = layer.attention.config, dict(layer.named_parameters()) | dict(layer.named_buffers())
    expected, attentions = reference.layer(
        state, config, x, mask, reference.Positions(positions), sample, training, noise
    )
    torch.testing.assert_close(output[mask], expected[mask], rtol=0, atol=1e-10)
    real = mask[:, None].expand(attentions.shape[:3])
    torch.testing.assert_close(weights[real], attentions[real], rtol=0, atol=1e-10)
    leaves = {"input": x, **dict(layer.named_parameters())}
    found, wanted = (gradients(value, leaves, direction) for value in (output, expected))
    check_gradients(found, wanted, 1e-9)
    assert relative_rms(output[mask], x.detach()[mask]) > 1e-2
    assert (found["input"][~mask] == 0).all()
