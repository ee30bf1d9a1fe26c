"""Files that are missing, refused, cut off or damaged end in an error that says so, and nothing stays half-loaded."""

import pytest

from hub.client import Client
from hub.server import Fault

LOAD = """
from transformers import AutoModel
AutoModel.from_pretrained(repo)
print("LOADED")
"""


@pytest.fixture(scope="module")
def reader(hub, home):
    with Client(hub.url, home, token="token-of-the-reader") as client:
        yield client


@pytest.fixture(scope="module")
def files(reader, tmp_path_factory):
    """The files of a small model."""
    folder = tmp_path_factory.mktemp("model")
    script = """
    import torch
    from tiny_models import build
    build(dtype=torch.float32).save_pretrained(folder)
    """
    reader.run(script, folder=str(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leftovers(home, repo):
    """Files in the cache of a repository that are no whole copy, and weights."""
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    return [*folder.rglob("*.incomplete"), *folder.glob("snapshots/*/*.safetensors")]


@pytest.mark.slow
def test_a_repository_that_does_not_exist(hub, reader):
    assert "is not a local folder and is not a valid model identifier" in reader.run(LOAD, fails=True, repo="lab/none")


def test_a_revision_that_does_not_exist(hub, reader, files):
    hub.add("lab/revision", files)
    script = 'from transformers import AutoModel; AutoModel.from_pretrained("lab/revision", revision="v9")'
    assert "v9 is not a valid git identifier" in reader.run(script, fails=True)


def test_a_private_repository(hub, reader, files):
    hub.add("lab/private", files, is_private=True)
    script = 'from transformers import AutoModel; AutoModel.from_pretrained("lab/private", token=False)'
    assert "private repository" in reader.run(script, fails=True)
    assert "LOADED" in reader.run(LOAD, repo="lab/private")


def test_a_gated_repository(hub, home, reader, files):
    repository = hub.add("lab/gated", files, is_gated=True)
    for arguments, status in (("", "403"), (", token=False", "401")):
        text = reader.run(LOAD.replace("(repo)", f"(repo{arguments})"), fails=True, repo="lab/gated")
        assert "gated repo" in text and f"{status} Client Error" in text
        assert leftovers(home, "lab/gated") == []
    repository.readers.add("reader")
    assert "LOADED" in reader.run(LOAD, repo="lab/gated")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "Should have a `model_type` key in its config.json"),
        ("model.safetensors", "does not appear to have a file named"),
    ],
)
def test_a_missing_file(hub, home, reader, files, missing, message):
    repo = f"lab/without-{missing.partition('.')[0]}"
    hub.add(repo, {name: content for name, content in files.items() if name != missing})
    assert message in reader.run(LOAD, fails=True, repo=repo)
    assert leftovers(home, repo) == []


def test_a_download_that_breaks_off_continues_where_it_stopped(hub, reader, files):
    hub.add("lab/breaks", files)
    hub.faults.append(Fault("GET", "/cdn/", "cut", times=1))
    start = len(hub.requests)
    assert "LOADED" in reader.run(LOAD, repo="lab/breaks")
    assert sum(method == "GET" and "/cdn/" in path for method, path in hub.requests[start:]) == 2


def test_a_short_file_is_refused_and_not_kept(hub, home, reader, files):
    hub.add("lab/short", files)
    hub.faults.append(Fault("GET", "/cdn/", "short"))
    text = reader.run(LOAD, fails=True, repo="lab/short")
    assert "Consistency check failed" in text
    assert leftovers(home, "lab/short") == []
    hub.faults.clear()
    assert "LOADED" in reader.run(LOAD, repo="lab/short")


def test_damaged_weights_are_refused(hub, reader, files):
    hub.add("lab/damaged", files)
    hub.faults.append(Fault("GET", "/cdn/", "corrupt"))
    text = reader.run(LOAD, fails=True, repo="lab/damaged")
    assert "SafetensorError" in text or "safetensors" in text.splitlines()[-1]


def test_truncated_weights_are_refused(hub, reader, files):
    hub.add("lab/truncated", files | {"model.safetensors": files["model.safetensors"][:-100]})
    assert "SafetensorError" in reader.run(LOAD, fails=True, repo="lab/truncated")


def test_a_damaged_configuration_is_refused(hub, reader, files):
    hub.add("lab/configuration", files | {"config.json": files["config.json"][:-30]})
    assert "not a valid JSON file" in reader.run(LOAD, fails=True, repo="lab/configuration")
