"""Settings of the whole test run; markers and defaults are in pyproject.toml."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads this when it is imported first, which the libraries of the baselines may do.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import lab  # noqa: E402, F401 (from here on, its data sets and baselines are known by name)


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the workers already fill the cores
