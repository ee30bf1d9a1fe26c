"""Trainer: accumulated gradients are those of one batch, and what breaks that; training in bfloat16."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ecosystem.cases import KINDS, losses, make_case, weights


def one_step(folder: Path, kind: str, batch_size: int, accumulation: int, **changes: Any) -> Any:
    """Loss and weights after one step of gradient descent on all twelve examples, with a label for every token."""
    case = make_case(kind, torch.float64, per_token=True, **changes)
    trainer = case.trainer(
        folder,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0,
    )
    trainer.train()
    return losses(trainer)[0], weights(case.model)


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_gradients_are_those_of_one_batch(kind: str, tmp_path: Path) -> None:
    loss, whole = one_step(tmp_path, kind, 12, 1)
    start = weights(make_case(kind, torch.float64, per_token=True).model)
    assert any((whole[name] - start[name]).abs().max() > 1e-2 for name in whole)
    accumulated_loss, accumulated = one_step(tmp_path, kind, 5, 3)
    torch.testing.assert_close(accumulated, whole, atol=1e-12, rtol=0)
    assert accumulated_loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_type": "batch"},
        {"sampling_noise": 0.5},
        {"sampling_estimator": "soft"},
        {"num_sampled_tokens_range": [3, 9]},
        {"hidden_dropout_prob": 0.1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_differs_between_batches_breaks_the_equality(changes: dict[str, Any], tmp_path: Path) -> None:
    (_, whole), (_, accumulated) = (one_step(tmp_path, "sequence", *sizes, **changes) for sizes in ((12, 1), (4, 3)))
    assert any((whole[name] - accumulated[name]).abs().max() > 1e-5 for name in whole)


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_bfloat16_learns(kind: str, tmp_path: Path) -> None:
    case = make_case(kind)
    expected = case.model(**case.collate(case.rows)).loss.item()
    dtypes = set()
    layer = case.model.sft.encoder.layers[0].feed_forward.up_proj
    layer.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    trainer = case.trainer(tmp_path, bf16=True, max_steps=12)
    trainer.train()
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in case.model.parameters()} == {torch.float32}
    assert losses(trainer)[0] == pytest.approx(expected, rel=0.03)
    assert losses(trainer)[-1] < 0.6 * expected
