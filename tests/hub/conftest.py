"""The test Hub, and processes that talk to it."""

import shutil
from pathlib import Path

import pytest

from hub.client import Client
from hub.server import HubServer
from modeling_sft.training import evaluate, train
from tiny_recipes import tiny_recipe


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server
        assert server.unknown == [], "the client called endpoints that the test Hub lacks"
        assert server.tokens_at_cdn == 0, "a token was sent to the host of large files"


@pytest.fixture(autouse=True)
def no_faults(request):
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def writer(hub, home):
    with Client(hub.url, home, token="token-of-the-writer") as client:
        yield client


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder that training and evaluation wrote."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    recipe = tiny_recipe("training.max_steps=2", "training.save_steps=2", "training.eval_steps=2")
    train(recipe, folder)
    evaluate(folder, rotations=["none", "so3"], batch_size=64, output=folder / "evaluation.json")
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
