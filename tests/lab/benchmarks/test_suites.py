import pickle
from dataclasses import replace

import pytest
import torch

from allocations import AllocationRecorder
from benchmark_cases import TINY, workload
from lab.baselines import point_clouds as baselines
from lab.baselines.point_clouds import knn_edges
from lab.benchmarks import SUITES
from lab.benchmarks.measure import MODES, Step
from lab.benchmarks.peers_tokens import build_longformer, build_nystromformer, build_perceiver
from lab.benchmarks.sft_modules import SFTProjections, SFTSingleLayer, backends_used
from modeling_sft.attention.attention import SFTAttention
from modeling_sft.point_cloud.processing import nearest_neighbors

LENGTHS = {
    "tokens": 128,
    "point_clouds": 33,
    "scenes": 33,
    "graphs": 9,
    "large_graphs": 33,
    "attention": 63,
    "layer": 63,
    "kernels": 63,
}
EXPECTED_BACKENDS = {"eager": "eager", "compiled": "sft_compiled", "sdpa": "sdpa"}
# Compiling takes long: two cases stand for the others in the slow tier.
SLOW = {"attention-sft_compiled", "layer-layer_relation_compiled"}


def runs_triton(suite_name, name):
    return "triton" in name or (suite_name == "kernels" and name not in ("copy", "sdpa_64"))


EVERY_CASE = [
    pytest.param(
        suite.name,
        name,
        marks=[
            *(
                [pytest.mark.slow if f"{suite.name}-{name}" in SLOW else pytest.mark.full]
                if "compiled" in name
                else []
            ),
            *([pytest.mark.slow] if runs_triton(suite.name, name) else []),
        ],
    )
    for suite in SUITES.values()
    for name in suite.cases
]


def made_step(suite_name, name, mode="inference", length=None, **changes):
    suite = SUITES[suite_name]
    length = length or (768 if name == "bigbird" else LENGTHS[suite_name])
    size = replace(TINY, num_sampled_tokens=16)
    tiny = workload(length, size=size, **changes)
    return Step(suite.cases[name], tiny, mode, suite.inputs(tiny))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("suite_name", "name"), EVERY_CASE)
def test_every_case_runs(suite_name, name, mode):
    if name == "kd_tree" and mode == "training":
        pytest.skip("a search has no weights")
    torch.compiler.reset()  # a process may compile a function for eight kinds of arguments
    step = made_step(suite_name, name, mode)
    step.checked()
    if SUITES[suite_name].cases[name].is_sft:
        default = "sft_triton" if runs_triton(suite_name, name) else "sft_fused"
        expected = [backend for word, backend in EXPECTED_BACKENDS.items() if word in name] or [default]
        assert backends_used(step.module) == expected[0]
    else:
        assert backends_used(step.module) == ""


@pytest.mark.parametrize("suite_name", SUITES)
def test_suites_are_consistent(suite_name):
    suite = SUITES[suite_name]
    assert suite.reference in suite.default_models
    assert set(suite.default_models) <= set(suite.cases)
    assert len({case.label for case in suite.cases.values()}) == len(suite.cases)
    assert all({goal.case, goal.other} <= set(suite.default_models) for goal in suite.goals)
    # They travel to child processes.
    pickle.dumps([suite.inputs, *suite.cases.values()])


@pytest.mark.parametrize("suite_name", SUITES)
def test_inputs_depend_on_the_seed_alone(suite_name):
    first, again, other = (SUITES[suite_name].inputs(workload(LENGTHS[suite_name], seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    if suite_name not in ("attention", "kernels"):
        assert not all(torch.equal(first[name], other[name]) for name in first)


def test_sequence_models_have_equal_width_and_depth():
    for name, case in SUITES["tokens"].cases.items():
        step = made_step("tokens", name)
        if case.is_sft:
            layers = len(step.module.model.encoder.layers)
        else:
            config = step.module.model.config
            layers = config.num_self_attends_per_block if name == "perceiver" else config.num_hidden_layers
            width = config.d_latents if name == "perceiver" else config.hidden_size
            assert width == TINY.hidden_size
        assert layers == TINY.num_hidden_layers


@pytest.mark.parametrize("build", [build_longformer, build_nystromformer, build_perceiver])
def test_an_encoder_called_without_masks_agrees_with_its_whole_model(build):
    torch.manual_seed(0)
    tiny = workload(192)
    module = build(tiny).eval()
    states = torch.randn(2, 192, TINY.hidden_size)
    argument = {"inputs" if build is build_perceiver else "inputs_embeds": states}
    with torch.no_grad():
        whole, own = module.model(**argument).last_hidden_state, module(states)
    assert own.shape == whole.shape
    assert torch.allclose(own, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "length", "words"), [("bigbird", 704, "704"), ("nystromformer", 130, "multiple of 64")]
)
def test_lengths_that_would_change_a_model_are_refused(name, length, words):
    with pytest.raises(ValueError, match=words):
        made_step("tokens", name, length=length)


@pytest.mark.parametrize("name", ["sft", "sft_dot", "nystromformer", "longformer", "fnet", "perceiver"])
def test_models_of_linear_cost_allocate_linearly(name):
    largest = []
    for length in (1024, 2048):
        step = made_step("tokens", name, "training", length)
        with AllocationRecorder() as recorder:
            step()
        largest.append(recorder.largest)
    # Longformer has 3 and 7 overlapping chunks.
    assert largest[1] <= 7 / 3 * largest[0]


def test_no_model_remembers_dropout():
    for name in ("bert", "modernbert", "nystromformer", "longformer", "fnet", "perceiver"):
        step = made_step("tokens", name, "training")
        assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True)), name


