"""Gradients of single samples by `torch.func`, as differential privacy and influence functions need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from modeling_sft import SFTForGraphClassification, SFTForSequenceClassification
from random_clouds import random_batch
from random_graphs import pad, random_graph
from tiny_models import build, build_graph, build_sequence

Made = tuple[Any, dict[str, Tensor]]


def cloud(**choice: Any) -> Made:
    return build(**choice), random_batch([9, 9, 6])


def sequence(**choice: Any) -> Made:
    mask = torch.arange(9)[None] < torch.tensor([[9], [9], [6]])
    ids = torch.randint(1, 20, (3, 9), generator=torch.Generator().manual_seed(0))
    return build_sequence(SFTForSequenceClassification, **choice), {"input_ids": ids, "attention_mask": mask.long()}


def graph(**choice: Any) -> Made:
    return build_graph(SFTForGraphClassification, **choice), pad([random_graph(7, seed=i) for i in range(3)], 9)


def hashed_sequence(**choice: Any) -> Made:
    return sequence(context_hash_sizes=(1, 2), **choice)


def hashed_graph(**choice: Any) -> Made:
    return graph(context_hash_radius=1, **choice)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("choice", [{"sampling_noise": 0.5}, {"num_extra_tokens": 2, "sampling_noise": 0.0}], ids=str)
@pytest.mark.parametrize("kind", [cloud, sequence, graph, hashed_sequence, hashed_graph])
def test_they_equal_those_of_one_sample_after_the_other(kind: Callable[..., Made], choice: dict[str, Any]) -> None:
    model, batch = kind(**choice)
    model.set_attn_implementation("eager")
    labels = torch.tensor([0, 2, 1])
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: dict[str, Tensor], label: Tensor) -> Tensor:
        inputs = {name: value[None] for name, value in row.items()}
        return functional_call(model, parameters, kwargs=inputs | {"labels": label[None]}).loss

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, batch, labels)
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        model.zero_grad()
        model(**one, labels=labels[row : row + 1]).loss.backward()
        for name, parameter in model.named_parameters():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found[name][row], expected, rtol=0, atol=1e-10, msg=name)
