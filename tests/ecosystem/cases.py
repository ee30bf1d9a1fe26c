"""A small model and a small data set per kind of input, for the tests of other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from modeling_sft import (
    SFTForGraphClassification,
    SFTForNodeClassification,
    SFTForPointCloudClassification,
    SFTForPointCloudSegmentation,
    SFTForSequenceClassification,
    SFTForTokenClassification,
)
from random_clouds import pad as pad_clouds
from random_clouds import random_cloud
from random_graphs import pad as pad_graphs
from random_graphs import random_graph
from random_sequences import pad as pad_sequences
from random_sequences import random_sequence
from tiny_models import build, build_graph, build_sequence

Row = dict[str, Tensor]
Batch = dict[str, Tensor]

SIZES = (9, 21, 14, 11, 17, 12, 8, 19, 13, 10, 16, 15)
NUM_LABELS = 5


class Kind(NamedTuple):
    """How to make models, examples and batches of one kind of input."""

    build: Callable[..., Any]
    row: Callable[[int, int], Row]
    pad: Callable[..., Batch]
    classifier: type
    token_classifier: type


KINDS = {
    "sequence": Kind(
        build_sequence, random_sequence, pad_sequences, SFTForSequenceClassification, SFTForTokenClassification
    ),
    "point-cloud": Kind(build, random_cloud, pad_clouds, SFTForPointCloudClassification, SFTForPointCloudSegmentation),
    "graph": Kind(build_graph, random_graph, pad_graphs, SFTForGraphClassification, SFTForNodeClassification),
}


class Case(NamedTuple):
    """A model of one kind of input, and what it can be trained on."""

    model: Any
    rows: list[Row]
    collate: Callable[[Sequence[Row]], Batch]

    def batch(self) -> Batch:
        """All inputs, without labels."""
        return {name: value for name, value in self.collate(self.rows).items() if name != "labels"}

    def logits(self, model: nn.Module | None = None) -> Tensor:
        """What `model`, by default the case's own, answers at inference."""
        with torch.no_grad():
            return (self.model if model is None else model).eval()(**self.batch()).logits

    def trainer(
        self,
        folder: Path,
        model: nn.Module | None = None,
        trainer_class: type[Trainer] = Trainer,
        **arguments: Any,
    ) -> Trainer:
        """Trainer of `model` on CPU; `arguments` are fields of TrainingArguments."""
        fields: dict[str, Any] = {
            "per_device_train_batch_size": len(self.rows),
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "use_cpu": True,
            "dataloader_pin_memory": False,
        }
        return trainer_class(
            model=self.model if model is None else model,
            args=TrainingArguments(str(folder), **(fields | arguments)),
            train_dataset=self.rows,
            data_collator=self.collate,
        )


def make_case(kind: str, dtype: torch.dtype = torch.float32, per_token: bool = False, **changes: Any) -> Case:
    """Twelve random examples of different sizes, with a class each or a class per token, and a tiny model.

    Without sampling noise, dropout and batch norm, unless `changes` to the configuration bring them back: the loss is
    then a sum over labels, however they are batched.
    """
    parts = KINDS[kind]
    model_class = parts.token_classifier if per_token else parts.classifier
    model = parts.build(model_class, dtype=dtype, training=True, **({"sampling_noise": 0} | changes))
    rows = []
    for number, size in enumerate(SIZES):
        row = {k: v.to(dtype) if v.is_floating_point() else v for k, v in parts.row(size, number).items()}
        labels = (torch.arange(size) + number) % NUM_LABELS
        row["labels"] = labels if per_token else torch.tensor(number % NUM_LABELS)
        rows.append(row)

    def collate(rows: Sequence[Row]) -> Batch:
        length = max(len(row[model.main_input_name]) for row in rows)
        batch = parts.pad([{k: v for k, v in row.items() if k != "labels"} for row in rows], length)
        labels = [row["labels"] for row in rows]
        if per_token:
            return batch | {"labels": nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)}
        return batch | {"labels": torch.stack(labels)}

    return Case(model, rows, collate)


def make_case_with_missing_labels(kind: str, problem_type: str, rows: Sequence[int] = range(12)) -> Case:
    """As [`make_case`] in float64, with five labels or targets for each example, of which three in four are NaN.

    In regression, one of those present is -100.
    """
    case = make_case(kind, torch.float64, problem_type=problem_type)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(12, NUM_LABELS, generator=generator, dtype=torch.float64)
    targets[3, 1] = -100.0
    if problem_type == "multi_label_classification":
        targets = (targets > 0).double()
    # Unevenly: some examples have all labels, and some have none.
    order = (torch.rand(12, NUM_LABELS, generator=generator) + torch.arange(12)[:, None] % 4).flatten().argsort()
    missing = order.argsort().view(12, NUM_LABELS) >= 15
    missing[3, 1] = False
    for row, labels in zip(case.rows, targets.masked_fill(missing, torch.nan), strict=True):
        row["labels"] = labels
    return case._replace(rows=[case.rows[number] for number in rows])


def losses(trainer: Trainer) -> list[float]:
    """The training losses that were logged, in order."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
