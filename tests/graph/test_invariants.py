"""What must hold for the graph models whatever the configuration: padding, order, K, determinism, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configurations import GRAPH_COVERING, name_of, parametrize_graph_configurations
from layers import assert_same_sample
from modeling_sft import (
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForNodeClassification,
    SFTGraphModel,
)
from random_graphs import Batch, Graph, pad, permute, random_graph, random_graphs, without_edge_features
from tiny_models import build_graph, give_all_tokens_one_score

HEADS = (SFTForGraphClassification, SFTForNodeClassification, SFTForLinkPrediction)
ESTIMATORS = ("gate", "soft", "straight_through")
GARBAGE = 10**6


def _heads_and_configurations() -> list[Any]:
    """Every head and every configuration: in the fast tier each configuration with one head, in the full tier all."""
    parameters = []
    for row, choice in enumerate(GRAPH_COVERING):
        for column, cls in enumerate(HEADS):
            marks = () if row % len(HEADS) == column else (pytest.mark.full,)
            parameters.append(pytest.param(cls, choice, id=f"{cls.__name__}-{name_of(choice)}", marks=marks))
    return parameters


heads_and_configurations = pytest.mark.parametrize(("cls", "choice"), _heads_and_configurations())
every_head = pytest.mark.parametrize("cls", HEADS, ids=lambda cls: cls.__name__)


def fitting(model: nn.Module, batch: Batch) -> Batch:
    """What the model takes of a batch: features of edges where it has them, and pairs of nodes to score."""
    batch = batch if model.config.has_edge_features else without_edge_features(batch)
    if isinstance(model, SFTForLinkPrediction):
        first = torch.zeros(len(batch["node_features"]), 3, dtype=torch.long)
        last = batch["attention_mask"].sum(1, keepdim=True).expand(-1, 3) - 1
        pairs = torch.stack([first, torch.minimum(torch.arange(3), last)], dim=-1)
        batch = batch | {"node_pairs": pairs}
    return batch


def states(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(**fitting(model, batch)).last_hidden_state


def predictions(model: nn.Module, batch: Batch) -> list[Tensor]:
    """What a model says of each graph, padding left out."""
    with torch.no_grad():
        output = model(**fitting(model, batch))
    values = output.last_hidden_state if isinstance(model, SFTGraphModel) else output.logits
    if isinstance(model, SFTForGraphClassification | SFTForLinkPrediction):
        return list(values)
    return [row[real] for row, real in zip(values, batch["attention_mask"].bool(), strict=True)]


def sampled(model: nn.Module, batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        return list(model(**fitting(model, batch), output_sampled_tokens=True).sampled_tokens)


def labels_of(cls: type, batch: Batch) -> Batch:
    nodes, count = batch["attention_mask"], len(batch["attention_mask"])
    if cls is SFTForNodeClassification:
        return {"labels": torch.arange(nodes.numel()).view_as(nodes) % 5}
    return {
        "labels": torch.arange(count) % 5 if cls is SFTForGraphClassification else torch.tensor([[1, 0, -100]] * count)
    }


def graphs_of(sizes: tuple[int, ...]) -> list[Graph]:
    return [random_graph(size, seed=size) for size in sizes]


# 1. Padding


@heads_and_configurations
def test_padding_does_not_change_a_graph(cls: type, choice: dict[str, Any]) -> None:
    model = build_graph(cls, **choice)
    graphs = [*graphs_of((17, 9, 5, 1)), random_graph(7, seed=1, edges=0)]
    alone = [predictions(model, pad([graph], len(graph["node_features"])))[0] for graph in graphs]
    for length, edges in ((17, 34), (23, 51)):
        for filler in (0, GARBAGE, -1):
            found = predictions(model, pad(graphs, length, edges, filler))
            for row, expected in enumerate(alone):
                torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-9, msg=f"{length} {filler} {row}")


@parametrize_graph_configurations(full=False)
def test_padding_does_not_change_the_sample(choice: dict[str, Any]) -> None:
    model, graphs = build_graph(SFTGraphModel, **choice), graphs_of((17, 9, 1))
    together = sampled(model, pad(graphs, 20, filler=GARBAGE))
    for row, graph in enumerate(graphs):
        size = len(graph["node_features"])
        for one, many in zip(sampled(model, pad([graph], size)), together, strict=True):
            found = torch.where(many[row] >= 20, many[row] - 20 + size, many[row])
            assert_same_sample(one[0], found)


@every_head
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_padding_does_not_change_training_without_noise(cls: type, estimator: str) -> None:
    # Enough slots for all nodes: partners, which are drawn, would differ otherwise.
    fields = {"sampling_estimator": estimator, "num_sampled_tokens": 7 if estimator == "gate" else 17}
    results = []
    for length, edges in ((17, 34), (29, 40)):
        model = build_graph(cls, training=True, norm_type="batch", sampling_noise=0.0, **fields)
        batch = pad(graphs_of((17, 9, 5)), length, edges, filler=GARBAGE)
        labels = labels_of(cls, batch)
        if cls is SFTForNodeClassification:
            labels = {"labels": (torch.arange(length) % 5).expand(3, -1)}
        loss = model(**fitting(model, batch), **labels).loss
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((loss.detach(), gradients, dict(model.named_buffers())))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


# 2. Order


@parametrize_graph_configurations()
@pytest.mark.parametrize("ties", [False, True])
def test_permuted_nodes_and_edges_permute_the_states(choice: dict[str, Any], ties: bool) -> None:
    model, graph = build_graph(SFTGraphModel, **choice), random_graph(23, seed=0)
    if ties:
        give_all_tokens_one_score(model)
    generator = torch.Generator().manual_seed(0)
    order, edge_order = torch.randperm(23, generator=generator), torch.randperm(46, generator=generator)
    found = states(model, pad([permute(graph, order, edge_order)], 23))
    torch.testing.assert_close(found, states(model, pad([graph], 23))[:, order], rtol=0, atol=1e-9)


# 3. Edges

ATTENTION_ONLY, MESSAGES_ONLY = {"local_mixing": False}, {"relation": False}


@pytest.mark.parametrize("choice", [{}, ATTENTION_ONLY, MESSAGES_ONLY], ids=str)
@pytest.mark.parametrize("features", [(4, 3), None], ids=["features", "plain"])
def test_edges_count_in_their_direction_as_often_as_they_stand_there(choice: dict[str, Any], features: Any) -> None:
    model = build_graph(SFTGraphModel, **choice, edge_vocab_sizes=features, num_sampled_tokens=9)
    graph = random_graph(9, seed=0, edges=1) | {"edge_index": torch.tensor([[2], [5]])}
    expected = states(model, pad([graph], 9))

    def change(edge_index: list[list[int]]) -> float:
        other = graph | {
            "edge_index": torch.tensor(edge_index).mT.reshape(2, -1),
            "edge_features": graph["edge_features"].expand(len(edge_index), -1),
        }
        return float((states(model, pad([other], 9)) - expected).abs().max())

    assert change([[2, 5]]) == 0
    for edges in ([[5, 2]], [[2, 5], [2, 5]], [[2, 5], [5, 2]], [[2, 5], [3, 3]], [[2, 4]]):
        assert change(edges) > 1e-4, edges


@pytest.mark.parametrize("choice", [{}, ATTENTION_ONLY, MESSAGES_ONLY], ids=str)
def test_missing_edges_equal_none(choice: dict[str, Any]) -> None:
    model, graph = build_graph(SFTGraphModel, **choice), random_graph(9, seed=0, edges=0)
    batch = pad([graph], 9)
    expected = states(model, batch)
    few = {name: value for name, value in batch.items() if not name.startswith("edge")}
    torch.testing.assert_close(states(model, few), expected, rtol=0, atol=0)
    masked = pad([random_graph(9, seed=0, edges=12)], 9)
    masked["edge_mask"] = torch.zeros_like(masked["edge_mask"])
    masked |= {name: graph[name][None] for name in ("node_features", "node_encodings")}
    torch.testing.assert_close(states(model, masked), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("choice", [ATTENTION_ONLY, MESSAGES_ONLY], ids=str)
def test_features_of_edges_matter_and_have_gradients(choice: dict[str, Any]) -> None:
    model, batch = build_graph(SFTGraphModel, **choice, num_sampled_tokens=9), random_graphs([9, 7])
    other = batch | {"edge_features": (batch["edge_features"] + 1) % 3}
    assert (states(model, other) - states(model, batch)).abs().max() > 1e-4
    model(**batch).last_hidden_state.square().sum().backward()
    for name, parameter in model.named_parameters():
        if "edges" in name or "relation" in name:
            assert (parameter.grad.abs() > 0).any(), name


# 4. Sample size


@parametrize_graph_configurations()
def test_as_many_slots_as_nodes_means_attention_to_every_node(choice: dict[str, Any]) -> None:
    extra, batch = choice["num_extra_tokens"], random_graphs([17, 9], length=20)
    mask = batch["attention_mask"].bool()
    model = build_graph(SFTGraphModel, **choice, num_sampled_tokens=20 + extra)
    for chosen in sampled(model, batch):
        for row, size in ((0, 17), (1, 9)):
            expected = [*range(size), *range(20, 20 + extra)]
            assert all(sorted(t for t in one if t >= 0) == expected for one in chosen[row].tolist())
    full = states(model.eval(), batch)[mask]
    model.set_num_sampled_tokens(40)
    torch.testing.assert_close(states(model, batch)[mask], full, rtol=0, atol=1e-10)
    model.set_num_sampled_tokens(5)
    assert (states(model, batch)[mask] - full).abs().max() > 1e-6


# 5. Determinism


@heads_and_configurations
def test_evaluation_is_deterministic_and_training_reproducible_under_a_seed(cls: type, choice: dict[str, Any]) -> None:
    batch, model = random_graphs([31, 17]), build_graph(cls, **choice)
    assert all(map(torch.equal, predictions(model, batch), predictions(model, batch)))

    def train_step(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        again = build_graph(cls, **choice, training=True)
        torch.manual_seed(seed)
        loss = again(**fitting(again, batch), **labels_of(cls, batch)).loss
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in again.named_parameters() if p.grad is not None}

    (loss, gradients), (same_loss, same_gradients) = train_step(0), train_step(0)
    assert torch.equal(loss, same_loss)
    torch.testing.assert_close(gradients, same_gradients, rtol=0, atol=0)


# 7. Gradients and extremes


def gradients_by_name(model: nn.Module, batch: Batch) -> dict[str, float]:
    """Largest absolute gradient of each parameter, -1 without one."""
    model.zero_grad(set_to_none=True)
    model(**fitting(model, batch), **labels_of(type(model), batch)).loss.backward()
    return {name: -1.0 if p.grad is None else float(p.grad.abs().max()) for name, p in model.named_parameters()}


@heads_and_configurations
def test_gradient_reaches_every_parameter(cls: type, choice: dict[str, Any]) -> None:
    # The first graph is taken whole, extra tokens included; the others leave partners over.
    model = build_graph(cls, **choice, training=True, num_sampled_tokens=19)
    torch.manual_seed(0)
    for name, gradient in gradients_by_name(model, random_graphs([17, 23, 30])).items():
        # A batch norm takes away whatever is constant over nodes.
        vanishes = choice["norm_type"] == "batch" and name.endswith("bias")
        assert gradient > (-1 if vanishes else 1e-9), name


@every_head
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_after_one_step_from_the_start_gradient_reaches_every_parameter(cls: type, estimator: str) -> None:
    torch.manual_seed(0)
    fields = {"residual_scale_init": 0.0, "num_extra_tokens": 2, "num_sampled_tokens": 12}
    config = build_graph(cls, sampling_estimator=estimator, **fields).config
    model = cls(config).double().train()
    batch = random_graphs([17, 23, 20])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    first = gradients_by_name(model, batch)
    assert min(first.values()) >= 0, "every parameter belongs to the graph"
    optimiser.step()
    second = gradients_by_name(model, batch)
    assert {name for name, value in second.items() if value <= 0} == set()


@heads_and_configurations
def test_one_node_graphs_and_extreme_scores_are_finite(cls: type, choice: dict[str, Any]) -> None:
    model = build_graph(cls, dtype=torch.float32, **choice)
    lonely = pad([random_graph(1, 0, edges=0), random_graph(4, 1, edges=0)], 4)
    for scale in (1.0, 100.0):
        with torch.no_grad():
            for module in model.modules():
                if hasattr(module, "q_proj"):
                    module.q_proj.weight.mul_(scale)
                    module.sampler.weight.mul_(scale)
                    if module.relation is not None:
                        module.relation.bias_weight.mul_(scale)
        for batch in (random_graphs([1, 1]), random_graphs([20, 3]), lonely):
            assert all(row.isfinite().all() for row in predictions(model.eval(), batch))
            assert all(0 <= value < torch.inf for value in gradients_by_name(model.train(), batch).values())
