"""Prepared graphs, their collator and batches under a budget of nodes."""

import pickle

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modeling_sft.data.batch_samplers import SortedStepBatchSampler, TokenBudgetBatchSampler
from modeling_sft.data.graph.collators import GraphCollator
from modeling_sft.data.graph.datasets import PreparedGraphs
from modeling_sft.data.graph.rows import graph_rows
from modeling_sft.graph.processing import SFTGraphProcessor

SIZES = (5, 1, 3, 17, 2, 7, 4)


def row(num_nodes, seed=0):
    rng = np.random.default_rng((num_nodes, seed))
    return {
        "num_nodes": num_nodes,
        "node_feat": rng.integers(0, 5, (num_nodes, 2)),
        "edge_index": rng.integers(0, num_nodes, (2, 2 * num_nodes)),
        "y": int(rng.integers(0, 3)),
    }


ROWS = [row(size) for size in SIZES]


class CountingProcessor(SFTGraphProcessor):
    """Notes how often it prepares a graph."""

    calls = 0

    def item(self, graph):
        self.calls += 1
        return super().item(graph)


def test_items_are_the_processors_and_made_once():
    processor = CountingProcessor(2, 2)
    data = PreparedGraphs(ROWS, processor)
    for _ in range(2):
        assert data.lengths == list(SIZES) and len(data) == len(SIZES)
        for index in range(-len(SIZES), len(SIZES)):
            expected = SFTGraphProcessor(2, 2).item(ROWS[index])
            assert set(data[index]) == set(expected)
            for name, value in expected.items():
                np.testing.assert_array_equal(data[index][name], value)
    assert processor.calls == len(SIZES)
    data[0].clear()
    assert data[0]
    assert pickle.loads(pickle.dumps(data))[3].keys() == data[3].keys()


def test_rows_of_datasets_know_their_lengths():
    processor = CountingProcessor(1)
    data = PreparedGraphs(graph_rows(ROWS), processor)
    assert data.lengths == list(SIZES) and processor.calls == 0
    for index, graph in enumerate(ROWS):
        np.testing.assert_array_equal(data[index]["node_features"], graph["node_feat"])
        assert data[index]["labels"] == graph["y"]


def test_flips_are_a_function_of_seed_epoch_and_index():
    processor = SFTGraphProcessor(3, 4)
    plain = PreparedGraphs(ROWS, processor)
    data = PreparedGraphs(ROWS, processor, flip_signs=True, seed=1)

    def signs(data, epoch, index):
        data.set_epoch(epoch)
        found, fixed = data[index]["node_encodings"], plain[index]["node_encodings"]
        np.testing.assert_array_equal(found[:, :3], fixed[:, :3])
        np.testing.assert_array_equal(np.abs(found), np.abs(fixed))
        return tuple(np.sign((found * fixed).sum(0)[3:]))

    drawn = {(epoch, index): signs(data, epoch, index) for epoch in range(4) for index in (0, 3, 5)}
    again = PreparedGraphs(ROWS, processor, flip_signs=True, seed=1)
    assert {key: signs(again, *key) for key in reversed(drawn)} == drawn
    for same in (0, 1):
        groups = {key[same] for key in drawn}
        assert all(len({value for key, value in drawn.items() if key[same] == group}) > 1 for group in groups)
    other = PreparedGraphs(ROWS, processor, flip_signs=True, seed=2)
    assert {key: signs(other, *key) for key in drawn} != drawn
    assert all(signs(plain, epoch, 3) == (1, 1, 1, 1) for epoch in range(4))


def test_refusals_name_the_row():
    processor = SFTGraphProcessor()
    with pytest.raises(ValueError, match="Row 1: edge_index must be between 0 and 0"):
        PreparedGraphs([ROWS[0], {**ROWS[1], "edge_index": [[0], [1]]}], processor)[1]
    with pytest.raises(ValueError, match="rows is empty"):
        PreparedGraphs([], processor)
    with pytest.raises(ValueError, match="rows has no length"):
        PreparedGraphs(iter(ROWS), processor)
    with pytest.raises(ValueError, match="seed must be"):
        PreparedGraphs(ROWS, processor, seed=-1)
    with pytest.raises(ValueError, match="epoch must be"):
        PreparedGraphs(ROWS, processor).set_epoch(-1)
    with pytest.raises(IndexError, match="7 is out of range for 7 graphs"):
        PreparedGraphs(ROWS, processor)[7]


def test_the_collator_pads_as_the_processor():
    processor = SFTGraphProcessor(2)
    data = PreparedGraphs(ROWS, processor)
    batch = GraphCollator(processor)([data[0], data[3]])
    expected = processor([ROWS[0], ROWS[3]])
    assert type(batch) is dict and set(batch) == set(expected)
    assert all(torch.equal(batch[name], value) for name, value in expected.items())


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    slack=st.sampled_from([0, 1, 30, 100, 5000]),
    max_rows=st.sampled_from([None, 1, 3, 16]),
    shuffle=st.booleans(),
    seed=st.integers(0, 50),
)
def test_batches_keep_the_budget_and_hold_every_graph_once(lengths, slack, max_rows, shuffle, seed):
    budget = max(lengths) + slack
    sampler = TokenBudgetBatchSampler(lengths, budget, max_rows, shuffle, seed)
    fewest = len(TokenBudgetBatchSampler(lengths, budget, max_rows, False))
    for epoch in range(4):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert all(batch and len(batch) * max(lengths[index] for index in batch) <= budget for batch in batches)
        assert all(len(batch) <= (max_rows or len(lengths)) for batch in batches)
        assert len(batches) == len(sampler) <= fewest + shuffle
        ranges = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in batches)
        assert all(before[1] <= after[0] for before, after in zip(ranges, ranges[1:]))
        assert batches == list(sampler)