@pytest.mark.parametrize("block", [1, 60, 2**22])
def test_neighbours_are_the_nearest_points_of_the_own_cloud(block, monkeypatch):
    monkeypatch.setattr(baselines, "KNN_BLOCK_ELEMENTS", block)
    points = torch.randn(2, 13, 3, generator=torch.Generator().manual_seed(0))
    sources, targets = knn_edges(points, 4)
    assert torch.equal(targets, torch.arange(26).repeat_interleave(4))
    for cloud in range(2):
        # All neighbours but the point itself.
        expected = nearest_neighbors(points[cloud].double().numpy(), 3)
        found = sources.view(2, 13, 4)[cloud].numpy() - 13 * cloud
        assert [set(row) for row in found] == [{i, *row} for i, row in enumerate(expected.tolist())]


def test_sft_finds_the_neighbours_that_it_would_be_given():
    given, searching = made_step("point_clouds", "sft"), made_step("point_clouds", "sft_search")
    searching.inputs = {**given.inputs, "neighbor_index": torch.zeros_like(given.inputs["neighbor_index"])}
    assert torch.equal(given()[0], searching()[0])


def test_scenes_time_the_search_apart_from_the_model():
    search, model = made_step("scenes", "kd_tree"), made_step("scenes", "sft")
    neighbors = model.inputs["neighbor_index"]
    search.inputs = {**search.inputs, "neighbor_index": torch.zeros_like(neighbors)}
    assert torch.equal(search()[0], neighbors)
    model.inputs = {**model.inputs, "neighbor_index": torch.zeros_like(neighbors)}
    assert not torch.equal(model()[0], made_step("scenes", "sft")()[0])


def test_edge_convolutions_take_neighbours_in_feature_space(monkeypatch):
    spaces = []
    monkeypatch.setattr(baselines, "knn_edges", lambda x, k: spaces.append(x.shape) or knn_edges(x, k))
    made_step("point_clouds", "dgcnn_published")()
    assert spaces == [(2, 33, width) for width in (3, 64, 64, 128)]


@pytest.mark.parametrize(("suite_name", "degree"), [("graphs", 4), ("large_graphs", 10)])
def test_random_graphs_are_connected_and_have_both_directions(suite_name, degree):
    inputs = SUITES[suite_name].inputs(workload(9, batch_size=3))
    assert inputs["edge_index"].shape == (3, 2, degree * 9) and inputs["edge_features"].shape[1] == degree * 9
    adjacency = torch.zeros(3, 9, 9)
    for graph, (sources, targets) in enumerate(inputs["edge_index"]):
        adjacency[graph].index_put_((sources, targets), torch.ones(()), accumulate=True)
    assert torch.equal(adjacency, adjacency.mT)
    assert adjacency.sum() == 3 * degree * 9
    assert (torch.linalg.matrix_power(adjacency, 9) + torch.linalg.matrix_power(adjacency, 8) > 0).all()
    # The graphs differ.
    assert not torch.equal(adjacency[0], adjacency[1])


@pytest.mark.parametrize("name", ["sft", "gine", "gps"])
def test_graphs_of_a_batch_do_not_touch(name):
    step = made_step("graphs", name)
    before = step()[0]
    features = step.inputs["node_features"].clone()
    features[1] += 1
    step.inputs = {**step.inputs, "node_features": features}
    moved = (step()[0] - before).abs().amax(1)
    assert moved[0] < 1e-5 < moved[1]


@pytest.mark.parametrize("name", ["sft", "gine", "gps"])
def test_models_of_graphs_read_features_and_ends_of_edges(name):
    for key in ("edge_features", "edge_index"):
        step = made_step("graphs", name)
        before = step()[0]
        step.inputs = {**step.inputs, key: step.inputs[key].roll(1, dims=-2)}
        if key == "edge_index":
            step.inputs[key] = step.inputs[key].clone()
            step.inputs[key][:, 1] = (step.inputs[key][:, 1] + 3) % 9
        assert not torch.allclose(step()[0], before, atol=1e-5)


def test_models_of_one_large_graph_allocate_linearly():
    for name in ("sft", "gine"):
        largest = []
        for length in (2048, 4096):
            step = made_step("large_graphs", name, length=length, batch_size=1)
            with AllocationRecorder() as recorder:
                step()
            largest.append(recorder.largest)
        assert largest[1] <= 2 * largest[0]


def test_projections_are_all_the_linear_maps_of_a_layer():
    tiny = workload(63)
    layer, projections = SFTSingleLayer(tiny, "eager", relation=False), SFTProjections(tiny)

    def linear_shapes(module):
        return sorted(tuple(part.weight.shape) for part in module.modules() if isinstance(part, torch.nn.Linear))

    assert linear_shapes(projections) == linear_shapes(layer)


def test_only_the_layer_with_relation_looks_at_the_points():
    changed = {}
    for name in ("layer", "layer_relation"):
        step = made_step("layer", name)
        attention = next(part for part in step.module.modules() if isinstance(part, SFTAttention))
        if attention.relation is not None:
            torch.nn.init.normal_(attention.relation.scale_weight)
        before = step()[0]
        step.inputs = {**step.inputs, "points": step.inputs["points"].flip(1)}
        changed[name] = not torch.allclose(before, step()[0])
    assert changed == {"layer": False, "layer_relation": True}
