"""Speed of the forward pass, on inputs of the split."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

NUM_WARM_UP = 2
NUM_TIMED = 10


def measure_throughput(
    model: Any, data: Dataset, collate: Callable[[list[dict]], dict], batch_size: int, seed: int
) -> dict[str, Any]:
    """Time forward passes of single examples and of batches: the median of 10 batches, after 2 batches of warm-up.

    Preparation, padding and the transfer to the device are not timed. Padding tokens are computed, but not counted.

    Args:
        model: model on the device to measure.
        data: prepared items.
        collate: makes a batch of items.
        batch_size: items per batch; at most as many as there are.
        seed: chooses the items.

    Returns:
        `dict`: "device", "dtype", "attention_implementation", "num_threads", "num_timed_batches" and "batches": for
        each size "batch_size", "real_tokens" (mean per batch, without padding), "seconds_per_batch",
        "examples_per_second", "tokens_per_second".
    """
    parameter = next(model.parameters())
    order = np.random.default_rng(seed).permutation(len(data))  # type: ignore[arg-type]
    sizes = sorted({1, min(batch_size, len(order))})
    return {
        "device": parameter.device.type,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "attention_implementation": str(model.config._attn_implementation),
        "num_threads": torch.get_num_threads(),
        "num_timed_batches": NUM_TIMED,
        "batches": [_time_batches(model, data, collate, order, size) for size in sizes],
    }


def _time_batches(model: Any, data: Any, collate: Callable[..., Any], order: Any, size: int) -> dict[str, Any]:
    device = next(model.parameters()).device
    seconds, tokens = [], []
    for number, chosen in enumerate(np.resize(order, (NUM_WARM_UP + NUM_TIMED, size))):
        batch = collate([data[int(index)] for index in chosen])
        # Labels are left out: with them the model would compute a loss as well.
        inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
        elapsed = _seconds_of(model, inputs, device)
        if number >= NUM_WARM_UP:
            seconds.append(elapsed)
            tokens.append(sum(int(mask.sum()) for name, mask in batch.items() if name.endswith("attention_mask")))
    return {
        "batch_size": size,
        "real_tokens": float(np.mean(tokens)),
        "seconds_per_batch": float(np.median(seconds)),
        "examples_per_second": float(np.median(size / np.array(seconds))),
        "tokens_per_second": float(np.median(np.array(tokens) / np.array(seconds))),
    }


@torch.no_grad()
def _seconds_of(model: Any, inputs: dict[str, Any], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    model(**inputs)
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
