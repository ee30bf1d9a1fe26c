"""Settings of the whole test run; markers and defaults are in pyproject.toml."""

import os

import pytest
import torch

import lab  # noqa: F401 (its data sets and baselines are known by name from here on)

if not torch.cuda.is_available():
    # Read when Triton is imported first, by whatever test that is.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the workers already fill the cores
