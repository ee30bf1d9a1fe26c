"""Collators that know the model's configuration refuse labels that it cannot learn, before they leave for a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from modeling_sft import (
    SFTConfig,
    SFTGraphConfig,
    SFTGraphProcessor,
    SFTPointCloudConfig,
    SFTPointCloudProcessor,
    byte_tokenizer,
)
from modeling_sft.data import GraphCollator, PointCloudCollator, SequenceCollator
from modeling_sft.training.tasks.task import TASKS

GRAPH = {"node_feat": [[0]] * 3, "edge_index": [[0], [1]]}


def sequences(config: Any, labels: list[Any]) -> dict[str, torch.Tensor]:
    return SequenceCollator(byte_tokenizer(), config=config)([{"input_ids": [5] * 3, "labels": one} for one in labels])


def graphs(config: Any, labels: list[Any]) -> dict[str, torch.Tensor]:
    processor = SFTGraphProcessor()
    return GraphCollator(processor, config)([processor.item({**GRAPH, "y": one}) for one in labels])


def clouds(config: Any, labels: list[Any]) -> dict[str, torch.Tensor]:
    processor = SFTPointCloudProcessor(num_neighbors=2)
    name = "point_labels" if np.ndim(labels[0]) and np.asarray(labels[0]).dtype.kind == "i" else "labels"
    items = [processor.preprocess(np.eye(3)) | {name: np.asarray(one)} for one in labels]
    return PointCloudCollator(processor, config=config)(items)


KINDS: dict[str, tuple[Any, Callable[[Any, list[Any]], dict[str, torch.Tensor]]]] = {
    "sequence": (SFTConfig, sequences),
    "graph": (lambda **fields: SFTGraphConfig(node_vocab_sizes=[2], **fields), graphs),
    "point cloud": (SFTPointCloudConfig, clouds),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_the_model_cannot_learn_are_refused(kind: str) -> None:
    make, collate = KINDS[kind]
    config = make(num_labels=2)
    for labels, message in (
        ([[1.0, -1.0], [-1.0, 1.0]], "multi_label_classification.*write 0 and 1"),
        ([0, 2], "must be -100 .missing. or from 0 to 1: got 2 .first in row 1.*single_label_classification"),
        ([[0, 1, -100], [-1, 1, 0]], "got -1 .first in row 1"),
    ):
        with pytest.raises(ValueError, match=message):
            collate(config, labels)
        assert "labels" in collate(None, labels)
    collate(make(num_labels=2, problem_type="regression"), [[1.0, -1.0], [5.0, float("nan")]])
    collate(config, [[1.0, 0.5], [float("nan"), -100.0]])
    collate(config, [0, -100])


@pytest.mark.parametrize("label", [-1, 2])
def test_links_are_there_or_not(label: int) -> None:
    processor = SFTGraphProcessor()
    pairs = {"edge_label_index": [[0, 1], [1, 2]]}
    items = [processor.item({**GRAPH, **pairs, "edge_label": [1, 0]}) for _ in range(2)]
    # The number of classes is none of a model of links.
    GraphCollator(processor, SFTGraphConfig(node_vocab_sizes=[2], num_labels=1))(items)
    items[1]["labels"] = np.array([1, label])
    with pytest.raises(ValueError, match=f"from 0 to 1: got {label} .first in row 1"):
        GraphCollator(processor)(items)


def test_recipes_hand_the_configuration_to_the_collator() -> None:
    processors = {"sequence": byte_tokenizer(), "graph": SFTGraphProcessor(), "point_cloud": SFTPointCloudProcessor()}
    for name, task in TASKS.items():
        config = task.model_class.config_class(
            **({"node_vocab_sizes": [2]} if task.model_class.config_class is SFTGraphConfig else {})
        )
        collator: Any = task.build_collator(processors[config.modality], config)
        assert collator.config is (None if name == "masked-language-modeling" else config)
