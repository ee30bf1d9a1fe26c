"""The choice of the attention backend: defaults, loading, setting, refusals, tracing, and the table in the docs."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, Trainer, TrainingArguments

from attention_cases import (
    ODD_SIZES,
    Case,
    arguments,
    assert_equals_reference,
    attention_inputs,
    cases_of,
    outputs_and_gradients,
)
from configurations import tiny_config
from modeling_sft import AutoModelForPointCloudClassification, SFTForPointCloudClassification, SFTPointCloudModel
from modeling_sft.attention.attention import SFTAttention
from modeling_sft.attention.backends import (
    ALL_PROBABILITIES,
    ALL_SCORES,
    ATTENTION_BACKENDS,
    backend_problem,
    logger,
    sdpa_attention,
)
from modeling_sft.point_cloud.relation import PointCloudGeometry
from paths import ROOT
from random_clouds import Batch, random_batch
from tiny_models import build

# What `sdpa` computes.
PLAIN: dict[str, Any] = {
    "attention_score": "dot",
    "attention_probability": "softmax",
    "attention_leak": False,
    "relation": False,
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "attention_score": ("maxout", "signed_min"),
    "attention_probability": ("relu", "softplus"),
    "attention_leak": (True,),
    "relation": (True,),
}
PORTABLE = ("eager", "sdpa", "sft_fused")


@pytest.fixture
def batch() -> Batch:
    return random_batch([17, 9], dtype=torch.float32)


def plain_model(**changes: Any) -> Any:
    return build(dtype=torch.float32, **(PLAIN | changes))


def ran(model: nn.Module) -> set[str | None]:
    """Names of the backends that the layers of a model ran last."""
    return {module.last_backend for module in model.modules() if isinstance(module, SFTAttention)}


def logits(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def test_there_are_the_documented_backends() -> None:
    assert list(ATTENTION_BACKENDS) == ["eager", "sdpa", "sft_fused", "sft_compiled", "sft_triton"]


def test_the_default_is_fused(batch: Batch) -> None:
    for model in (SFTForPointCloudClassification(tiny_config()), build(dtype=torch.float32, **PLAIN)):
        assert ran(model) == {None}
        assert model.config._attn_implementation == "sft_fused"
        model.eval()(**batch)
        assert ran(model) == {"sft_fused"}
        model.train()(**batch, labels=torch.tensor([0, 1])).loss.backward()
        assert ran(model) == {"sft_fused"}


@pytest.mark.parametrize("name", [*PORTABLE, pytest.param("sft_compiled", marks=pytest.mark.slow)])
def test_set_attn_implementation_changes_what_runs(name: str, batch: Batch) -> None:
    model = plain_model()
    expected = logits(model, batch)
    model.set_attn_implementation(name)
    torch.testing.assert_close(logits(model, batch), expected, rtol=1e-4, atol=1e-5)
    assert ran(model) == {name}
    assert ran(model.sft) == {name}, "the backbone of a head follows"
    model.set_attn_implementation("eager")
    model(**batch)
    assert ran(model) == {"eager"}
    model.set_attn_implementation({"": name})
    model(**batch)
    assert ran(model) == {name}


def test_a_backbone_alone_changes_its_backend(batch: Batch) -> None:
    model = build(SFTPointCloudModel, dtype=torch.float32)
    model.set_attn_implementation("eager")
    model(**batch)
    assert ran(model) == {"eager"}


@pytest.mark.parametrize("name", [None, *PORTABLE])
def test_loading_takes_the_name_and_saving_forgets_it(name: str | None, batch: Batch, tmp_path: Path) -> None:
    model = plain_model()
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path)
    assert "attn_implementation" not in (tmp_path / "config.json").read_text()
    classes = (SFTForPointCloudClassification, AutoModelForPointCloudClassification, SFTPointCloudModel, AutoModel)
    for cls in classes:
        loaded = cls.from_pretrained(tmp_path, attn_implementation=name)
        loaded(**batch)
        assert ran(loaded) == {name or "sft_fused"}
    made = AutoModel.from_config(model.config, attn_implementation=name or "sft_fused")
    made.eval()(**batch)
    assert ran(made) == {name or "sft_fused"}
    again = SFTForPointCloudClassification.from_pretrained(tmp_path)
    again(**batch)
    assert ran(again) == {"sft_fused"}


@pytest.mark.parametrize("name", ["nonsense", "flash_attention_2", "flex_attention", "sft_Fused"])
def test_unknown_names_raise_and_change_nothing(name: str, batch: Batch, tmp_path: Path) -> None:
    model = build(dtype=torch.float32)
    with pytest.raises(ValueError, match=f"{name}.*eager, sdpa, sft_fused, sft_compiled, sft_triton"):
        model.set_attn_implementation(name)
    model(**batch)
    assert ran(model) == {"sft_fused"}
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{name}.*eager, sdpa, sft_fused, sft_compiled, sft_triton"):
        SFTForPointCloudClassification.from_pretrained(tmp_path, attn_implementation=name)


# Refusals


@pytest.mark.parametrize("field", OTHERS)
def test_sdpa_is_refused_naming_the_field_and_the_remedy(field: str, batch: Batch, tmp_path: Path) -> None:
    others = set(OTHERS) - {field}
    for value in OTHERS[field]:
        model = plain_model(**{field: value})
        model.save_pretrained(tmp_path)
        with pytest.raises(ValueError) as at_set:
            model.set_attn_implementation("sdpa")
        with pytest.raises(ValueError) as at_load:
            SFTForPointCloudClassification.from_pretrained(tmp_path, attn_implementation="sdpa")
        with pytest.raises(ValueError) as at_start:
            SFTForPointCloudClassification._from_config(copy.deepcopy(model.config), attn_implementation="sdpa")
        for error in (at_set, at_load, at_start):
            message = str(error.value)
            assert f"`{field}`" in message
            assert "sdpa" in message and "sft_fused" in message
            assert not any(f"`{other}`" in message for other in others)
        model(**batch)
        assert ran(model) == {"sft_fused"}


def test_a_refusal_names_every_field_at_once() -> None:
    with pytest.raises(ValueError) as error:
        build().set_attn_implementation("sdpa")
    assert all(f"`{field}`" in str(error.value) for field in OTHERS)


def test_every_configuration_is_accepted_by_all_backends_but_sdpa() -> None:
    fields = {field: (PLAIN[field], *OTHERS[field]) for field in OTHERS}
    for values in itertools.product(*fields.values()):
        choice = dict(zip(fields, values, strict=True))
        config = tiny_config(**choice)
        assert all(backend_problem(name, config) is None for name in ("eager", "sft_fused"))
        assert (backend_problem("sdpa", config) is None) == (choice == PLAIN)


def test_sdpa_refuses_what_it_cannot_compute_when_called_itself() -> None:
    plain = Case(score="dot", probability="softmax", leak=False, relation="none")
    changes: dict[str, Any] = {"score": "maxout", "probability": "relu", "leak": True, "relation": "plain"}
    for field, value in changes.items():
        case = plain._replace(**{field: value})
        with pytest.raises(ValueError, match="sft_fused"):
            sdpa_attention(arguments(case, attention_inputs(case)))


@pytest.mark.parametrize("variables", [{"PATH": ""}, {"PATH": "", "CXX": "g++"}, {"CXX": "no-such-compiler"}], ids=str)
def test_compiled_is_refused_without_a_compiler(
    variables: dict[str, str], batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(dtype=torch.float32)
    model.save_pretrained(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="sft_compiled.*C\\+\\+ compiler.*sft_fused"):
        model.set_attn_implementation("sft_compiled")
    with pytest.raises(ValueError, match="sft_compiled.*C\\+\\+ compiler.*sft_fused"):
        SFTForPointCloudClassification.from_pretrained(tmp_path, attn_implementation="sft_compiled")
    model(**batch)
    assert ran(model) == {"sft_fused"}


# Attention weights


@pytest.mark.parametrize("name", PORTABLE)
def test_attention_weights_come_from_eager_for_the_call_alone(
    name: str, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    model = plain_model()
    model.set_attn_implementation("eager")
    expected = model(**batch, output_attentions=True).attentions
    model.set_attn_implementation(name)
    logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    for _ in range(2):
        out = model(**batch, output_attentions=True)
        assert ran(model) == {"eager"}
        assert len(out.attentions) == 2
        torch.testing.assert_close(out.attentions, expected, rtol=0, atol=1e-6)
        plain = model(**batch)
        assert ran(model) == {name}
        assert plain.attentions is None
        torch.testing.assert_close(plain.logits, out.logits, rtol=0, atol=1e-5)
    warnings = [record for record in caplog.records if "output_attentions" in record.getMessage()]
    assert len(warnings) == (0 if name == "eager" else 1)
    assert all(f"`{name}`" in record.getMessage() and "`eager`" in record.getMessage() for record in warnings)


def test_a_configuration_may_ask_for_the_weights_as_in_transformers(batch: Batch, tmp_path: Path) -> None:
    model = build(dtype=torch.float32, output_attentions=True)
    assert model(**batch).attentions is not None
    assert model(**batch, output_attentions=False).attentions is None
    assert ran(model) == {"eager"}
    model.save_pretrained(tmp_path / "asked-at-once")

    model = build(dtype=torch.float32)
    with pytest.raises(ValueError, match="eager"):
        model.config.output_attentions = True
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    assert model(**batch).attentions is not None
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["output_attentions"] is True
    loaded = SFTForPointCloudClassification.from_pretrained(tmp_path, attn_implementation="eager")
    assert loaded(**batch).attentions is not None


# Tracing


every_traced = pytest.mark.parametrize(
    "name", ["sft_fused", pytest.param("eager", marks=pytest.mark.slow), pytest.param("sdpa", marks=pytest.mark.slow)]
)


def small_model(name: str) -> Any:
    fields = PLAIN if name == "sdpa" else {}
    model = build(dtype=torch.float32, num_hidden_layers=1, sampling_noise=0.0, local_mixing=False, **fields)
    model.set_attn_implementation(name)
    return model


@every_traced
def test_torch_compile_traces_the_eager_computation(name: str, batch: Batch) -> None:
    attention, targets = small_model(name).sft.encoder.layers[0].attention, set()
    states = torch.randn(2, 17, 24, generator=torch.Generator().manual_seed(0))
    inputs = (states, batch["attention_mask"].bool(), PointCloudGeometry(batch["points"], batch["normals"]), 7)

    def record(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        targets.update(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(attention, backend=record, fullgraph=True)(*inputs)[0]
        assert ran(attention) == {None}, "what is traced is not what ran"
        torch.testing.assert_close(found, attention(*inputs)[0], rtol=0, atol=1e-5)
    assert ran(attention) == {name}
    assert any("dot_product" in target for target in targets) == (name == "sdpa")
    assert not any("autograd_function" in target or "empty" in target for target in targets), "tiles were traced"
    torch.compiler.reset()


@every_traced
def test_torch_export_takes_the_eager_computation(name: str, batch: Batch) -> None:
    model = small_model(name)
    program = torch.export.export(model, (), batch, strict=False)
    assert ran(model) == {None}, "what is traced is not what ran"
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("dot_product" in target for target in targets) == (name == "sdpa")
    assert not any("empty" in target for target in targets), "tiles were traced"
    torch.testing.assert_close(program.module()(**batch).logits, logits(model, batch), rtol=0, atol=1e-5)


# Copies and loops


def test_copies_run_the_same_backend_and_are_set_on_their_own(batch: Batch) -> None:
    model = build(dtype=torch.float32)
    model.set_attn_implementation("eager")
    expected = logits(model, batch)
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(duplicate, batch), expected)
        assert ran(duplicate) == {"eager"}
        duplicate.set_attn_implementation("sft_fused")
        duplicate(**batch)
        model(**batch)
        assert (ran(duplicate), ran(model)) == ({"sft_fused"}, {"eager"})


def test_a_trainer_goes_on_after_the_backend_changes(tmp_path: Path) -> None:
    model = build(dtype=torch.float32)
    rows = [
        {"points": cloud["points"][0], "normals": cloud["normals"][0], "labels": torch.tensor(seed % 2)}
        for seed in range(4)
        for cloud in [random_batch([9], seed=seed, dtype=torch.float32)]
    ]
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, max_steps=2, report_to=[], use_cpu=True
    )
    for name in ("sft_fused", "eager"):
        model.set_attn_implementation(name)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        Trainer(model, arguments, train_dataset=rows).train()  # type: ignore[arg-type]
        assert ran(model) == {name}
        assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


# Scaled dot-product attention


def test_sdpa_outputs_and_gradients_equal_the_reference() -> None:
    plain: dict[str, Any] = {"score": "dot", "probability": "softmax", "leak": False, "relation": "none"}
    for case in [*cases_of(**plain), *(Case(**(plain | sizes), scope="head") for sizes in ODD_SIZES)]:
        assert_equals_reference(sdpa_attention, case)


def test_sdpa_rows_without_a_valid_slot_are_zero_with_finite_gradients() -> None:
    for scope in ("layer", "head"):
        case = Case(
            score="dot", probability="softmax", leak=False, relation="none", slots="none", batch=3, scope=scope
        )
        for dtype in (torch.float32, torch.bfloat16):
            found = outputs_and_gradients(sdpa_attention, case, dtype)
            assert (found["output"][1] == 0).all()
            assert all(torch.isfinite(gradient).all() for gradient in found.values())


# The table


def support_table() -> str:
    """What each backend supports, as a Markdown table."""

    def yes(value: bool | str) -> str:
        return value if isinstance(value, str) else "yes" if value else "no"

    lines = [
        "| backend | scores | probabilities | leak | relation | kept for backward | `torch.func` | while tracing |"
        " needs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, backend in ATTENTION_BACKENDS.items():
        cells = [
            f"`{name}`",
            "all" if backend.scores == ALL_SCORES else ", ".join(backend.scores),
            "all" if backend.probabilities == ALL_PROBABILITIES else ", ".join(backend.probabilities),
            yes(backend.leak),
            yes(backend.relation),
            backend.training_memory,
            yes(backend.transformable),
            "itself" if backend.traceable else "`eager`",
            "" if backend.needs is None else backend.needs[0],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_table_says_what_the_backends_do() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in support_table().splitlines()[2:]}
    assert list(rows) == list(ATTENTION_BACKENDS)
    assert "dot" in rows["sdpa"] and "softmax" in rows["sdpa"]


@pytest.mark.parametrize("relation", ["none", "plain"])
@pytest.mark.parametrize("name", ["eager", "sft_fused"])
def test_the_table_says_which_backends_torch_func_can_transform(name: str, relation: str) -> None:
    case = Case(score="dot", relation=relation)
    inputs = attention_inputs(case)

    def total(query: Tensor) -> Tensor:
        leaves = inputs.leaves | {"query": query}
        return ATTENTION_BACKENDS[name].function(arguments(case, inputs._replace(leaves=leaves))).square().sum()

    query = inputs.leaves["query"]
    if not ATTENTION_BACKENDS[name].transformable:
        with pytest.raises(RuntimeError):
            torch.func.grad(total)(query.detach())
        return
    (expected,) = torch.autograd.grad(total(query), [query], create_graph=True)
    torch.testing.assert_close(torch.func.grad(total)(query.detach()), expected.detach())
    assert torch.autograd.grad(expected.sum(), [inputs.leaves["key"]])[0].abs().sum() > 0


def test_the_docs_hold_the_table() -> None:
    assert support_table() in (ROOT / "docs" / "attention.md").read_text()
