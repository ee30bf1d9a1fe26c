"""The Triton kernels, under Triton's interpreter or on a GPU: parity, refusals, compilation, determinism."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from allocations import AllocationRecorder
from attention_cases import (
    ODD_SIZES,
    Case,
    arguments,
    assert_close,
    attention_inputs,
    expected_outputs_and_gradients,
    gradients,
    resolved_rows,
    upstream_gradient,
)
from configurations import covering_array, tiny_config, tiny_graph_config
from modeling_sft import SFTGraphModel
from modeling_sft.attention.attention import SFTAttention
from modeling_sft.attention.backends import backend_problem
from modeling_sft.attention.fused import fused_attention
from modeling_sft.attention.triton import attention
from modeling_sft.attention.triton.attention import (
    sampled_attention,
    sampled_attention_backward,
    triton_attention,
    triton_problem,
)
from modeling_sft.graph.relation import PreparedEdges, SFTGraphRelation
from paths import ROOT
from random_clouds import random_batch
from random_sequences import random_sequences
from sequence import test_relation as sequences
from tiny_models import build, build_graph, build_sequence

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter multiplies bfloat16 numbers as if their bits were integers.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
WEIGHTS = ("query", "key", "value", "leak_logits", "scale_weight", "bias_weight")
FACTORS = {"score": ("maxout", "dot"), "probability": ("relu", "softmax"), "leak": (True, False)}
FACTORS |= {"relation": ("none", "plain"), "scope": ("layer", "head"), "slots": ("none", "some")}
CHOICES = itertools.product(*list(FACTORS.values())[:4])
# Two tiles in each direction, of which the second is not full.
SIZES = {"batch": 2, "heads": 2, "length": 37, "sampled": 19, "score_channels": 3}
CASES = [
    Case(score=score, probability=probability, leak=leak, relation=relation, scope=scope, slots=slots, **SIZES)
    for score, probability, leak, relation in CHOICES
    for scope, slots in (("layer", "none"), ("head", "some"))
]
COVERING = [Case(**choice, **SIZES) for choice in covering_array(FACTORS)]


@pytest.fixture(autouse=True)
def _fresh_memory_holds_nan_and_tiles_are_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tiles = {"TOKENS_PER_PROGRAM": 32, "TOKENS_PER_STEP": 16, "TOKENS_PER_SHORT_STEP": 16, "QUERIES_PER_PART": 32}
    for name, value in tiles.items():
        monkeypatch.setattr(attention, name, value)
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def on_device(inputs: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, lambda tensor: tensor.to(DEVICE), inputs)


def outputs_and_gradients(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    inputs = attention_inputs(case, dtype, needed=WEIGHTS)
    output = triton_attention(on_device(arguments(case, inputs)))
    assert output.dtype == dtype
    found = gradients(output, inputs.leaves, upstream_gradient(case).to(DEVICE))
    return {"output": output.detach().cpu()} | {name: gradient.cpu() for name, gradient in found.items()}


def assert_equals_reference(case: Case, dtype: torch.dtype) -> None:
    found, expected = outputs_and_gradients(case, dtype), expected_outputs_and_gradients(case)
    rows = resolved_rows(case)
    found["output"], expected = found["output"] * rows, expected | {"output": expected["output"] * rows}
    # A single weight hardly depends on its score: what is left of two terms of size 1 is their rounding.
    negligible = 1.0 if case.sampled == 1 else 0.02
    assert_close(found, {name: expected[name] for name in found}, TOLERANCES[dtype], (case, dtype), negligible)


@pytest.mark.parametrize("case", COVERING, ids=lambda case: f"{case.name}-{case.scope}")
def test_outputs_and_gradients_equal_the_reference(case: Case) -> None:
    assert_equals_reference(case, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.scope}")
def test_every_configuration_equals_the_reference_in_every_dtype(case: Case) -> None:
    for dtype in DTYPES:
        assert_equals_reference(case, dtype)


SINGLE = {"length": 1, "sampled": 1, "score_channels": 1, "channels": 1, "heads": 1}
MORE_SIZES = [sizes for sizes in ODD_SIZES if sizes != SINGLE]
MORE_SIZES.append({"length": 9, "score_channels": 17, "channels": 20, "normals": False})


@pytest.mark.parametrize("sizes", [SINGLE, *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in MORE_SIZES)])
def test_outputs_and_gradients_equal_the_reference_at_odd_sizes(sizes: dict[str, int]) -> None:
    for choice in ({}, {"score": "dot", "probability": "softmax"}, {"relation": "none", "leak": False}):
        assert_equals_reference(Case(**(choice | sizes)), torch.float32)


@pytest.mark.slow
def test_tiles_of_their_real_size_and_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(attention, "QUERIES_PER_PART", 128)
    wide: dict[str, Any] = {"relation": "none", "channels": 200}
    for choice in ({}, {"score": "dot", "probability": "softmax", "relation": "none"}, wide):
        assert_equals_reference(Case(length=150, sampled=70, score_channels=8, **choice), torch.float32)


def test_equal_channels_share_the_gradient() -> None:
    assert_equals_reference(Case(quantised=True, **SIZES), torch.float32)


SEQUENCE_CASES = [
    sequences.Case(score=score, probability=probability, scope=scope, positions=positions, leak=leak)
    for score, probability, scope, positions, leak in (
        ("maxout", "relu", "layer", "counted", True),
        ("maxout", "softmax", "head", "gaps", False),
        ("dot", "relu", "head", "strided", True),
        ("dot", "softmax", "layer", "gaps", True),
    )
]


@pytest.mark.parametrize("case", SEQUENCE_CASES, ids=str)
def test_the_relation_of_sequences_equals_a_loop_over_pairs(case: sequences.Case) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    with pytest.warns(UserWarning, match="in no fixed order"):
        sequences.assert_equals_the_loop(triton_attention, case, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("case", SEQUENCE_CASES, ids=str)
def test_the_relation_of_sequences_in_half_precision(case: sequences.Case) -> None:
    torch.use_deterministic_algorithms(False)
    for dtype in DTYPES[1:]:
        drawn = sequences.draw(case, dtype)
        output = triton_attention(on_device(sequences.arguments(case, drawn)))
        found = {"output": output.detach()} | gradients(output, drawn.leaves, drawn.upstream.to(DEVICE))
        # The same rounded numbers in double precision.
        leaves = {name: leaf.detach().double().requires_grad_() for name, leaf in drawn.leaves.items()}
        exact = sequences.expected_output(case, drawn._replace(leaves=leaves))
        expected = {"output": exact.detach()} | gradients(exact, leaves, drawn.upstream)
        assert_close({name: value.cpu() for name, value in found.items()}, expected, 5 * TOLERANCES[dtype], case)


def test_the_gradient_of_the_relation_of_sequences_is_refused_where_order_matters() -> None:
    case = SEQUENCE_CASES[0]
    inputs = sequences.arguments(case, sequences.draw(case, torch.float32))
    with pytest.raises(RuntimeError, match="in no fixed order.*sft_fused"):
        triton_attention(inputs)
    with torch.no_grad():
        fixed = inputs._replace(relation=type(inputs.relation)(*(t.detach() for t in inputs.relation[:4]), None, None))
        torch.testing.assert_close(triton_attention(fixed), fused_attention(fixed), rtol=1e-4, atol=1e-5)


def test_nothing_nearly_as_large_as_the_scores_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    case = Case(heads=1, length=512, sampled=64, relation="none", slots="all")
    inputs = attention_inputs(case, torch.float32, needed=WEIGHTS)
    sizes = []
    # What operators allocate within, a recorder does not see.
    for name in ("empty", "zeros"):
        method = getattr(attention._Launch, name)
        recorded = lambda launch, *shape, method=method: sizes.append(math.prod(shape)) or method(launch, *shape)  # noqa: E731
        monkeypatch.setattr(attention._Launch, name, recorded)
    with AllocationRecorder() as recorder:
        triton_attention(on_device(arguments(case, inputs))).sum().backward()
    assert len(sizes) >= 4
    assert max(*sizes, recorder.largest / 4) < case.length * case.sampled / 4


def test_two_runs_give_the_same_bits() -> None:
    case = Case(**SIZES)
    once, again = outputs_and_gradients(case, torch.float32), outputs_and_gradients(case, torch.float32)
    for name, value in once.items():
        assert torch.equal(value, again[name]), name


# Refusals


def refusal(match: str, case: Case, dtype: torch.dtype = torch.float32, needed: Any = WEIGHTS, **changes: Any) -> None:
    inputs = on_device(arguments(case, attention_inputs(case, dtype, needed=needed)))
    with pytest.raises(ValueError, match=f"(?s){match}.*sft_fused"):
        triton_attention(inputs._replace(**changes))


def test_what_the_kernels_lack_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal("float64", Case(), torch.float64)
    refusal("attention_probs_dropout_prob", Case(), dropout=0.1)
    refusal("mixed pairs", Case(relation="mixed"), needed=())
    refusal("gradients of points", Case(), needed=("points",))
    refusal("relation of graphs", Case(), relation=PreparedEdges(*[torch.empty(0)] * 7))
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        refusal("runs on GPUs, and the inputs are on cpu", Case(relation="none"))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"attention_score": "signed_min"}, "`attention_score` must be 'maxout' or 'dot'"),
        ({"attention_probability": "softplus"}, "`attention_probability` must be 'relu' or 'softmax'"),
    ],
)
def test_configurations_are_refused_with_the_remedy(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=f"{match}.*sft_fused"):
        build(dtype=torch.float32, **fields).set_attn_implementation("sft_triton")


def test_graphs_are_taken_without_relation_only() -> None:
    assert backend_problem("sft_triton", tiny_graph_config(relation=False), SFTGraphRelation) is None
    problem = backend_problem("sft_triton", tiny_graph_config(), SFTGraphRelation)
    assert "`relation` must be False for graphs" in str(problem)
    with pytest.raises(ValueError, match="must be False for graphs.*sft_fused"):
        build_graph(SFTGraphModel).set_attn_implementation("sft_triton")


def test_a_machine_without_triton_or_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triton_problem() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="sft_triton.*needs a GPU"):
        build(dtype=torch.float32).set_attn_implementation("sft_triton")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install triton" in str(backend_problem("sft_triton", tiny_config()))


# In models


@pytest.mark.parametrize(
    ("modality", "estimator"), [("points", "gate"), ("points", "straight_through"), ("sequence", "straight_through")]
)
def test_models_give_in_training_what_they_give_by_the_default(modality: str, estimator: str) -> None:
    torch.use_deterministic_algorithms(False)
    fields: dict[str, Any] = {"dtype": torch.float32, "training": True, "sampling_estimator": estimator}
    if modality == "points":
        model, inputs = build(**fields), random_batch([17, 9], dtype=torch.float32)
    else:
        model = build_sequence(relation=True, **fields)
        inputs = random_sequences([17, 9], model.config.vocab_size)
    model, inputs = model.to(DEVICE), on_device(dict(inputs))
    labels = torch.tensor([0, 1], device=DEVICE)
    found = []
    for name in ("sft_fused", "sft_triton"):
        model.set_attn_implementation(name)
        torch.manual_seed(0)
        output = model(**inputs, labels=labels)
        assert {module.last_backend for module in model.modules() if isinstance(module, SFTAttention)} == {name}
        parameters = [p for p in model.parameters() if p.requires_grad]
        found.append((output.logits, *torch.autograd.grad(output.loss, parameters, allow_unused=True)))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_attention_is_compiled_as_one_graph_with_gradients() -> None:
    case = Case(sampled=9, length=20)
    torch.compiler.reset()
    compiled = torch.compile(triton_attention, backend="aot_eager", fullgraph=True)
    found = []
    for function in (triton_attention, compiled):
        inputs = attention_inputs(case, torch.float32, needed=WEIGHTS)
        output = function(on_device(arguments(case, inputs)))
        found.append(
            {"output": output.detach()} | gradients(output, inputs.leaves, upstream_gradient(case).to(DEVICE))
        )
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)
    torch.compiler.reset()


def operator_arguments(relation: str) -> tuple[Any, ...]:
    inputs = on_device(arguments(Case(relation=relation), attention_inputs(Case(relation=relation), torch.float32)))
    leak = inputs.leak_logits.detach().abs().sum(-1).requires_grad_()
    places: tuple[Any, ...] = (None, None, None)
    if inputs.relation is not None:
        weight = inputs.relation.weight_by_head().detach().requires_grad_()
        places = (weight, *(tensor.detach() for tensor in inputs.relation.geometry()))
    operands = (inputs.query.mT, inputs.key.mT, inputs.value)
    leaves = (tensor.detach().contiguous().requires_grad_() for tensor in operands)
    return (*leaves, inputs.valid, leak, *places, "maxout", "relu")


@pytest.mark.parametrize("relation", ["none", "plain"])
def test_the_operators_keep_pytorchs_rules(relation: str) -> None:
    torch.use_deterministic_algorithms(False)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(sampled_attention, operator_arguments(relation), test_utils=checks)
    query, key, value, valid, _, *rest = operator_arguments(relation)
    output, normaliser = sampled_attention(query, key, value, valid, None, *rest)
    values = (output.detach(), output.detach(), normaliser, query, key, value, valid, *rest)
    detached = tuple(v.detach() if isinstance(v, Tensor) else v for v in values)
    torch.library.opcheck(sampled_attention_backward, detached, test_utils=("test_schema", "test_faketensor"))


def test_floating_point_operations_are_counted() -> None:
    values = operator_arguments("none")
    with FlopCounterMode(display=False) as counter:
        sampled_attention(*values)[0].sum().backward()
    batch, heads, channels, length = values[0].shape
    pairs = batch * heads * length * values[1].shape[3]
    width = values[2].shape[-1]
    assert counter.get_total_flops() == 2 * pairs * (channels + width) + 2 * pairs * (4 * channels + 3 * width)


# Without Triton, and several times in a process

TWO_COPIES = """
import sys, torch
import modeling_sft.attention.triton.attention as own
sys.path.insert(0, sys.argv[1])
import copied.attention.triton.attention as copied

