"""Pooling and losses of the heads."""

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError

from modeling_sft import SFTConfig, SFTGraphConfig, SFTPointCloudConfig
from modeling_sft.encoder.heads import SFTPooling
from modeling_sft.encoder.losses import (
    check_labels,
    classification_loss,
    link_loss,
    share_of_step,
    token_classification_loss,
)


def config(**changes):
    return SFTConfig(hidden_size=8, num_attention_heads=2, **changes)


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "first"])
def test_pooling_ignores_padding(pooling):
    torch.manual_seed(0)
    pool = SFTPooling(config(pooling=pooling))
    states = torch.randn(2, 7, 8)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    changed = states.masked_fill(~mask[..., None], 100.0)
    torch.testing.assert_close(pool(states, mask), pool(changed, mask))
    torch.testing.assert_close(pool(states, mask)[1:], pool(states[1:, :3], mask[1:, :3]))


def test_mean_and_max_pooling_are_what_they_say():
    states, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(SFTPooling(config(pooling="mean"))(states, mask), states.mean(1))
    torch.testing.assert_close(SFTPooling(config(pooling="max"))(states, mask), states.amax(1))


def test_first_pooling_takes_the_first_real_token():
    states = torch.randn(3, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
    pooled = SFTPooling(config(pooling="first"))(states, mask)
    assert torch.equal(pooled, states[[0, 1, 2], [0, 2, 4]])


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "first"])
def test_pooling_exports_for_other_batches_and_lengths(pooling):
    pool = SFTPooling(config(pooling=pooling))
    shapes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    example = (torch.randn(2, 7, 8), torch.arange(7) < torch.tensor([[7], [3]]))
    exported = torch.export.export(pool, example, dynamic_shapes=(shapes, shapes)).module()
    states, mask = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([[0], [2], [4]])
    torch.testing.assert_close(exported(states, mask), pool(states, mask))


@pytest.mark.parametrize("unordered", [SFTPointCloudConfig, SFTGraphConfig])
def test_points_and_nodes_have_no_first_token(unordered):
    with pytest.raises(StrictDataclassError, match="`pooling` is 'first': points and nodes come in no order"):
        unordered(pooling="first")


def test_single_label_loss_is_cross_entropy_over_the_labels_present():
    logits, labels = torch.randn(4, 3), torch.tensor([0, -100, 2, 1])
    expected = F.cross_entropy(logits[[0, 2, 3]], labels[[0, 2, 3]])
    torch.testing.assert_close(classification_loss(logits, labels, config(num_labels=3)), expected)


def test_multi_label_loss_leaves_missing_labels_out():
    logits = torch.randn(3, 2)
    labels = torch.tensor([[1.0, float("nan")], [0.0, 1.0], [-100.0, 0.0]])
    present = torch.tensor([[True, False], [True, True], [False, True]])
    expected = F.binary_cross_entropy_with_logits(logits[present], labels[present])
    torch.testing.assert_close(classification_loss(logits, labels, config(num_labels=2)), expected)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_regression_of_one_target_takes_both_label_shapes(shape):
    logits, labels = torch.randn(5, 1), torch.randn(shape)
    loss = classification_loss(logits, labels, config(num_labels=1))
    torch.testing.assert_close(loss, F.mse_loss(logits.flatten(), labels.flatten()))


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_accumulated_losses_equal_one_big_batch(problem):
    logits = torch.randn(6, 3)
    single = problem == "single_label_classification"
    labels = torch.randint(0, 3, (6,)) if single else torch.rand(6, 3).round()
    settings = config(num_labels=3, problem_type=problem)
    whole = classification_loss(logits, labels, settings)
    count = torch.tensor(labels.numel())
    parts = sum(
        share_of_step(classification_loss(logits[i : i + 2], labels[i : i + 2], settings), labels[i : i + 2], count)
        for i in (0, 2, 4)
    )
    torch.testing.assert_close(parts, whole)


