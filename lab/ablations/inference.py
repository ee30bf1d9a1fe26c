"""What an ablation changes about a trained model without new weights: how it selects tokens, and how many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modeling_sft.point_cloud.selectors import farthest_point_selector
from modeling_sft.sampling.sample import Selector
from modeling_sft.sampling.sampler import SFTSampler, random_selector
from modeling_sft.training.recipe import reject_unknown_names

SAMPLERS: dict[str, Selector] = {"random": random_selector, "farthest_point": farthest_point_selector}
SELECTIONS = ("systematic", "topk")
ALL_TOKENS = "all"


def read_inference(inference: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Read inference settings: all products of the values that a mapping lists.

    Args:
        inference: of `sampling_inference` (`"systematic"` or `"topk"`) and `num_sampled_tokens` (a K, or `"all"`),
            each a value or a list of them. None or an empty mapping leaves the model as it was trained.
        where: where the mapping stands, for error messages.

    Raises:
        ValueError: if a name or a value is unknown, or values are missing or repeat.
    """
    inference = {} if inference is None else inference
    if not isinstance(inference, dict):
        raise ValueError(f"`inference` of {where} must be a mapping of lists, got {inference!r}.")
    reject_unknown_names(inference, ("sampling_inference", "num_sampled_tokens"), f"inference of {where}")
    choices = {name: values if isinstance(values, list) else [values] for name, values in inference.items()}
    for name, values in choices.items():
        if not values or len({str(value) for value in values}) < len(values):
            raise ValueError(f"`inference.{name}` of {where} must be one or more different values, got {values}.")
    for value in choices.get("sampling_inference", []):
        if value not in SELECTIONS:
            raise ValueError(f"`inference.sampling_inference` of {where} is {value!r}: use {' or '.join(SELECTIONS)}.")
    for value in choices.get("num_sampled_tokens", []):
        if value != ALL_TOKENS and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(
                f"`inference.num_sampled_tokens` of {where} is {value!r}: use integers of at least 1, or {ALL_TOKENS}."
            )
    return tuple(dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))


def inference_label(setting: Mapping[str, Any]) -> str:
    """Name of an inference setting in tables and plots, such as `"topk, K = 64"`."""
    patterns = {"num_sampled_tokens": "K = {}", "sampling_inference": "{}"}
    return ", ".join(patterns[name].format(value) for name, value in setting.items()) or "as trained"


def use_sampler(model: Any, sampler: str | None) -> None:
    """Let a model choose tokens by a function of `SAMPLERS`; with None it keeps the learned sampler."""
    if sampler is not None:
        model.set_sampler(SAMPLERS[sampler])


@contextmanager
def inference_setting(model: Any, setting: Mapping[str, Any]) -> Iterator[None]:
    """A context in which a model selects tokens as a setting of [`read_inference`] says."""
    previous = {name: getattr(model.config, name) for name in setting}
    hooks = []
    try:
        for name, value in setting.items():
            if value == ALL_TOKENS:
                samplers = [module for module in model.modules() if isinstance(module, SFTSampler)]
                hooks = [sampler.register_forward_pre_hook(_take_all) for sampler in samplers]
            else:
                setattr(model.config, name, value)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, value in previous.items():
            setattr(model.config, name, value)


def _take_all(sampler: SFTSampler, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    # K is set anew for each batch, to the length of its longest row: more slots would only cost memory.
    hidden_states, mask, _, *others = arguments
    return hidden_states, mask, hidden_states.shape[1] + sampler.config.num_extra_tokens, *others
