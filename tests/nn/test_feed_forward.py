"""The feed-forward branch against the float64 reference, with inner states kept or made again."""

from __future__ import annotations

import pytest
import torch

import reference
from configurations import tiny_config
from modeling_sft.nn import feed_forward
from modeling_sft.nn.feed_forward import SFTFeedForward
from random_clouds import random_batch
from tiny_models import build, randomise


@pytest.mark.parametrize("activation", ["linear", "gelu", "relu"])
def test_feed_forward_equals_the_reference(activation: str) -> None:
    module = randomise(SFTFeedForward(tiny_config(hidden_act=activation))).double()
    x = torch.randn(3, 17, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = {f"feed_forward.{name}": value for name, value in module.state_dict().items()}
    torch.testing.assert_close(module(x), reference.feed_forward(state, x, activation), rtol=0, atol=1e-12)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_inner_states_made_again_in_backward_give_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    def gradients() -> dict[str, torch.Tensor]:
        model = build(training=True)
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        model(**random_batch([17, 9]), labels=torch.tensor([0, 4])).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    expected = gradients()
    calls = []
    transform = SFTFeedForward._transform
    monkeypatch.setattr(feed_forward, "INNER_ELEMENTS_KEPT", 0)
    monkeypatch.setattr(SFTFeedForward, "_transform", lambda self, states: calls.append(1) or transform(self, states))
    torch.testing.assert_close(gradients(), expected, rtol=0, atol=1e-12)
    assert len(calls) > 2, "the inner states were kept"
