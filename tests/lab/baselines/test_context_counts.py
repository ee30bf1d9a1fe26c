"""The readout of context hashes alone: bags of neighbourhoods, without order, attention and token states."""

import pytest
import torch

from configurations import tiny_graph_config
from lab.baselines.context_counts import (
    CountsForGraphClassification,
    CountsForSequenceClassification,
    SequenceCountsConfig,
)
from lab.baselines.graphs import GraphBaselineConfig
from random_graphs import random_graphs
from tiny_models import randomise

TEXTS = {"vocab_size": 30, "context_hash_sizes": [1], "num_labels": 3}


def config(**changes):
    fields = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    return SequenceCountsConfig(**fields | TEXTS | changes)


def test_texts_are_bags_of_their_runs():
    model = randomise(CountsForSequenceClassification(config())).eval()
    ids = torch.tensor([[4, 5, 6, 6, 7], [6, 5, 7, 4, 6], [4, 5, 6, 6, 6]])
    first, other_order, other_tokens = model(ids).logits
    assert torch.equal(first, other_order) and not torch.allclose(first, other_tokens)
    pairs = randomise(CountsForSequenceClassification(config(context_hash_sizes=[1, 2]))).eval()
    first, other_order, _ = pairs(ids).logits
    assert not torch.allclose(first, other_order)


def test_graphs_are_bags_of_their_balls():
    fields = {**tiny_graph_config(context_hash_radius=0).to_dict(), "num_labels": 3}
    for name in ("model_type", "auto_map", "id2label", "label2id", "architectures", "transformers_version", "dtype"):
        fields.pop(name, None)
    model = randomise(CountsForGraphClassification(GraphBaselineConfig(**fields))).eval()
    batch = random_graphs([7, 4])
    logits = model(**batch).logits
    numbers = {**batch, "node_encodings": batch["node_encodings"] + 1, "edge_index": batch["edge_index"].flip(1)}
    assert torch.equal(model(**numbers).logits, logits)
    categories = batch["node_features"].clone()
    categories[0, 0, 0] = (categories[0, 0, 0] + 1) % 5
    changed = model(**{**batch, "node_features": categories}).logits != logits
    assert changed.any(1).tolist() == [True, False]


def test_the_gradient_reaches_the_whole_readout_and_nothing_else(tmp_path):
    model = randomise(CountsForSequenceClassification(config()))
    model(torch.randint(4, 30, (3, 9)), labels=torch.tensor([0, 1, 2])).loss.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.partition(".")[0] for name in reached} == {"classifier"}
    assert reached == {f"classifier.{name}" for name, _ in model.classifier.named_parameters()}
    model.eval().save_pretrained(tmp_path)
    again = CountsForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[4, 5, 6]])
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_models_without_hashes_are_refused():
    with pytest.raises(ValueError, match="needs context hashes"):
        CountsForSequenceClassification(config(context_hash_sizes=None))
