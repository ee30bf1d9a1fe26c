"""Answers of pipelines, compared to rounding: weights that a file maps into memory are aligned differently there."""

import json
from typing import Any

import pytest


def assert_alike(found: Any, expected: Any) -> None:
    """Equal structure, words and whole numbers; other numbers alike to 1e-5."""
    _compare(_plain(found), _plain(expected))


def _plain(answers: Any) -> Any:
    return json.loads(json.dumps(answers, default=lambda array: array.tolist()))


def _compare(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            _compare(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            _compare(one, other)
    else:
        assert found == (pytest.approx(expected, rel=1e-5, abs=1e-5) if isinstance(expected, float) else expected)
