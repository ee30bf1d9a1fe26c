"""`torch.compile`, `torch.export` and ONNX: the model's own numbers, for clouds, graphs and batches of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from configurations import covering_array, name_of
from modeling_sft import SFTPointCloudModel
from modeling_sft.sampling import selection
from modeling_sft.sampling.selection import systematic_selection
from random_clouds import Batch, random_batch
from random_graphs import BY_EDGE, random_graphs
from tiny_models import build, build_graph, build_sequence

EXAMPLE = (20, 13)
# Fewer points than the 7 sampled tokens, a single point, odd numbers, one cloud, several clouds.
SIZES = ((20, 13), (31,), (9, 7, 30), (3,), (5, 2), (1,), (64, 63, 7, 1))
FACTORS = {
    "attention_score": ("maxout", "dot", "signed_min"),
    "attention_probability": ("relu", "softplus", "softmax"),
    "sampling_scope": ("layer", "head"),
    "sampling_inference": ("systematic", "topk"),
    "num_extra_tokens": (0, 2),
    "rotation_invariant": (False, True),
    "use_normals": (None, False),
}
CONFIGURATIONS = [pytest.param(choice, id=name_of(choice)) for choice in covering_array(FACTORS)]


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def inputs_of(model: Any, sizes: tuple[int, ...]) -> Batch:
    """Clouds of these sizes with two points of padding, and all that the model takes."""
    normals = model.config.use_normals is not False
    return random_batch(sizes, normals=normals, dtype=model.dtype, length=max(sizes) + 2)


def dynamic_shapes(inputs: Batch) -> dict[str, dict[int, Any]]:
    batch, points = Dim("batch"), Dim("points")
    return {name: {0: batch, 1: points} for name in inputs}


def export(model: Any) -> ExportedProgram:
    inputs = inputs_of(model, EXAMPLE)
    return torch.export.export(model, (), inputs, dynamic_shapes=dynamic_shapes(inputs))


def assert_same_logits(program: ExportedProgram, model: Any, tolerance: float) -> None:
    """Compares relative to the largest logit, or to 1 if all are smaller."""
    run = program.module()
    for sizes in SIZES:
        inputs = inputs_of(model, sizes)
        with torch.no_grad():
            found, expected = run(**inputs).logits, model(**inputs).logits
        assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1), sizes


def onnx_session(
    model: Any, inputs: Batch, shapes: dict[str, Any], folder: Path, outputs: list[str] | None = None
) -> Any:
    """ONNX Runtime with the model, exported from these inputs; skips the test where a library is missing."""
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library)
    onnxruntime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(
        model,
        kwargs=inputs,
        dynamic_shapes=shapes,
        input_names=[*inputs],
        output_names=outputs or ["logits"],
        dynamo=True,
        verbose=False,
    )
    program.save(folder / "model.onnx")
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def shapes_with_two_lengths(program: ExportedProgram) -> list[torch.Size]:
    """Shapes in the graph in which the number of points occurs more than once."""
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    values = [value for graph in graphs for node in graph.nodes for value in tree_leaves(node.meta.get("val"))]
    shapes = [value.shape for value in values if isinstance(value, Tensor)]
    points = next(
        shape for shape in shapes if len(shape) == 3 and shape[2] == 3 and isinstance(shape[1], torch.SymInt)
    )
    symbol = points[1].node.expr

    def occurrences(shape: torch.Size) -> int:
        return sum(isinstance(size, torch.SymInt) and symbol in size.node.expr.free_symbols for size in shape)

    return [shape for shape in shapes if occurrences(shape) > 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_traced_and_plain_selection_agree(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    cases = []
    for length, k, noise in ((1, 3, 1.0), (23, 9, 0.05), (50, 1, 4.0), (300, 64, 1.0)):
        for spread in (0.0, 0.01, 1.0, 40.0):
            scores = spread * torch.randn(3, 2, length, generator=generator, dtype=dtype)
            scores[1] = scores[1].round()
            mask = torch.rand(3, length, generator=generator) < torch.tensor([[1.0], [0.8], [0.3]])
            mask[:, 0] = True
            content = torch.randn(3, 1, length, generator=generator, dtype=dtype)
            cases.append((scores, content, mask, k, noise))
    plain = [systematic_selection(*case) for case in cases]
    monkeypatch.setattr(selection, "can_check_values", lambda x: False)
    for case, expected in zip(cases, plain, strict=True):
        assert torch.equal(systematic_selection(*case), expected)


@pytest.fixture(scope="module")
def program() -> tuple[ExportedProgram, Any]:
    """A small float64 model of one layer and its exported program."""
    model = build(num_hidden_layers=1)
    return export(model), model


def test_an_exported_program_takes_other_batches_and_lengths(program: tuple[ExportedProgram, Any]) -> None:
    assert_same_logits(*program, tolerance=1e-10)


def test_an_exported_program_holds_nothing_of_length_times_length(program: tuple[ExportedProgram, Any]) -> None:
    assert shapes_with_two_lengths(program[0]) == []


@pytest.mark.slow
def test_without_neighbours_the_exported_program_compares_all_points() -> None:
    model = build(num_hidden_layers=1)
    inputs = inputs_of(model, EXAMPLE)
    del inputs["neighbor_index"]
    found = torch.export.export(model, (), inputs, dynamic_shapes=dynamic_shapes(inputs))
    assert shapes_with_two_lengths(found)
    other = inputs_of(model, (9, 30))
    expected = model(**other).logits
    del other["neighbor_index"]
    torch.testing.assert_close(found.module()(**other).logits, expected, rtol=0, atol=1e-10)


@pytest.mark.full
@pytest.mark.parametrize("choice", CONFIGURATIONS)
def test_every_configuration_exports(choice: dict[str, Any]) -> None:
    model = build(num_hidden_layers=1, **choice)
    exported = export(model)
    assert_same_logits(exported, model, tolerance=1e-10)
    assert shapes_with_two_lengths(exported) == []


@pytest.mark.slow
@pytest.mark.parametrize("rotation_invariant", [False, True])
def test_a_single_precision_model_exports(rotation_invariant: bool, tmp_path: Path) -> None:
    model = build(dtype=torch.float32, rotation_invariant=rotation_invariant, norm_type="batch")
    torch.export.save(export(model), tmp_path / "model.pt2")
    assert_same_logits(torch.export.load(tmp_path / "model.pt2"), model, tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="default"),
        pytest.param(
            {"sampling_inference": "topk", "num_extra_tokens": 2, "attention_score": "dot", "norm_type": "rms"},
            id="topk",
            marks=pytest.mark.full,
        ),
        pytest.param(
            {"sampling_scope": "head", "rotation_invariant": True, "attention_probability": "softmax"},
            id="head",
            marks=pytest.mark.full,
        ),
    ],
)
def test_onnx_runs_with_the_same_tokens_and_logits(changes: dict[str, Any], tmp_path: Path) -> None:
    model = build(dtype=torch.float32, num_hidden_layers=1, **changes)
    model.config.output_sampled_tokens = True
    inputs = inputs_of(model, EXAMPLE)
    session = onnx_session(model, inputs, dynamic_shapes(inputs), tmp_path, ["logits", "sampled_tokens"])
    for sizes in SIZES:
        inputs = inputs_of(model, sizes)
        logits, tokens = session.run(["logits", "sampled_tokens"], {name: x.numpy() for name, x in inputs.items()})
        with torch.no_grad():
            expected = model(**inputs)
        # The program keeps slots beyond the tokens, empty ones.
        slots = expected.sampled_tokens[0].shape[-1]
        np.testing.assert_array_equal(tokens[..., :slots], expected.sampled_tokens[0], err_msg=str(sizes))
        assert (tokens[..., slots:] == -1).all()
        np.testing.assert_allclose(logits, expected.logits, rtol=0, atol=1e-4, err_msg=str(sizes))


def assert_compiles(backend: str, *batches: tuple[int, ...], **changes: Any) -> None:
    """The compiled model has the model's logits, and one graph for all batches and one for single clouds."""
    model = build(dtype=torch.float32, num_hidden_layers=1, **changes)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for sizes in batches:
        inputs = inputs_of(model, sizes)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
        assert counters["stats"]["unique_graphs"] == (1 if len(sizes) > 1 else 2), sizes


