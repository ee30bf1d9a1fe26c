"""GINE and GPS as baselines: padding, permutations, gradients, what each layer sees, saving."""

import pytest
import torch

from lab.baselines.graphs import GraphBaselineConfig
from modeling_sft.encoder.losses import classification_loss, share_of_step
from modeling_sft.graph.modeling_sft_graph import SFTForGraphClassification
from tiny_models import randomise

pytest.importorskip("torch_geometric")
from lab.baselines.graphs import GINEForGraphClassification, GPSForGraphClassification  # noqa: E402

BASELINES = (GINEForGraphClassification, GPSForGraphClassification)
NODES, EDGES = (13, 5, 1), (31, 0, 2)
FIELDS = {
    "node_vocab_sizes": [5, 3],
    "num_node_features": 2,
    "edge_vocab_sizes": [4],
    "num_edge_features": 1,
    "num_node_encodings": 3,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_labels": 4,
}
WITHOUT_EDGE_FEATURES = {"edge_vocab_sizes": None, "num_edge_features": 0}


def build(cls, training=False, dtype=torch.float64, **changes):
    torch.manual_seed(0)
    return randomise(cls(GraphBaselineConfig(**FIELDS | changes))).to(dtype).train(training)


def graph(num_nodes, num_edges, generator):
    def categories(count, *sizes):
        return torch.stack([torch.randint(size, (count,), generator=generator) for size in sizes], dim=-1).double()

    def numbers(count, width):
        return torch.randn(count, width, generator=generator).double()

    return {
        "node_features": torch.cat([categories(num_nodes, 5, 3), numbers(num_nodes, 2)], dim=-1),
        "edge_index": torch.randint(num_nodes, (2, num_edges), generator=generator),
        "edge_features": torch.cat([categories(num_edges, 4), numbers(num_edges, 1)], dim=-1),
        "node_encodings": numbers(num_nodes, 3),
    }


def graphs(nodes=NODES, edges=EDGES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [graph(*counts, generator) for counts in zip(nodes, edges, strict=True)]


def collate(samples, fill=0):
    """A padded batch; `fill` stands in unused places."""

    def pad(name, length, dim):
        parts = []
        for sample in samples:
            shape = list(sample[name].shape)
            shape[dim] = length - shape[dim]
            parts.append(torch.cat([sample[name], torch.full(shape, fill).to(sample[name])], dim=dim))
        return torch.stack(parts)

    nodes = torch.tensor([len(sample["node_features"]) for sample in samples])
    edges = torch.tensor([sample["edge_index"].shape[1] for sample in samples])
    most_nodes, most_edges = int(nodes.max()), int(edges.max())
    return {
        "node_features": pad("node_features", most_nodes, 0),
        "edge_index": pad("edge_index", most_edges, 1),
        "edge_features": pad("edge_features", most_edges, 0),
        "edge_mask": (torch.arange(most_edges) < edges[:, None]).long(),
        "node_encodings": pad("node_encodings", most_nodes, 0),
        "attention_mask": (torch.arange(most_nodes) < nodes[:, None]).long(),
    }


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def without_edge_features(inputs):
    return {name: value for name, value in inputs.items() if name != "edge_features"}


@pytest.mark.parametrize("cls", BASELINES)
def test_a_batch_equals_its_graphs_alone_whatever_padding_holds(cls):
    model, samples = build(cls), graphs()
    together = logits_of(model, collate(samples))
    assert together.shape == (3, 4) and together.isfinite().all()
    alone = torch.cat([logits_of(model, collate([sample])) for sample in samples])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=0)
    torch.testing.assert_close(logits_of(model, collate(samples, fill=77)), together, atol=0, rtol=0)


