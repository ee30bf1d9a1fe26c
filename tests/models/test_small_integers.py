"""Indices, categories and labels may be integers of any size, as files and NumPy give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modeling_sft import (
    SFTForGraphClassification,
    SFTForLinkPrediction,
    SFTForMaskedLM,
    SFTForNodeClassification,
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTForQuestionAnswering,
    SFTForSequenceClassification,
    SFTForSequencePairClassification,
    SFTForTokenClassification,
)
from random_clouds import random_batch
from tiny_models import build, build_graph, build_sequence

MASK = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
IDS = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 0, 0]])
TOKENS = {
    "input_ids": IDS,
    "attention_mask": MASK,
    "position_ids": torch.arange(6).repeat(2, 1),
    "token_type_ids": IDS % 2,
}
PAIRS = {"input_ids": IDS, "attention_mask": MASK, "pair_input_ids": IDS[:, :4]}
GRAPHS = {
    "node_features": IDS[..., None] % torch.tensor([5, 3]),
    "edge_index": torch.tensor([[[0, 1, 2], [1, 2, 3]], [[3, 2, 1], [2, 1, 0]]]),
    "edge_features": torch.tensor([[[0, 1], [3, 2], [1, 0]]] * 2),
    "attention_mask": MASK,
}
CLOUDS = random_batch([6, 4], dtype=torch.float32) | {"category": torch.tensor([0, 2])}
NUMBERS = {"num_node_features": 0, "num_node_encodings": 0}
CASES: dict[Any, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    SFTForSequenceClassification: (build_sequence, {}, TOKENS | {"labels": torch.tensor([1, 2])}),
    SFTForTokenClassification: (build_sequence, {}, TOKENS | {"labels": IDS % 5}),
    SFTForMaskedLM: (build_sequence, {"position_embedding": "learned"}, TOKENS | {"labels": IDS}),
    SFTForQuestionAnswering: (
        *(build_sequence, {}),
        TOKENS | {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 2])},
    ),
    SFTForSequencePairClassification: (build_sequence, {}, PAIRS | {"labels": torch.tensor([1, 2])}),
    SFTForGraphClassification: (build_graph, NUMBERS, GRAPHS | {"labels": torch.tensor([1, 2])}),
    SFTForNodeClassification: (build_graph, NUMBERS, GRAPHS | {"labels": IDS % 5}),
    SFTForLinkPrediction: (
        *(build_graph, NUMBERS),
        GRAPHS | {"node_pairs": torch.tensor([[[0, 1], [2, 3]]] * 2), "labels": torch.tensor([[0, 1]] * 2)},
    ),
    SFTForPointCloudClassification: (build, {"num_categories": 3}, CLOUDS | {"labels": torch.tensor([1, 2])}),
    SFTForPointCloudSegmentation: (build, {"num_categories": 3}, CLOUDS | {"labels": IDS % 5}),
}


@pytest.mark.parametrize("cls", CASES, ids=lambda cls: cls.__name__)
def test_integers_of_any_size_are_alike(cls: Any) -> None:
    make, changes, batch = CASES[cls]
    model = make(cls, torch.float32, **changes)
    expected = model(**batch)
    for name, value in batch.items():
        for dtype in (torch.uint8, torch.int16, torch.int32) if not value.is_floating_point() else ():
            outputs = model(**{**batch, name: value.to(dtype)})
            for key in expected.keys():
                assert torch.equal(outputs[key], expected[key]), (name, dtype, key)
