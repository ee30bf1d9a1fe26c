"""Random inputs of the attention functions, their float64 reference, and the comparison of both."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import reference
from configurations import covering_array, tiny_config
from modeling_sft import SFTPointCloudConfig
from modeling_sft.attention.inputs import AttentionInputs
from modeling_sft.point_cloud.relation import PointCloudGeometry, SFTPointCloudRelation
from modeling_sft.sampling.sample import Sample

SCORES = ("maxout", "dot", "signed_min")
PROBABILITIES = ("relu", "softplus", "softmax")
RELATIONS = ("none", "plain", "mixed")
# Which slots are in use: all, some in every row of the batch, or some with one row that has none.
SLOTS = ("all", "some", "none")
ODD_SIZES: list[dict[str, int]] = [
    {"length": 1},
    {"sampled": 1},
    {"score_channels": 1},
    {"length": 1, "sampled": 1, "score_channels": 1, "channels": 1, "heads": 1},
    {"batch": 3, "length": 9, "sampled": 31, "channels": 9},
    {"length": 33, "sampled": 64, "score_channels": 16, "channels": 32, "heads": 2},
    {"batch": 2, "length": 5, "heads": 1, "normals": False},
]
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10, torch.bfloat16: 2e-2}
# The least root mean square that a difference is put in relation to.
NEGLIGIBLE = 0.02


class Case(NamedTuple):
    """A configuration of the attention functions and the sizes of their inputs; odd ones by default."""

    score: str = "maxout"
    probability: str = "relu"
    leak: bool = True
    relation: str = "plain"
    scope: str = "layer"
    slots: str = "some"
    batch: int = 1
    heads: int = 3
    length: int = 63
    sampled: int = 7
    score_channels: int = 5
    channels: int = 4
    normals: bool = True
    quantised: bool = False

    @property
    def samples(self) -> int:
        return self.heads if self.scope == "head" else 1

    @property
    def name(self) -> str:
        return f"{self.score}-{self.probability}-{'leak' if self.leak else 'tight'}-{self.relation}"


def cases_of(**choices: Any) -> list[Case]:
    """Both scopes, each for one row with all slots in use and for two rows, one with some and one without any."""
    slots = ({"slots": "all"}, {"slots": "none", "batch": 2})
    return [Case(**(choices | {"scope": scope} | state)) for scope in ("layer", "head") for state in slots]


def full_product(**sizes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on the `cases` of each score, probability, leak and relation, together the full product."""
    parameters = []
    for score, probability, leak, relation in itertools.product(SCORES, PROBABILITIES, (True, False), RELATIONS):
        cases = cases_of(score=score, probability=probability, leak=leak, relation=relation, **sizes)
        parameters.append(pytest.param(cases, id=cases[0].name))
    return pytest.mark.parametrize("cases", parameters)


def covering_cases(strength: int = 2, **sizes: Any) -> list[Case]:
    """Cases in which all combinations of any `strength` choices occur."""
    factors = {"score": SCORES, "probability": PROBABILITIES, "leak": (True, False), "relation": RELATIONS}
    factors |= {"scope": ("layer", "head"), "slots": SLOTS}
    return [Case(**choice, **sizes) for choice in covering_array(factors, strength)]


class Inputs(NamedTuple):
    """Arguments of the attention functions; `leaves` are those that gradients are taken of, by name."""

    leaves: dict[str, Tensor]
    valid: Tensor
    indices: Tensor
    partners: Tensor | None