@pytest.mark.parametrize("cls", BASELINES)
def test_padding_may_stand_anywhere_and_has_no_part_in_the_statistics_of_batch_norm(cls):
    samples = graphs()
    inputs = collate(samples)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    moved = inputs | {name: inputs[name][:, order] for name in ("node_features", "node_encodings", "attention_mask")}
    moved["edge_index"] = place[inputs["edge_index"]]
    results = []
    for batch in (inputs, moved):
        model = build(cls, training=True)
        logits = model(**batch).logits.detach()
        results.append([logits, *(value for name, value in model.named_buffers() if "running" in name)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("cls", BASELINES)
def test_states_follow_a_permutation_of_nodes_and_edges(cls):
    model, inputs = build(cls), collate(graphs((13,), (31,)))
    generator = torch.Generator().manual_seed(1)
    nodes, edges = torch.randperm(13, generator=generator), torch.randperm(31, generator=generator)
    permuted = {name: inputs[name][:, nodes] for name in ("node_features", "node_encodings")}
    permuted["edge_index"] = nodes.argsort()[inputs["edge_index"][..., edges]]
    permuted["edge_features"] = inputs["edge_features"][:, edges]
    with torch.no_grad():
        expected = model.sft(**inputs).last_hidden_state[:, nodes]
        found = model.sft(**permuted).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(logits_of(model, permuted), logits_of(model, inputs), atol=1e-10, rtol=0)


def test_gine_is_its_formula():
    model, (sample,) = build(GINEForGraphClassification, num_hidden_layers=1), graphs((6,), (11,))
    inputs = collate([sample])
    stack, mask = model.sft.encoder.stack, inputs["attention_mask"].bool()
    with torch.no_grad():
        states = model.sft.embeddings(inputs["node_features"], inputs["node_encodings"], None, mask)[0]
        edge_states = model.sft.encoder.edges(inputs["edge_features"])[0]
        sums = states.clone()
        for edge, (source, target) in enumerate(sample["edge_index"].T.tolist()):
            sums[target] += (states[source] + edge_states[edge]).relu()
        norm = stack.norms[0]
        branch = states + stack.convolutions[0].nn(sums)
        expected = (branch - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(model.sft(**inputs).last_hidden_state[0], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("cls", BASELINES)
def test_only_gps_looks_beyond_the_edges(cls):
    model = build(cls, num_hidden_layers=2)
    inputs = collate(graphs((6,), (0,)))
    inputs["edge_index"] = torch.tensor([[[0, 1, 2], [1, 2, 3]]])
    inputs["edge_features"] = torch.ones(1, 3, 2).double()
    inputs["edge_mask"] = torch.ones(1, 3)
    changed = inputs | {"node_features": inputs["node_features"].clone()}
    changed["node_features"][0, 0, 2:] += 1
    with torch.no_grad():
        difference = model.sft(**changed).last_hidden_state - model.sft(**inputs).last_hidden_state
    moved = (difference[0].abs().amax(1) > 1e-8).tolist()
    expected = [True, True, True, False, False, False] if cls is GINEForGraphClassification else [True] * 6
    assert moved == expected


@pytest.mark.parametrize("cls", BASELINES)
@pytest.mark.parametrize("changes", [{}, WITHOUT_EDGE_FEATURES])
def test_gradient_reaches_all_parameters(cls, changes):
    model = build(cls, training=True, hidden_dropout_prob=0.1, **changes)
    inputs = collate(graphs((13, 5, 9), (31, 3, 20)))
    inputs = without_edge_features(inputs) if changes else inputs
    labels = torch.tensor([3, -100, 1])
    outputs = model(**inputs, labels=labels, num_items_in_batch=8)
    torch.testing.assert_close(
        outputs.loss, share_of_step(classification_loss(outputs.logits, labels, model.config), labels, 8)
    )
    outputs.loss.backward()
    assert not {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not {name for name, parameter in model.named_parameters() if not parameter.grad.any()}


@pytest.mark.parametrize("cls", BASELINES)
def test_regression_on_normalised_targets_is_that_of_sft(cls):
    fields = {"num_labels": 2, "problem_type": "regression", "target_mean": [5.0, -1.0], "target_scale": [2.0, 0.5]}
    model = build(cls, **fields)
    labels = torch.tensor([[5.0, torch.nan], [1.0, 0.0], [2.0, -3.0]]).double()
    outputs = model(**collate(graphs()), labels=labels)
    errors = ((outputs.logits - labels) / torch.tensor(fields["target_scale"])).square()
    torch.testing.assert_close(outputs.loss, errors.nanmean())


@pytest.mark.parametrize("cls", BASELINES)
def test_layers_start_as_their_library_has_them_and_the_readout_as_that_of_sft(cls):
    torch.manual_seed(0)
    model = cls(GraphBaselineConfig(**FIELDS | {"hidden_size": 96, "initializer_range": 0.001}))
    stack = model.sft.encoder.stack
    convolution = stack.convolutions[0] if cls is GINEForGraphClassification else stack.layers[0].conv
    # Uniform up to 1 / sqrt(fan-in).
    assert convolution.nn[0].weight.std().item() == pytest.approx((3 * 96) ** -0.5, rel=0.05)
    assert model.classifier.dense.weight.std().item() == pytest.approx(96**-0.5, rel=0.05)
    # One column of numbers: a fan-in of 1.
    assert model.sft.encoder.edges.proj.weight.std().item() == pytest.approx(1, rel=0.2)
    assert not [name for name, _ in model.named_modules() if "sampler" in name]


@pytest.mark.parametrize("cls", BASELINES)
def test_saved_models_load(cls, tmp_path):
    model, inputs = build(cls, dtype=torch.float32), collate(graphs())
    model.save_pretrained(tmp_path)
    loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(logits_of(loaded, inputs), logits_of(model, inputs), atol=0, rtol=0)


@pytest.mark.parametrize("cls", BASELINES)
def test_bfloat16_autocast_trains(cls):
    model, inputs = build(cls, training=True, dtype=torch.float32), collate(graphs())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(**inputs, labels=torch.tensor([0, 1, 2]))
    outputs.loss.backward()
    exact = build(cls, training=True, dtype=torch.float32)(**inputs).logits
    torch.testing.assert_close(outputs.logits.float(), exact, atol=0.1, rtol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("cls", BASELINES)
def test_inputs_are_checked_as_those_of_sft(cls):
    model, inputs = build(cls), collate(graphs())
    wrong = inputs["edge_index"].clone()
    wrong[1, 0, 0] = 7
    mask = torch.ones_like(inputs["edge_mask"])
    for changes, message in (
        ({"edge_index": wrong, "edge_mask": mask}, "names a padded node"),
        ({"node_encodings": None}, "`node_encodings` does not fit"),
    ):
        for refusing in (model, build(SFTForGraphClassification)):
            with pytest.raises(ValueError, match=message):
                refusing(**inputs | changes)
