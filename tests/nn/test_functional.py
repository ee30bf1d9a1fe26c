"""Sums over tokens do not depend on their order, to the last bit."""

from __future__ import annotations

import torch

from modeling_sft.nn.functional import SUMMED_AT_ONCE, sum_tokens


def test_the_order_of_tokens_changes_no_bit_of_a_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, SUMMED_AT_ONCE + 100, 3, generator=generator)
    order = torch.randperm(tokens.shape[1], generator=generator)
    found = sum_tokens(tokens)
    assert torch.equal(sum_tokens(tokens[:, order]), found)
    torch.testing.assert_close(found, tokens.double().sum(1, keepdim=True).float(), rtol=0, atol=0)
    # In single precision it does.
    assert not torch.equal(tokens[:, order].sum(1), tokens.sum(1))