def test_order_and_batches_change_with_the_epoch_and_the_seed():
    lengths = np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()

    def batches(epoch, seed=0):
        sampler = TokenBudgetBatchSampler(lengths, 500, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(3) == batches(3)
    orders = [batches(epoch) for epoch in range(6)]
    sets = [{frozenset(batch) for batch in order} for order in orders]
    # All sizes differ, so that other batches come from other cuts alone.
    assert len({frozenset(each) for each in sets}) > 3
    largest = [max(lengths[index] for index in batch) for batch in orders[0]]
    assert largest != sorted(largest) and largest != sorted(largest, reverse=True)
    assert batches(0, seed=1) != orders[0]
    ties = TokenBudgetBatchSampler([4] * 40, 20)
    assert sorted(map(sorted, ties)) != [list(range(start, start + 5)) for start in range(0, 40, 5)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    batch_size=st.integers(1, 7),
    batches_per_step=st.integers(1, 6),
    seed=st.integers(0, 50),
)
def test_steps_are_sorted_within_and_hold_every_graph_once(lengths, batch_size, batches_per_step, seed):
    sampler = SortedStepBatchSampler(lengths, batch_size, batches_per_step, seed)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert batches == list(sampler) and len(batches) == len(sampler) and all(batches)
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        steps = [batches[start : start + batches_per_step] for start in range(0, len(batches), batches_per_step)]
        for step in steps:
            sizes = [lengths[index] for batch in step for index in batch]
            assert sizes == sorted(sizes)
        assert all(len(batch) == batch_size for step in steps[:-1] for batch in step)
        rows = [len(batch) for batch in steps[-1]]
        assert max(rows) <= batch_size and max(rows) - min(rows) <= 1
        # A last step of fewer batches would weigh its rows as one of all batches.
        assert len(steps[-1]) == min(batches_per_step, sum(rows))


def test_steps_are_random_sets_that_change_with_the_epoch_and_the_seed():
    def steps(epoch, seed=0):
        sampler = SortedStepBatchSampler(list(range(1, 121)), 5, 4, seed)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        return [[index for batch in batches[start : start + 4] for index in batch] for start in range(0, 24, 4)]

    assert steps(1) == steps(1) and steps(1) != steps(2) and steps(1) != steps(1, seed=1)
    # Random sets of 20 of 120 lengths reach far; sets of similar lengths would not.
    assert all(max(step) - min(step) > 60 for epoch in range(5) for step in steps(epoch))


def test_loaders_deal_out_the_batches_of_an_epoch():
    processor = SFTGraphProcessor(2, 1)
    rows = [row(size, seed) for seed in range(5) for size in SIZES]
    data = PreparedGraphs(rows, processor, flip_signs=True)
    collator = GraphCollator(processor)

    def loader(num_processes, process):
        sampler = TokenBudgetBatchSampler(data.lengths, 40, seed=3)
        plain = DataLoader(data, batch_sampler=sampler, collate_fn=collator)
        prepared = prepare_data_loader(plain, num_processes=num_processes, process_index=process, put_on_device=False)
        return sampler, prepared

    sampler, single = loader(1, 0)
    single.set_epoch(2)
    assert sampler.epoch == 2 and data.epoch == 2
    shapes = [tuple(batch["node_features"].shape) for batch in single]
    assert len(shapes) == len(single) == len(sampler) and all(shape[0] * shape[1] <= 40 for shape in shapes)
    assert sum(shape[0] for shape in shapes) == len(rows)
    dealt = []
    for process in range(2):
        sampler, shard = loader(2, process)
        sampler.set_epoch(2)
        dealt.append([tuple(batch["node_features"].shape) for batch in shard])
        assert len(dealt[-1]) == len(shard)
    assert len(dealt[0]) == len(dealt[1]) == -(-len(shapes) // 2)
    merged = [shape for pair in zip(*dealt) for shape in pair]
    assert merged[: len(shapes)] == shapes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 10), "lengths must be a list"),
        (([3, 0], 10), "lengths must be a list"),
        (([3, 11], 10), "max_tokens is 10 and row 1 has 11 tokens"),
        (([3], 10, 0), "max_rows must be an integer of at least 1"),
        (([3], 10, None, True, -1), "seed must be"),
    ],
)
def test_bad_budgets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenBudgetBatchSampler(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 2, 2), "lengths must be a list"),
        (([3], 0, 2), "batch_size must be an integer of at least 1; got 0"),
        (([3], 2, 0), "batches_per_step must be an integer of at least 1; got 0"),
        (([3], 2, 2, -1), "seed must be"),
    ],
)
def test_bad_steps_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SortedStepBatchSampler(*arguments)
