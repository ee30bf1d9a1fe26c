"""The fused and the compiled attention: parity with the float64 reference, tiles, dropout, ties, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from allocations import AllocationRecorder
from attention_cases import (
    ODD_SIZES,
    PROBABILITIES,
    SCORES,
    Case,
    Inputs,
    arguments,
    assert_close,
    assert_equals_reference,
    attention_inputs,
    covering_cases,
    expected_outputs_and_gradients,
    full_product,
    gradients,
    outputs_and_gradients,
    reference_weights,
    upstream_gradient,
)
from modeling_sft.attention import fused as fused_attention_sft
from modeling_sft.attention.eager import eager_attention
from modeling_sft.attention.fused import compiled_attention, fused_attention
from modeling_sft.attention.inputs import AttentionInputs

Attention = Callable[..., Tensor]


def eager(inputs: AttentionInputs) -> Tensor:
    return eager_attention(inputs)[0]


EAGER, FUSED = pytest.param(eager, id="eager"), pytest.param(fused_attention, id="fused")
# Each configuration costs the compiled attention half a minute, so only some tests run it.
COMPILED = pytest.param(compiled_attention, id="compiled", marks=pytest.mark.full)
eager_and_fused = pytest.mark.parametrize("function", [EAGER, FUSED])
fused_and_compiled = pytest.mark.parametrize("function", [FUSED, COMPILED])


@pytest.fixture(autouse=True)
def _fresh_memory_holds_nan() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiles are cut per thread
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def cut_tiles(monkeypatch: pytest.MonkeyPatch, case: Case, queries: int, rows: int = 1) -> None:
    """Have tiles hold so many queries of so many rows of the batch."""
    monkeypatch.setattr(fused_attention_sft, "MIN_QUERIES", 1)
    monkeypatch.setattr(fused_attention_sft, "TILE_ELEMENTS", rows * case.heads * queries * case.sampled)


@full_product()
def test_outputs_and_gradients_equal_the_reference(cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    for case in cases:
        cut_tiles(monkeypatch, case, queries=40)  # and 23
        assert_equals_reference(fused_attention, case)


@pytest.mark.parametrize("sizes", ODD_SIZES, ids=str)
def test_outputs_and_gradients_equal_the_reference_at_odd_sizes(sizes: dict[str, int]) -> None:
    for case in covering_cases(**sizes):
        assert_equals_reference(fused_attention, case, [torch.float32, torch.float64])


@pytest.mark.parametrize(("queries", "rows"), [(1, 1), (8, 1), (9, 2), (9, 7)])
def test_tiles_of_any_size_give_the_same(queries: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in covering_cases(batch=3, length=9):
        cut_tiles(monkeypatch, case, queries, rows)
        assert_equals_reference(fused_attention, case, [torch.float64])


def test_tiles_are_as_small_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(batch=2, length=100, sampled=50, relation="none")
    inputs = attention_inputs(case, torch.float32)
    for queries in (100, 20, 4):
        cut_tiles(monkeypatch, case, queries)
        with AllocationRecorder() as recorder:
            fused_attention(arguments(case, inputs)).sum().backward()
        # One channel of the keys belongs to each tile as well.
        assert recorder.largest <= 4 * max(case.heads * queries * case.sampled, case.batch * case.heads * 100 * 5)


COMPILED_CASES = [
    Case(quantised=True),
    Case(score="signed_min", probability="softplus", leak=False, relation="none", scope="head", slots="all"),
    Case(score="dot", probability="softmax", relation="mixed", slots="none", batch=2),
    Case(score="maxout", probability="softmax", leak=False, relation="none", scope="head", slots="none", batch=3),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILED_CASES, ids=lambda case: case.name)
def test_compiled_outputs_and_gradients_equal_the_reference(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_tiles(monkeypatch, case, queries=40)
    assert_equals_reference(compiled_attention, case, [torch.float32])
    larger = case._replace(length=70, sampled=64, score_channels=8, channels=16)
    assert_equals_reference(compiled_attention, larger, [torch.float32])


@pytest.mark.full
def test_compiled_outputs_and_gradients_equal_the_reference_in_any_size_and_dtype_of_one_process() -> None:
    assert_equals_reference(compiled_attention, Case())
    for sizes in ({"length": 1}, {"sampled": 1}, {"heads": 1}, {"score_channels": 1}, {"length": 1, "sampled": 1}):
        assert_equals_reference(compiled_attention, Case(**sizes), [torch.float32])


@eager_and_fused
@pytest.mark.parametrize("score", ["maxout", "signed_min"])
def test_ties_of_query_and_key_share_the_gradient(function: Attention, score: str) -> None:
    for probability in PROBABILITIES:
        for relation in ("none", "mixed"):
            case = Case(score=score, probability=probability, relation=relation, quantised=True, batch=2)
            inputs = attention_inputs(case)
            ties = inputs.leaves["query"][..., None, :] == inputs.leaves["key"][..., None, :, :]
            assert float(ties.float().mean()) > 0.1
            assert_equals_reference(function, case, [torch.float32, torch.float64])


@eager_and_fused
def test_the_gradient_at_a_single_tie_is_one_half(function: Attention) -> None:
    def slopes(query: float, key: float) -> tuple[Tensor, Tensor]:
        q, k = (torch.full((1, 1, 1, 1), x, requires_grad=True) for x in (query, key))
        value, valid = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)
        inputs = AttentionInputs(q, k, value, torch.zeros(1, 1, 1), valid, None, "maxout", "softplus")
        output = function(inputs)
        return torch.autograd.grad(output, [q, k])

    (above, none), (half_query, half_key) = slopes(0.75, 0.75 - 1e-6), slopes(0.75, 0.75)
    assert none == 0
    assert float(half_query) == pytest.approx(float(above) / 2, rel=1e-4)
    assert float(half_key) == pytest.approx(float(half_query), rel=1e-6)


@eager_and_fused
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_rows_without_a_valid_slot_are_zero_with_finite_gradients(function: Attention, probability: str) -> None:
    for leak in (True, False):
        case = Case(probability=probability, leak=leak, slots="none", batch=3)
        found = outputs_and_gradients(function, case, torch.float32)
        assert (found["output"][1] == 0).all()
        assert (found["output"][0] != 0).any()
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
        for name in ("query", "key", "value"):
            assert (found[name][1] == 0).all(), name


def strided(tensor: Tensor, layout: str) -> Tensor:
    """The same values in memory that is not contiguous."""
    if layout == "spread":
        return torch.stack([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., 0]
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


@fused_and_compiled
@pytest.mark.parametrize("layout", ["spread", "transposed"])
def test_inputs_need_not_be_contiguous(function: Attention, layout: str) -> None:
    case = Case(batch=2, relation="mixed", scope="head")
    plain = attention_inputs(case, torch.float32)
    leaves = {name: strided(leaf.detach(), layout).requires_grad_() for name, leaf in plain.leaves.items()}
    assert not leaves["query"].is_contiguous()
    valid = plain.valid.transpose(1, 2).contiguous().transpose(1, 2)
    inputs = Inputs(leaves, valid, plain.indices, plain.partners)
    output = function(arguments(case, inputs))
    upstream = strided(upstream_gradient(case).float(), layout)
    found = {"output": output.detach()} | gradients(output, leaves, upstream)
    assert_close(found, expected_outputs_and_gradients(case), 1e-5)

    # The gradient of a sum is one expanded number.
    expected = gradients(eager(arguments(case, plain)), plain.leaves, torch.ones_like(output))
    assert_close(
        gradients(function(arguments(case, inputs)), leaves, torch.ones(()).expand_as(output)), expected, 1e-4
    )


def test_a_mask_that_is_expanded_is_read_right() -> None:
    case = Case(scope="head", relation="none", batch=2)
    inputs = attention_inputs(case, torch.float32)
    shared = inputs.valid[:, :1]
    expanded = fused_attention(arguments(case, inputs._replace(valid=shared.expand(-1, case.heads, -1))))
    torch.testing.assert_close(expanded, eager(arguments(case, inputs._replace(valid=shared))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("relation", ["none", "plain", "mixed"])
@pytest.mark.parametrize("probability", ["relu", "softmax"])
def test_any_subset_of_the_inputs_may_need_gradients(probability: str, relation: str) -> None:
    case = Case(probability=probability, relation=relation, batch=2, length=11)
    expected = expected_outputs_and_gradients(case)
    names = [name for name in expected if name != "output"]
    for needed in [{name} for name in names] + [set(names) - {name} for name in names]:
        inputs = attention_inputs(case, needed=needed)
        output = fused_attention(arguments(case, inputs))
        found = gradients(output, inputs.leaves, upstream_gradient(case))
        assert_close(found, {name: expected[name] for name in needed}, 1e-10, needed)
    inputs = attention_inputs(case, needed=())
    assert not fused_attention(arguments(case, inputs)).requires_grad


@fused_and_compiled
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_gives_the_same_output(function: Attention, mode: Callable[[], Any]) -> None:
    case = Case(relation="mixed", batch=2)
    expected = function(arguments(case, attention_inputs(case, torch.float32)))
    with mode():
        found = function(arguments(case, attention_inputs(case, torch.float32)))
    # A compiler may sum in another order where no gradient is needed.
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    assert not found.requires_grad


def test_gradients_equal_finite_differences() -> None:
    sizes = {"length": 3, "sampled": 2, "score_channels": 2, "channels": 2, "heads": 2}
    for case in covering_cases(**sizes):
        inputs = attention_inputs(case)
        names = list(inputs.leaves)

        def run(*leaves: Tensor, case: Case = case, inputs: Inputs = inputs, names: list[str] = names) -> Tensor:
            return fused_attention(arguments(case, inputs._replace(leaves=dict(zip(names, leaves, strict=True)))))

        assert torch.autograd.gradcheck(run, tuple(inputs.leaves.values()), fast_mode=True), case


def test_gradients_of_gradients_raise() -> None:
    case = Case(relation="none")
    inputs = attention_inputs(case, torch.float32)
    output = fused_attention(arguments(case, inputs))
    (gradient,) = torch.autograd.grad(output.square().sum(), [inputs.leaves["query"]], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_backward_runs_twice_where_the_graph_is_kept() -> None:
    case = Case(relation="mixed")
    inputs = attention_inputs(case, torch.float32)
    output = fused_attention(arguments(case, inputs))
    leaves = list(inputs.leaves.values())
    first = torch.autograd.grad(output.sum(), leaves, retain_graph=True)
    second = torch.autograd.grad(output.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# Dropout. The weights that a call drops are its output for an identity matrix of values.

RATE = 0.3


def dropped_weights(function: Attention, case: Case, inputs: Inputs, seed: int) -> Tensor:
    identity = torch.eye(case.sampled, dtype=inputs.leaves["value"].dtype)
    identity = identity.expand(case.batch, case.heads, -1, -1)
    torch.manual_seed(seed)
    leaves = {name: leaf.detach() for name, leaf in inputs.leaves.items()} | {"value": identity}
    return function(arguments(case, inputs._replace(leaves=leaves), RATE))


def square(**changes: Any) -> Case:
    """A case whose values may be replaced by an identity matrix."""
    return Case(**({"channels": 7, "sampled": 7, "batch": 2} | changes))


@eager_and_fused
@pytest.mark.parametrize("probability", PROBABILITIES)
def test_dropout_drops_weights_independently_and_scales_the_rest(
    function: Attention, probability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = square(probability=probability, length=400, slots="all", relation="none")
    cut_tiles(monkeypatch, case, queries=100)
    inputs = attention_inputs(case, torch.float32)
    full = reference_weights(case, inputs).detach()
    found = dropped_weights(function, case, inputs, seed=0).double()
    considered = full > 1e-6
    kept = found != 0
    torch.testing.assert_close(found[kept], full[kept] / (1 - RATE), rtol=1e-4, atol=1e-7)

    tiles = kept.unflatten(2, (4, 100)), considered.unflatten(2, (4, 100))
    counts = tiles[1].sum((-2, -1))
    shares = (tiles[0] & tiles[1]).sum((-2, -1)) / counts
    assert ((shares - (1 - RATE)).abs() < 4.5 * (RATE * (1 - RATE) / counts).sqrt()).all()
    # No two tiles repeat a mask: independent ones agree on 58 % of their places.
    flat, places = tiles[0].flatten(0, 2).flatten(1), tiles[1].flatten(0, 2).flatten(1)
    for a in range(len(flat)):
        for b in range(a):
            both = places[a] & places[b]
            assert float((flat[a] == flat[b])[both].double().mean()) < 0.7


@fused_and_compiled
def test_dropout_is_reproducible_under_a_seed(function: Attention) -> None:
    case = square()
    inputs = attention_inputs(case, torch.float32)
    first = dropped_weights(function, case, inputs, seed=0)
    assert torch.equal(dropped_weights(function, case, inputs, seed=0), first)
    assert not torch.equal(dropped_weights(function, case, inputs, seed=1), first)
    state = torch.get_rng_state()
    function(arguments(case, inputs, RATE))
    assert not torch.equal(torch.get_rng_state(), state)
    state = torch.get_rng_state()
    function(arguments(case, inputs)).sum().backward()
    assert torch.equal(torch.get_rng_state(), state), "without dropout, nothing is drawn"


SQUARES = [square(relation="mixed"), square(probability="softmax"), square(score="dot")]
DROPPING = [pytest.param(function, case) for function in (eager, fused_attention) for case in SQUARES]
DROPPING.append(pytest.param(compiled_attention, SQUARES[0], marks=pytest.mark.full))


@pytest.mark.parametrize(("function", "case"), DROPPING)
def test_backward_drops_what_forward_dropped(function: Attention, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_tiles(monkeypatch, case, queries=25)
    dtype = torch.float32 if function is compiled_attention else torch.float64
    inputs, again = attention_inputs(case, dtype), attention_inputs(case)
    weights = reference_weights(case, again)
    kept = dropped_weights(function, case, inputs, seed=3) != 0
    expected_output = (weights * kept / (1 - RATE)) @ again.leaves["value"]
    expected = {"output": expected_output} | gradients(expected_output, again.leaves, upstream_gradient(case))

    torch.manual_seed(3)
    output = function(arguments(case, inputs, RATE))
    torch.rand(5)
    state = torch.get_rng_state()
    found = {"output": output} | gradients(output, inputs.leaves, upstream_gradient(case))
    assert_close(found, expected, 1e-5 if dtype == torch.float32 else 1e-10)
    assert torch.equal(torch.get_rng_state(), state), "backward leaves the generator alone"


@fused_and_compiled
def test_checkpointing_with_dropout_gives_the_same_gradients(function: Attention) -> None:
    case = square(relation="mixed")
    results = []
    for checkpointed in (False, True):
        inputs = attention_inputs(case, torch.float32)
        torch.manual_seed(0)
        if checkpointed:
            output = checkpoint(function, arguments(case, inputs, RATE), use_reentrant=False)
        else:
            output = function(arguments(case, inputs, RATE))
        torch.rand(5)
        results.append({"output": output} | gradients(output, inputs.leaves, upstream_gradient(case)))
    assert_close(results[1], {name: tensor.double() for name, tensor in results[0].items()}, 1e-7)


@fused_and_compiled
@pytest.mark.parametrize("checkpointed", [False, True])
def test_dropout_does_not_follow_the_number_of_threads(function: Attention, checkpointed: bool) -> None:
    case = Case(heads=4, length=700, sampled=256, score_channels=2, channels=4, slots="all")
    results = []
    for threads in (1, 2):
        inputs = attention_inputs(case, torch.float32)
        torch.manual_seed(0)
        torch.set_num_threads(1)
        call = arguments(case, inputs, RATE)
        output = checkpoint(function, call, use_reentrant=False) if checkpointed else function(call)
        torch.set_num_threads(threads)
        results.append({"output": output} | gradients(output, inputs.leaves, upstream_gradient(case)))
    assert_close(results[1], {name: tensor.double() for name, tensor in results[0].items()}, 1e-6)


# Memory


def training_memory(function: Attention, **changes: Any) -> AllocationRecorder:
    sizes = {"heads": 4, "length": 4096, "sampled": 256, "score_channels": 8, "channels": 64, "slots": "all"}
    case = Case(**(sizes | changes))
    generator = torch.Generator().manual_seed(0)

    def draw(length: int, channels: int) -> Tensor:
        return torch.randn(1, case.heads, length, channels, generator=generator, requires_grad=True)

    sampled, features = case.sampled, 5
    leaves = {
        "query": draw(case.length, case.score_channels),
        "key": draw(sampled, case.score_channels),
        "value": draw(sampled, case.channels),
        "leak_logits": torch.zeros(1, case.heads, sampled, requires_grad=True),
        "points": torch.randn(1, case.length, 3, generator=generator),
        "normals": torch.nn.functional.normalize(torch.randn(1, case.length, 3, generator=generator), dim=-1),
        "scale_weight": torch.zeros(case.heads, features, requires_grad=True),
        "bias_weight": torch.zeros(case.heads, features, requires_grad=True),
    }
    indices = torch.randperm(case.length, generator=generator)[:sampled].expand(1, case.samples, -1)
    inputs = Inputs(leaves, indices >= 0, indices, None)
    with AllocationRecorder() as recorder:
        function(arguments(case, inputs)).sum().backward()
    return recorder


@pytest.mark.parametrize("relation", ["none", "plain"])
@pytest.mark.parametrize("score", SCORES)
def test_training_keeps_no_scores_and_its_memory_grows_linearly(
    score: str, relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_attention_sft, "TILE_ELEMENTS", 2**16)
    peaks = []
    for length in (512, 1024):
        recorder = training_memory(fused_attention, score=score, relation=relation, length=length, channels=16)
        # The (H, N, K) scores are 4 times as large at the least, an (N, K, d) tensor 16 times.
        assert recorder.largest <= 2 * 4 * 2**16, recorder.by_operation
        peaks.append(recorder.peak)
    assert peaks[1] <= 2.02 * peaks[0]


@pytest.mark.parametrize("relation", ["none", "plain"])
def test_training_memory_does_not_grow_with_the_number_of_sampled_tokens(
    relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_attention_sft, "TILE_ELEMENTS", 2**15)
    monkeypatch.setattr(fused_attention_sft, "MIN_QUERIES", 1)
    few, many = (training_memory(fused_attention, relation=relation, length=1024, sampled=k) for k in (128, 512))
    # Keys and values of the 384 tokens more, with gradients and copies: the scores would be 6 MiB more.
    assert many.peak - few.peak <= 2**21


def test_training_needs_a_fifth_of_the_memory_of_eager() -> None:
    assert 5 * training_memory(fused_attention).peak <= training_memory(eager).peak
