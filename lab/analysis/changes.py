"""Changes of single rows that keep their labels: leave out points or edges, blank steps, swap characters, add noise.

Each change is a function of a row and a generator. It returns a new row and leaves the arrays of the old one alone.
With the same generator, a larger fraction changes all that a smaller fraction changes, and more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]
TEXT_COLUMNS = ("text", "text_pair")
_COLUMNS_OF_POINTS = ("points", "normals", "point_features", "point_labels")


def drop_points(
    row: Mapping[str, Any], rng: np.random.Generator, fraction: float, num_points: int | None = None
) -> Row:
    """Leave out points, with their normals, features and labels.

    Args:
        row: `points` (n, 3) and any other columns of points, of length n.
        rng: chooses the points.
        fraction: share to leave out, below 1; at least one point stays.
        num_points: the number of points that the processor keeps of a larger cloud; the fraction then refers to it.
    """
    total = len(row["points"])
    present = total if num_points is None else min(total, num_points)
    kept = np.sort(rng.permutation(total)[: max(1, present - round(fraction * present))])
    changed = dict(row)
    for name in _COLUMNS_OF_POINTS:
        if row.get(name) is not None:
            changed[name] = np.asarray(row[name])[kept]
    return changed


def jitter_points(row: Mapping[str, Any], rng: np.random.Generator, fraction: float) -> Row:
    """Move each point by Gaussian noise; the standard deviation is a fraction of the cloud's radius about its mean."""
    points = np.asarray(row["points"], dtype=np.float64)
    radius = np.linalg.norm(points - points.mean(axis=0), axis=1).max()
    return {**row, "points": points + fraction * radius * rng.standard_normal(points.shape)}


def cut_texts(row: Mapping[str, Any], rng: np.random.Generator, length: int) -> Row:
    """Keep the first `length` characters of each text."""
    return {name: value[:length] if name in TEXT_COLUMNS else value for name, value in row.items()}


def replace_characters(row: Mapping[str, Any], rng: np.random.Generator, fraction: float) -> Row:
    """Replace a fraction of each text's characters, each by one drawn from the same text."""
    changed = dict(row)
    for name in TEXT_COLUMNS:
        if row.get(name) is not None:
            text = row[name]
            characters = list(text)
            places, sources = rng.permutation(len(text)), rng.integers(len(text), size=len(text))
            for place, source in zip(places[: round(fraction * len(text))], sources, strict=False):
                characters[place] = text[source]
            changed[name] = "".join(characters)
    return changed


def add_noise(row: Mapping[str, Any], rng: np.random.Generator, fraction: float) -> Row:
    """Add Gaussian noise to `values` (L, F); the standard deviation is a fraction of the range of the row's values."""
    values = np.asarray(row["values"], dtype=np.float64)
    return {**row, "values": values + fraction * np.ptp(values) * rng.standard_normal(values.shape)}


def blank_steps(row: Mapping[str, Any], rng: np.random.Generator, fraction: float) -> Row:
    """Set a fraction of the steps of `values` (L, F) to 0, in whole lines if L is the length of a square image."""
    values = np.array(row["values"])
    side = math.isqrt(len(values))
    line = side if side * side == len(values) else 1
    lines = rng.permutation(len(values) // line)[: round(fraction * (len(values) // line))]
    values[(lines[:, None] * line + np.arange(line)).reshape(-1)] = 0
    return {**row, "values": values}


def remove_edges(row: Mapping[str, Any], rng: np.random.Generator, fraction: float) -> Row:
    """Remove a fraction of the linked pairs of nodes, both directions of a pair together, with their features."""
    edges = np.asarray(row["edge_index"], dtype=np.int64).reshape(2, -1)
    pairs, number_of_pair = np.unique(np.sort(edges, axis=0), axis=1, return_inverse=True)
    removed = rng.permutation(pairs.shape[1])[: round(fraction * pairs.shape[1])]
    kept = ~np.isin(number_of_pair.reshape(-1), removed)
    changed = {**row, "edge_index": edges[:, kept]}
    if row.get("edge_attr") is not None:
        changed["edge_attr"] = np.asarray(row["edge_attr"])[kept]
    return changed