def test_misfitting_labels_raise():
    logits = torch.randn(4, 3)
    with pytest.raises(ValueError, match="`labels` has shape"):
        classification_loss(logits, torch.zeros(5, dtype=torch.long), config(num_labels=3))
    with pytest.raises(ValueError, match="`labels` must be -100"):
        classification_loss(logits, torch.tensor([0, 1, 2, 3]), config(num_labels=3))
    with pytest.raises(ValueError, match="`labels` has shape"):
        classification_loss(logits, torch.zeros(4, 2), config(num_labels=3))


NAN = float("nan")
REMEDY = 'write 0 and 1 in place of -1 and 1, or set `problem_type="regression"` for numbers'
MISFITS = [
    (None, [[1.0, -1.0, 1.0], [0.0, 1.0, 0.0]], '-1.0 .first in row 0.*`problem_type` is "multi_label_cl'),
    (None, [[1.0, 0.0, NAN], [0.0, 2.5, -100.0]], '2.5 .first in row 1.*`problem_type` is "multi_label_cl'),
    ("multi_label_classification", [[1, 0, -100], [0, 1, -1]], '-1 .first in row 1.*is "multi_label_cl'),
    ("single_label_classification", [-1, 1], 'from 0 to 2: got -1 .first in row 0.*is "single_label_cl'),
    ("single_label_classification", [NAN, 3.0], 'from 0 to 2: got 3.0 .first in row 1.*is "single_label_cl'),
    ("single_label_classification", [-100.0, 0.5], "from 0 to 2: got 0.5 .first in row 1"),
]


@pytest.mark.parametrize(("problem", "labels", "message"), MISFITS)
def test_labels_out_of_range_raise_with_the_remedy(problem, labels, message):
    settings, labels = config(num_labels=3, problem_type=problem), torch.tensor(labels)
    with pytest.raises(ValueError, match=f"^`labels` must be .*{message}.*") as caught:
        classification_loss(torch.zeros(2, 3), labels, settings)
    assert REMEDY in str(caught.value)
    with pytest.raises(ValueError, match=message):
        check_labels(labels, settings)
    with pytest.raises(ValueError, match=message):
        rows = labels[:, None].expand(-1, 4, *labels.shape[1:])
        token_classification_loss(torch.zeros(2, 4, 3), rows, torch.arange(4) < torch.tensor([[4], [2]]), settings)


def test_labels_that_are_missing_or_targets_of_regression_pass():
    logits, numbers = torch.randn(2, 3), torch.tensor([[-1.0, 7.0, -100.0], [NAN, 0.0, 1.0]])
    present = ~numbers.isnan()
    expected = F.mse_loss(logits[present], numbers[present])
    loss = classification_loss(logits, numbers, config(num_labels=3, problem_type="regression"))
    torch.testing.assert_close(loss, expected)
    single = config(num_labels=3, problem_type="single_label_classification")
    expected = F.cross_entropy(logits[:1], torch.tensor([2]))
    for missing in (NAN, -100.0):
        torch.testing.assert_close(classification_loss(logits, torch.tensor([2.0, missing]), single), expected)
    # Padding counts as missing whatever the type of the labels.
    mask = torch.tensor([[True, True], [True, False]])
    labels = torch.tensor([[2.0, 0.0], [1.0, 99.0]])
    tokens = torch.randn(2, 2, 3)
    expected = F.cross_entropy(tokens[mask], labels[mask].long())
    torch.testing.assert_close(token_classification_loss(tokens, labels, mask, single), expected)


@pytest.mark.parametrize("wrong", [-1.0, 2.0])
def test_where_values_are_not_looked_at_targets_out_of_range_give_nan(wrong):
    logits, labels = torch.randn(2, 3, requires_grad=True), torch.tensor([[1.0, wrong, NAN], [0.0, 1.0, -100.0]])
    settings = config(num_labels=3)
    losses = (
        lambda labels: classification_loss(logits, labels, settings),
        lambda labels: link_loss(logits, labels),
    )
    for loss in losses:
        traced = torch.compile(loss, backend="eager", fullgraph=True)
        assert traced(labels).isnan()
        right = labels.masked_fill(labels == wrong, 0.5)
        assert traced(right).isfinite()


def test_no_label_present_gives_zero_and_finite_gradients():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = classification_loss(logits, torch.tensor([-100, -100]), config(num_labels=3))
    loss.backward()
    assert loss.item() == 0 and logits.grad.isfinite().all()
