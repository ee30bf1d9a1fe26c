import datasets
import pytest


@pytest.fixture(autouse=True)
def dataset_cache(tmp_path_factory, monkeypatch):
    """The cache of `datasets`, empty for each test."""
    cache = tmp_path_factory.mktemp("dataset_cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache
