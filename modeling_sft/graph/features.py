"""Features of nodes and edges: their checks, and embeddings of categories by tables and numbers by a linear map."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.checks import can_check_values, check_finite, check_range, check_shape
from ..nn.initialization import unit_variance, unit_variance_linear


class SFTCategoryEmbedding(nn.Embedding):
    """One table for several columns of categories: one look-up in place of many."""

    def __init__(self, vocab_sizes: list[int], width: int):
        super().__init__(sum(vocab_sizes), width)
        self.starts = list(itertools.accumulate(vocab_sizes[:-1], initial=0))

    def forward(self, categories: Tensor) -> Tensor:
        """Sum the embeddings of the columns of `(B, N, C)`: `(B, N, D)`."""
        return look_up(self.weight, categories, self.starts)


class SFTFeatureEmbedding(nn.Module):
    """Sum of the embeddings of categorical columns and of a linear map of the continuous ones behind them."""

    def __init__(self, vocab_sizes: list[int] | None, num_features: int, width: int):
        super().__init__()
        sizes = list(vocab_sizes or ())
        self.num_categories = len(sizes)
        self.embeddings = unit_variance(SFTCategoryEmbedding(sizes, width)) if sizes else None
        self.proj = unit_variance_linear(num_features, width, bias=False) if num_features else None
        self.scale = max(1, len(sizes) + bool(num_features)) ** -0.5

    def forward(self, features: Tensor) -> Tensor:
        """Embed checked features `(B, N, C)`: `(B, N, D)`."""
        states: Any = 0.0
        if self.embeddings is not None:
            states = self.embeddings(features[..., : self.num_categories])
        if self.proj is not None:
            states = states + self.proj(features[..., self.num_categories :].to(self.proj.weight.dtype))
        return states * self.scale


def look_up(table: Tensor, categories: Tensor, starts: list[int]) -> Tensor:
    """Sums of table rows: one for each column of categories `(B, N, C)`, whose rows start at `starts`."""
    ids = categories.long() + torch.tensor(starts, device=categories.device)
    return F.embedding_bag(ids.flatten(0, 1), table, mode="sum").unflatten(0, ids.shape[:2])


def check_features(name: str, features: Tensor, mask: Tensor, vocab_sizes: list[int] | None, numbers: int) -> Tensor:
    """The features `(B, N, C)` with zeros in padding, `(B, N)` being the mask.

    Raises:
        ValueError: the number of columns, a category or a number does not fit.
    """
    sizes = list(vocab_sizes or ())
    check_shape(name, features, (*mask.shape, len(sizes) + numbers), "categories first, then continuous features")
    check_finite(name, features, mask)
    features = features.masked_fill(~mask[..., None], 0)
    for column, size in enumerate(sizes):
        values = features[..., column]
        if values.is_floating_point() and can_check_values(values):
            broken = values[values != values.floor()]
            if len(broken):
                raise ValueError(f"`{name}[..., {column}]` holds {float(broken[0]):g}: categories are whole numbers.")
        check_range(f"{name}[..., {column}]", values.long(), 0, size, "See the vocabulary sizes of the configuration.")
    return features
