"""Pre-training: targets against Python's sets, losses against their formula, and fine-tuning that starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modeling_sft import SFTForPreTraining, SFTForSequenceClassification
from modeling_sft.encoder.context_hashes import ContextHashes
from modeling_sft.encoder.pretraining import NUM_TARGETS, neighbourhood_targets
from modeling_sft.nn.hashing import buckets, with_rank
from tiny_models import build_sequence

IDS = torch.tensor([[4, 5, 4, 6, 5], [7, 7, 7, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
FIELDS = {"context_hash_sizes": [1, 2], "context_hash_dropout": 0.5}


def test_targets_are_shares_of_the_distinct_neighbourhoods() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 6, (3, 20, 2), generator=generator)
    counted = torch.rand(3, 20, 2, generator=generator) < 0.7
    counted[2] = False
    targets = neighbourhood_targets(ContextHashes(ids, torch.ones_like(counted), counted))
    for row in range(3):
        found = {(kind, int(ids[row, place, kind])) for place, kind in counted[row].nonzero().tolist()}
        expected = torch.zeros(NUM_TARGETS)
        for kind, number in found:
            expected[buckets(with_rank(torch.tensor(number), torch.tensor(kind + 1)), NUM_TARGETS)] += 1 / len(found)
        torch.testing.assert_close(targets[row], expected)
    assert targets.sum(1).tolist() == pytest.approx([1, 1, 0])


def test_the_loss_is_the_mean_of_two_predictions_of_each_row() -> None:
    model = build_sequence(SFTForPreTraining, **FIELDS)
    output = model(IDS, MASK)
    states = model.sft(IDS, MASK)
    head, hashes = model.classifier, states.context_hashes
    targets = neighbourhood_targets(hashes)
    predictions = (head.logits_of_states(states.last_hidden_state, MASK.bool()), head.logits_of_counts(hashes))
    expected = sum(-(targets * logits.log_softmax(-1)).sum(-1) for logits in predictions) / 2
    torch.testing.assert_close(output.row_losses, expected)
    torch.testing.assert_close(output.loss, expected.mean())
    # Padding, other rows and the order of tokens in a run of one do not matter to the counts.
    torch.testing.assert_close(model(IDS[1:, :3]).row_losses, output.row_losses[1:])


def test_counts_learn_from_what_dropout_leaves() -> None:
    model = build_sequence(SFTForPreTraining, torch.float32, **FIELDS).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = model(IDS, MASK).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 8 and sum(losses[-10:]) / 10 < 4
    assert all(parameter.grad is not None for parameter in model.classifier.parameters())


def test_a_classifier_starts_from_backbone_and_readout(tmp_path: Path) -> None:
    model = build_sequence(SFTForPreTraining, torch.float32, **FIELDS)
    model.save_pretrained(tmp_path)
    classifier = SFTForSequenceClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    weights, saved = classifier.state_dict(), model.state_dict()
    same = {name for name, value in weights.items() if value.shape == saved[name].shape}
    assert all(torch.equal(weights[name], saved[name]) for name in same)
    new = {"classifier.out_proj.weight", "classifier.out_proj.bias", "classifier.counts_proj.weight"}
    assert set(weights) - same == new and set(weights) == set(saved)


def test_models_without_counts_are_refused() -> None:
    for fields in ({"context_hash_sizes": None}, {"context_hash_sizes": [1], "context_count_dim": 0}):
        with pytest.raises(ValueError, match="Pre-training predicts neighbourhoods: set"):
            build_sequence(SFTForPreTraining, **fields)
    model = build_sequence(SFTForPreTraining, **FIELDS)
    with pytest.raises(TypeError, match="labels"):
        model(IDS, labels=IDS)
    with pytest.raises(ValueError, match="Give exactly one of"):
        model()