def _separate_points(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Points `(B, N, 3)` around the nodes of a lattice: float32 does not resolve directions to points too close."""
    side = round(length ** (1 / 3) + 0.5)
    nodes = torch.cartesian_prod(*[torch.arange(side) - (side - 1) / 2] * 3)
    order = torch.rand(batch, side**3, generator=generator).argsort(-1)[:, :length]
    return (nodes[order] / 2 + 0.08 * torch.randn(batch, length, 3, generator=generator)).double()


@functools.cache
def _drawn(case: Case, seed: int) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor | None, Tensor]:
    """Values in float64 that every dtype represents: one reference serves them all."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        values = torch.randn(*shape, generator=generator)
        return (values * 2).round().div(2).double() if case.quantised else values.to(dtype).double()

    batch, heads, length, sampled, samples = case.batch, case.heads, case.length, case.sampled, case.samples
    valid = torch.ones(batch, samples, sampled, dtype=torch.bool)
    if case.slots != "all":
        # Never the first slot, so that one stays in use.
        valid[..., 1:] = torch.rand(batch, samples, sampled - 1, generator=generator) < 0.6
    if case.slots == "none":
        valid[batch // 2] = False
    # Index `length` is an extra token, without a place.
    indices = torch.randint(0, length + 1, (batch, samples, sampled), generator=generator)
    indices = torch.where(valid, indices, -1)
    leaves = {
        "query": draw(batch, heads, length, case.score_channels),
        "key": draw(batch, heads, sampled, case.score_channels),
        "value": draw(batch, heads, sampled, case.channels),
    }
    unused = ~valid.expand(-1, heads, -1)
    leaves["key"][unused] *= 100
    leaves["value"][unused] *= 100
    if case.leak:
        leaves["leak_logits"] = draw(batch, heads, sampled)
        leaves["leak_logits"][unused] *= 100
    partners = None
    if case.relation != "none":
        leaves["points"] = _separate_points(batch, length, generator)
        if case.normals:
            normals = nn.functional.normalize(draw(batch, length, 3, dtype=torch.float32), dim=-1)
            leaves["normals"] = normals.float().double()
        features = 5 if case.normals else 2
        leaves["scale_weight"], leaves["bias_weight"] = draw(heads, features) / 4, draw(heads, features) / 4
    if case.relation == "mixed":
        partners = torch.randint(0, length, (batch, samples, sampled), generator=generator)
        partners = torch.where(valid & (torch.rand(valid.shape, generator=generator) < 0.8), partners, -1)
        weights = torch.rand(valid.shape, generator=generator).double()
        leaves["weights"] = torch.where(partners < 0, 1.0, weights)
    return leaves, valid, indices, partners, draw(batch, heads, length, case.channels)


def attention_inputs(
    case: Case, dtype: torch.dtype = torch.float64, needed: Iterable[str] | None = None, seed: int = 0
) -> Inputs:
    """Random inputs in `dtype`, geometry and weights of pairs in at least float32.

    Args:
        needed: names of the leaves that require gradients; all of them by default.
    """
    values, valid, indices, partners, _ = _drawn(case, seed)
    geometric = torch.promote_types(dtype, torch.float32)
    leaves = {}
    for name, value in values.items():
        leaf = value.to(geometric if name in ("points", "normals", "weights") else dtype, copy=True)
        leaves[name] = leaf.requires_grad_(needed is None or name in needed)
    return Inputs(leaves, valid, indices, partners)


@functools.cache
def _relation_config(relation: str, heads: int, normals: bool) -> SFTPointCloudConfig:
    return tiny_config(
        hidden_size=8 * heads,
        num_attention_heads=heads,
        sampling_estimator="soft" if relation == "mixed" else "gate",
        use_normals=None if normals else False,
    )


def prepared_relation(case: Case, inputs: Inputs) -> Any:
    """The relation as the attention functions take it, with the leaves as its inputs and parameters."""
    if case.relation == "none":
        return None
    leaves = inputs.leaves
    relation = SFTPointCloudRelation(_relation_config(case.relation, case.heads, case.normals))
    for name in ("scale_weight", "bias_weight"):
        delattr(relation, name)
        setattr(relation, name, leaves[name])
    geometry = PointCloudGeometry(leaves["points"], leaves.get("normals"))
    weights = leaves.get("weights")
    return relation.prepare(geometry, Sample(inputs.indices, inputs.valid, weights, inputs.partners))


def arguments(case: Case, inputs: Inputs, dropout: float = 0.0) -> AttentionInputs:
    """What all attention functions compute from."""
    leaves = inputs.leaves
    return AttentionInputs(
        leaves["query"],
        leaves["key"],
        leaves["value"],
        leaves.get("leak_logits"),
        inputs.valid,
        prepared_relation(case, inputs),
        case.score,
        case.probability,
        dropout,
    )


@functools.cache
def resolved_rows(case: Case, seed: int = 0) -> Tensor:
    """Which rows `(B, H, N, 1)` rounding leaves alone.

    At a score of 0, relu has no gradient; with sum f(e) near 1e-3, errors are amplified a thousandfold.
    """
    if case.probability != "relu":
        return torch.ones(case.batch, case.heads, case.length, 1, dtype=torch.bool)
    inputs = attention_inputs(case, seed=seed)
    with torch.no_grad():
        scores, total = reference_scores(case, inputs), reference_weights(case, inputs).sum(-1, keepdim=True)
    bends = ((scores.abs() < 1e-5) & inputs.valid[:, :, None]).any(-1, keepdim=True)
    return ~bends if case.leak else ~bends & ((total == 0) | (total > 0.997))


def upstream_gradient(case: Case, seed: int = 0) -> Tensor:
    """The gradient with respect to the output that the comparisons use, float64 `(B, H, N, d)`."""
    return _drawn(case, seed)[4] * resolved_rows(case, seed)


def gradients(output: Tensor, leaves: dict[str, Tensor], upstream: Tensor) -> dict[str, Tensor]:
    """Gradients of the leaves that require one; zeros for a leaf without effect."""
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    found = torch.autograd.grad(output, list(wanted.values()), upstream.to(output.dtype), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(wanted.items(), found, strict=True)
    }


def outputs_and_gradients(
    function: Callable[..., Tensor], case: Case, dtype: torch.dtype, seed: int = 0, **options: Any
) -> dict[str, Tensor]:
    """The output of an attention function, as "output", and the gradient of each input by its name."""
    inputs = attention_inputs(case, dtype, seed=seed)
    output = function(arguments(case, inputs), **options)
    assert output.dtype == dtype
    found = gradients(output, inputs.leaves, upstream_gradient(case, seed))
    for name, gradient in found.items():
        assert gradient.dtype == inputs.leaves[name].dtype, name
    return {"output": output.detach()} | found


def reference_scores(case: Case, inputs: Inputs) -> Tensor:
    """Scores `(B, H, N, K)` in float64 from the published formulas, the relation's effect included."""
    leaves = {name: leaf.double() for name, leaf in inputs.leaves.items()}
    # One "query" that holds them all: the formulas are elementwise but for the sum over channels.
    query, key = leaves["query"][None, ..., None, :], leaves["key"][..., None, :, :]
    scores = reference.score(case.score, query, key)[0]
    if case.relation == "none":
        return scores
    related = []
    for b, h in itertools.product(range(case.batch), range(case.heads)):
        own = h if case.scope == "head" else 0
        normals = leaves["normals"][b] if case.normals else None
        phi = reference.relation_of_tokens(leaves["points"][b], normals, inputs.indices[b, own])
        if inputs.partners is not None:
            other = reference.relation_of_tokens(leaves["points"][b], normals, inputs.partners[b, own])
            share = leaves["weights"][b, own][:, None]
            phi = share * phi + (1 - share) * other
        scale = reference.softplus(phi @ leaves["scale_weight"][h] + reference.UNIT_SCALE_LOGIT)
        related.append(scale * scores[b, h] + phi @ leaves["bias_weight"][h])
    return torch.stack(related).view_as(scores)


def reference_weights(case: Case, inputs: Inputs) -> Tensor:
    """Attention weights `(B, H, N, K)` in float64, row by row of the batch and head by head."""
    scores, leak_logits = reference_scores(case, inputs), inputs.leaves.get("leak_logits")
    weights = []
    for b, h in itertools.product(range(case.batch), range(case.heads)):
        valid = inputs.valid[b, h if case.scope == "head" else 0]
        logits = None if leak_logits is None else leak_logits[b, h].double()
        weights.append(reference.probabilities(case.probability, scores[b, h], valid, logits))
    return torch.stack(weights).view_as(scores)


@functools.cache
def expected_outputs_and_gradients(case: Case, seed: int = 0) -> dict[str, Tensor]:
    """What [`outputs_and_gradients`] should give, in float64."""
    inputs = attention_inputs(case, seed=seed)
    output = reference_weights(case, inputs) @ inputs.leaves["value"]
    return {"output": output.detach()} | gradients(output, inputs.leaves, upstream_gradient(case, seed))


def relative_error(found: Tensor, expected: Tensor, negligible: float = NEGLIGIBLE) -> float:
    """Root mean square of the difference over that of the expected values, or over a negligible one."""
    expected = expected.double()
    size = max(float(expected.norm()), negligible * expected.numel() ** 0.5)
    return float((found.double() - expected).norm()) / size


def assert_close(
    found: dict[str, Tensor],
    expected: dict[str, Tensor],
    tolerance: float,
    about: Any = "",
    negligible: float = NEGLIGIBLE,
) -> None:
    """Every tensor is finite and within the relative tolerance of what is expected under its name."""
    assert found.keys() == expected.keys()
    errors = {name: relative_error(found[name], expected[name], negligible) for name in expected}
    assert all(error <= tolerance for error in errors.values()), f"{errors} {about}"


def assert_equals_reference(
    function: Callable[..., Tensor], case: Case, dtypes: Iterable[torch.dtype] = tuple(TOLERANCES), seed: int = 0
) -> None:
    """Output and gradient of every input are those of the reference, in each dtype."""
    for dtype in dtypes:
        found, expected = (
            outputs_and_gradients(function, case, dtype, seed),
            expected_outputs_and_gradients(case, seed),
        )
        if dtype != torch.float64:
            rows = resolved_rows(case, seed)
            found["output"], expected = found["output"] * rows, expected | {"output": expected["output"] * rows}
        # A single weight hardly depends on its score: what is left of two terms of size 1 is their rounding.
        negligible = 1.0 if case.sampled == 1 else NEGLIGIBLE
        assert_close(found, expected, TOLERANCES[dtype], (case, dtype), negligible)
