"""Embeddings and counts of neighbourhoods, against loops over the tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from configurations import tiny_sequence_config
from modeling_sft import SFTForSequenceClassification
from modeling_sft.encoder.context_hashes import ContextHashes, SFTContextCounts, SFTContextEmbedding
from modeling_sft.nn.hashing import buckets, with_rank

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def build(cls: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    module = cls(tiny_sequence_config(context_hash_sizes=[1, 2], **changes)).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def draw(length: int = 60, rows: int = 3) -> ContextHashes:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(-3, 4, (rows, length, 2), generator=generator)
    present, counted = (torch.rand(rows, length, 2, generator=generator) < 0.8 for _ in range(2))
    return ContextHashes(ids, present, present & counted)


def table_row(module: Any, ids: Tensor, kind: int) -> int:
    return kind * module.num_buckets + int(buckets(ids, module.num_buckets))


def test_a_token_gets_the_sum_of_its_rows() -> None:
    module, hashes = build(SFTContextEmbedding), draw()
    states = torch.zeros(3, 60, module.table.embedding_dim, dtype=torch.float64)
    for row, place, kind in hashes.present.nonzero().tolist():
        states[row, place] += module.table.weight[table_row(module, hashes.ids[row, place, kind], kind)]
    torch.testing.assert_close(module(hashes), module.proj(states / 2**0.5), rtol=0, atol=1e-12)


def test_occurrences_add_rows_step_by_step() -> None:
    module, hashes = build(SFTContextCounts), draw()
    found = module(hashes)
    for row in range(3):
        total, steps = torch.zeros_like(found[row]), 0
        for kind in range(2):
            counts = Counter(hashes.ids[row, hashes.counted[row, :, kind], kind].tolist())
            for number, count in counts.items():
                for step in STEPS:
                    if step <= count:
                        ids = with_rank(torch.tensor(number), torch.tensor(step))
                        total += module.weight[table_row(module, ids, kind)]
                        steps += 1
        torch.testing.assert_close(found[row], total / steps**0.5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [SFTContextEmbedding, SFTContextCounts])
def test_dropout_is_for_training_and_keeps_the_mean(cls: Any) -> None:
    module, hashes = build(cls, context_hash_dropout=0.3), draw()
    expected = module(hashes)
    assert torch.equal(module(hashes), expected)
    module.train()
    many = torch.stack([module(hashes) for _ in range(800)])
    assert not torch.equal(many[0], many[1])
    # Means of 800 draws, in units of their standard errors.
    errors = (many.mean(0) - expected) / (many.std(0) / 800**0.5 + 1e-9)
    assert errors.abs().max() < 6


def test_counts_are_normed_by_the_batch_where_tokens_are() -> None:
    module, hashes = build(SFTContextCounts, norm_type="batch").train(), draw(rows=40)
    with torch.no_grad():
        module.norm.weight.fill_(1)
        found = module(hashes)
        module.weight *= 1000
        torch.testing.assert_close(module(hashes), found, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("norm_type", ["layer", "rms"])
def test_otherwise_counts_grow_with_the_root_of_what_is_counted(norm_type: str) -> None:
    module, hashes = build(SFTContextCounts, norm_type=norm_type), draw()
    with torch.no_grad():
        module.weight.fill_(2.0)
        # Each id once: as many terms as are counted.
        distinct = torch.arange(hashes.ids.numel()).view_as(hashes.ids)
        expected = 2 * hashes.counted.sum((1, 2)).sqrt()[:, None].expand(-1, module.weight.shape[1])
        torch.testing.assert_close(module(hashes._replace(ids=distinct)), expected.to(module.weight.dtype))
        nothing = hashes._replace(counted=torch.zeros_like(hashes.counted))
        assert torch.equal(module(nothing), torch.zeros_like(expected).to(module.weight.dtype))


def test_counts_start_close_to_zero() -> None:
    torch.manual_seed(0)
    model = SFTForSequenceClassification(tiny_sequence_config(context_hash_sizes=[1, 2]))
    assert 0.0008 < model.classifier.counts.weight.std() < 0.0012
