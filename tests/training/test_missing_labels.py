"""Labels that are missing count as missing everywhere: in losses, in Trainer, under accumulation and in metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import Trainer

from ecosystem.cases import KINDS, losses, make_case_with_missing_labels, weights
from modeling_sft.training.trainer import SFTTrainer

STEP: dict[str, Any] = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0}


def expected_step(kind: str, problem_type: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of the labels that are present, in one batch, and the weights after a step along its gradient."""
    case = make_case_with_missing_labels(kind, problem_type)
    batch = case.collate(case.rows)
    labels = batch.pop("labels")
    present = ~labels.isnan()
    assert int(present.sum()) <= labels.numel() / 4 + 1
    logits = case.model.train()(**batch).logits[present]
    function = F.mse_loss if problem_type == "regression" else F.binary_cross_entropy_with_logits
    loss = function(logits, labels[present])
    loss.backward()
    return loss.item(), {
        name: parameter.detach() - (0 if parameter.grad is None else parameter.grad)
        for name, parameter in case.model.named_parameters()
    }


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("trainer_class", "batch_size", "accumulation"),
    [(Trainer, 12, 1), (SFTTrainer, 12, 1), (SFTTrainer, 4, 3), (SFTTrainer, 5, 3)],
)
def test_a_step_is_that_of_one_batch_of_the_labels_that_are_present(
    trainer_class: type[Trainer], batch_size: int, accumulation: int, kind: str, problem_type: str, tmp_path: Path
) -> None:
    loss, expected = expected_step(kind, problem_type)
    case = make_case_with_missing_labels(kind, problem_type)
    trainer = case.trainer(
        tmp_path,
        trainer_class=trainer_class,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        **STEP,
    )
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(weights(case.model), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("trainer_class", [Trainer, SFTTrainer])
def test_a_batch_without_any_label_moves_nothing(trainer_class: type[Trainer], tmp_path: Path) -> None:
    case = make_case_with_missing_labels("sequence", "regression")
    for row in case.rows:
        row["labels"] = torch.full_like(row["labels"], torch.nan)
    start = weights(case.model)
    trainer = case.trainer(tmp_path, trainer_class=trainer_class, **STEP)
    trainer.train()
    assert losses(trainer) == [0.0]
    torch.testing.assert_close(weights(case.model), start, rtol=0, atol=0)