@pytest.mark.slow
def test_a_compiled_model_does_not_recompile_for_other_shapes() -> None:
    assert_compiles("eager", (20, 13), (9, 7, 30), (5, 2), (64, 63, 7, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "changes"),
    [
        ("inductor", {}),
        pytest.param(
            "aot_eager",
            {"sampling_inference": "topk", "sampling_scope": "head", "num_extra_tokens": 2},
            marks=pytest.mark.full,
        ),
        pytest.param(
            "aot_eager",
            {"sampling_estimator": "soft", "norm_position": "post", "attention_score": "signed_min"},
            marks=pytest.mark.full,
        ),
    ],
    ids=["inductor", "topk", "post-norm"],
)
def test_compiled_models_give_the_same_logits(backend: str, changes: dict[str, Any]) -> None:
    assert_compiles(backend, (20, 13), (9, 7, 30), (5, 2), (31,), (3,), **changes)


@pytest.mark.slow
def test_layers_compiled_one_by_one_share_their_code() -> None:
    model, plain = (build(SFTPointCloudModel, torch.float32, num_hidden_layers=3) for _ in range(2))
    for layer in model.encoder.layers:
        layer.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in ((20, 13), (9, 7, 30)):
        inputs = inputs_of(model, sizes)
        with torch.no_grad():
            found, expected = model(**inputs).last_hidden_state, plain(**inputs).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