query, key, value = torch.randn(1, 2, 4, 9), torch.randn(1, 2, 4, 5), torch.randn(1, 2, 5, 3)
valid = torch.ones(1, 1, 5, dtype=torch.bool)
outputs = [
    module.sampled_attention(query, key, value, valid, None, None, None, None, "maxout", "relu")[0]
    for module in (own, copied, own)
]
assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
print("BOTH RUN")
"""

WITHOUT_TRITON = """
import sys, torch
sys.modules["triton"] = None
import modeling_sft
from modeling_sft import SFTConfig, SFTModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

model = SFTModel(SFTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
tokens = torch.tensor([[1, 2, 3]])
output = model.eval()(tokens).last_hidden_state
model.save_pretrained(sys.argv[1])
Remote = get_class_from_dynamic_module("modeling_sft.SFTModel", sys.argv[1])
torch.testing.assert_close(Remote.from_pretrained(sys.argv[1]).eval()(tokens).last_hidden_state, output)
assert not any(name.startswith("triton.") or "triton_kernels" in name for name in sys.modules)
print("RUNS WITHOUT")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("script", "said"), [(TWO_COPIES, "BOTH RUN"), (WITHOUT_TRITON, "RUNS WITHOUT")])
def test_other_processes(script: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "modeling_sft", tmp_path / "copied")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert said in result.stdout, result.stderr[-3000:]