@pytest.mark.parametrize("estimator", ["gate", "soft"])
def test_a_compiled_training_step_has_the_same_gradients(estimator: str, backend: str) -> None:
    # Without noise the gate draws nothing, and nor do pairs where all tokens are taken.
    k = 7 if estimator == "gate" else 40
    model = build(
        num_hidden_layers=1, training=True, sampling_estimator=estimator, sampling_noise=0.0, num_sampled_tokens=k
    )
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for sizes in ((20, 13), (9, 7, 30)):
        batch = inputs_of(model, sizes) | {"labels": torch.arange(len(sizes))}
        gradients = []
        for run in (model, compiled):
            model.zero_grad()
            run(**batch).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters()})
        for name, expected in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], expected, rtol=1e-6, atol=1e-9, msg=f"{name} {sizes}")
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.full
@pytest.mark.parametrize("estimator", ["gate", "soft", "straight_through"])
def test_a_compiled_training_step_with_noise_draws_as_the_model_does(estimator: str) -> None:
    model = build(num_hidden_layers=1, training=True, sampling_estimator=estimator)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    batch = inputs_of(model, EXAMPLE) | {"labels": torch.tensor([0, 1])}
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        torch.manual_seed(0)
        run(**batch).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, expected in gradients[0].items():
        assert expected.isfinite().all()
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-6, atol=1e-9, msg=name)


# Graphs


def graph_inputs_of(model: Any, sizes: tuple[int, ...]) -> Batch:
    """Graphs of these sizes, of which a graph of more nodes has more edges, with two nodes of padding."""
    batch = random_graphs(sizes, length=max(sizes) + 2)
    return {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in batch.items()}


def graph_shapes(inputs: Batch) -> dict[str, dict[int, Any]]:
    batch, nodes, edges = Dim("batch"), Dim("nodes"), Dim("edges")
    by_edge = {name: {0: batch, 2 if name == "edge_index" else 1: edges} for name in (*BY_EDGE, "edge_mask")}
    return {name: by_edge.get(name, {0: batch, 1: nodes}) for name in inputs}


def without_edges(inputs: Batch) -> Batch:
    """The same nodes; edges are a dimension of size 0."""
    return inputs | {
        "edge_index": inputs["edge_index"][:, :, :0],
        "edge_features": inputs["edge_features"][:, :0],
        "edge_mask": inputs["edge_mask"][:, :0],
    }


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"sampling_scope": "head", "num_extra_tokens": 2}, marks=pytest.mark.slow),
        pytest.param({"norm_type": "batch", "local_mixing": False}, marks=pytest.mark.slow),
        pytest.param({"context_hash_radius": 2}, marks=pytest.mark.slow),
    ],
    ids=["default", "head", "batch norm", "context hashes"],
)
def test_an_exported_graph_model_takes_other_batches_nodes_and_edges(changes: dict[str, Any]) -> None:
    model = build_graph(num_hidden_layers=1, **changes)
    inputs = graph_inputs_of(model, EXAMPLE)
    run = torch.export.export(model, (), inputs, dynamic_shapes=graph_shapes(inputs)).module()
    for sizes in SIZES:
        inputs = graph_inputs_of(model, sizes)
        for case in (inputs, without_edges(inputs)):
            with torch.no_grad():
                torch.testing.assert_close(run(**case).logits, model(**case).logits, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("radius", [None, 2], ids=["plain", "context hashes"])
def test_onnx_runs_a_graph_model_with_the_same_logits(radius: int | None, tmp_path: Path) -> None:
    model = build_graph(dtype=torch.float32, num_hidden_layers=1, context_hash_radius=radius)
    inputs = graph_inputs_of(model, EXAMPLE)
    session = onnx_session(model, inputs, graph_shapes(inputs), tmp_path)
    for sizes in SIZES:
        inputs = graph_inputs_of(model, sizes)
        (logits,) = session.run(["logits"], {name: x.numpy() for name, x in inputs.items()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(**inputs).logits, rtol=0, atol=1e-4, err_msg=str(sizes))


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "radius"), [("eager", None), ("inductor", None), ("inductor", 2)])
def test_a_compiled_graph_model_does_not_recompile_for_other_shapes(backend: str, radius: int | None) -> None:
    model = build_graph(dtype=torch.float32, num_hidden_layers=1, context_hash_radius=radius)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    # The first batch has 5 graphs: the compiler takes sizes that are equal there, such as numbers of columns, for one.
    for sizes in ((20, 13, 9, 4, 1), (9, 7, 30), (5, 2), (64, 63, 7, 1)):
        inputs = graph_inputs_of(model, sizes)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("radius", [None, 2], ids=["plain", "context hashes"])
def test_a_compiled_training_step_on_graphs_has_the_same_gradients(radius: int | None) -> None:
    model = build_graph(num_hidden_layers=1, training=True, sampling_noise=0.0, context_hash_radius=radius)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for sizes in ((20, 13), (9, 7, 30)):
        batch = graph_inputs_of(model, sizes) | {"labels": torch.arange(len(sizes))}
        gradients = []
        for run in (model, compiled):
            model.zero_grad()
            run(**batch).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters()})
        for name, expected in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], expected, rtol=1e-6, atol=1e-9, msg=f"{name} {sizes}")


# Sequences, whose context hashes take words apart


@pytest.fixture
def text_model() -> Any:
    hashes = {"context_hash_sizes": (1, 3), "context_hash_words": True, "vocab_size": 260}
    return build_sequence(dtype=torch.float32, num_hidden_layers=1, **hashes)


def texts(*sizes: int) -> Batch:
    """Bytes of letters and spaces, with two tokens of padding."""
    ids = torch.tensor([4 + byte for byte in b" abC'"])
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(max(sizes) + 2) < torch.tensor(sizes)[:, None]).long()
    return {"input_ids": ids[torch.randint(5, mask.shape, generator=generator)] * mask, "attention_mask": mask}


def text_shapes(inputs: Batch) -> dict[str, dict[int, Any]]:
    return {name: {0: Dim("batch"), 1: Dim("tokens")} for name in inputs}


@pytest.mark.slow
def test_an_exported_model_of_texts_takes_other_batches_and_lengths(text_model: Any) -> None:
    inputs = texts(*EXAMPLE)
    run = torch.export.export(text_model, (), inputs, dynamic_shapes=text_shapes(inputs)).module()
    for sizes in SIZES:
        with torch.no_grad():
            found, expected = run(**texts(*sizes)).logits, text_model(**texts(*sizes)).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_onnx_runs_a_model_of_texts_with_the_same_logits(text_model: Any, tmp_path: Path) -> None:
    inputs = texts(*EXAMPLE)
    session = onnx_session(text_model, inputs, text_shapes(inputs), tmp_path)
    for sizes in SIZES:
        inputs = texts(*sizes)
        (logits,) = session.run(["logits"], {name: x.numpy() for name, x in inputs.items()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, text_model(**inputs).logits, rtol=0, atol=1e-4, err_msg=str(sizes))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
def test_a_compiled_model_of_texts_does_not_recompile_for_other_shapes(text_model: Any, backend: str) -> None:
    compiled = torch.compile(text_model, fullgraph=True, dynamic=True, backend=backend)
    for sizes in ((20, 13, 9), (9, 7), (64, 63, 7, 1)):
        with torch.no_grad():
            found, expected = compiled(**texts(*sizes)).logits, text_model(**texts(*sizes)).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
