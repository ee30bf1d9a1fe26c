"""Publishing to a local Hub with the real client: once, again, over a breaking connection, with wrong rights."""

import huggingface_hub
import pytest
from huggingface_hub import HfApi, ModelCard

from hub.server import Fault, HubServer
from modeling_sft.publishing import PublishingError, prepare, publish


@pytest.fixture(autouse=True)
def without_xet(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token="token-of-the-writer")


@pytest.fixture
def publication(folder):
    return prepare(folder, "lab/digits", benchmark="lab/benchmark:digits")


@pytest.fixture
def repo(request):
    return f"lab/{request.node.name.replace('[', '-').rstrip(']')}"


def test_a_release_holds_every_file_and_is_tagged(hub, api, publication, repo):
    lines = []
    result = publish(publication, repo, api, report=lines.append)
    repository = hub.repositories[repo]
    assert repository.tags == {"v1": result.commit} and repository.branches["main"] == result.commit
    for file in publication.files:
        assert repository.files("v1")[file.name].content == file.read_bytes()
    assert ".eval_results/benchmark.yaml" in repository.files("v1")
    assert sorted(result.uploaded) == sorted(file.name for file in publication.files)
    assert not repository.is_private and lines[-1].endswith("all hashes agree")
    card = ModelCard(repository.files("v1")["README.md"].content.decode())
    assert card.data.eval_results


def test_publishing_again_uploads_nothing(hub, api, publication, repo):
    first = publish(publication, repo, api)
    commits, uploads = len(hub.repositories[repo].commits), hub.count("PUT", "/lfs/")
    second = publish(publication, repo, api)
    assert second.uploaded == [] and second.commit == first.commit
    assert len(hub.repositories[repo].commits) == commits and hub.count("PUT", "/lfs/") == uploads


def test_a_changed_release_needs_another_tag_and_uploads_the_change_alone(hub, api, folder, publication, repo):
    publish(publication, repo, api)
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nA remark.\n")
    changed = prepare(folder, repo)
    with pytest.raises(ValueError, match=r"`tag` v1 already, with other files \(README.md\)"):
        publish(changed, repo, api)
    assert publish(changed, repo, api, tag="v2").uploaded == ["README.md"]
    assert set(hub.repositories[repo].tags) == {"v1", "v2"}


@pytest.mark.parametrize("fault", ["drop", "lose"])
def test_a_broken_connection_is_continued(hub, api, publication, repo, fault):
    uploads = hub.count("PUT", "/lfs/")
    hub.objects.clear()
    hub.faults.append(Fault("POST", f"{repo}/commit/", fault, times=1))
    with pytest.raises(PublishingError, match="Run the same command again") as caught:
        publish(publication, repo, api)
    assert "token-of" not in str(caught.value) and caught.value.__cause__ is None
    assert hub.repositories[repo].tags == {}
    arrived = hub.count("PUT", "/lfs/") - uploads
    assert arrived > 0
    result = publish(publication, repo, api)
    assert hub.count("PUT", "/lfs/") - uploads == arrived
    # The commit was made where only its reply was lost.
    assert len(result.uploaded) == (len(publication.files) if fault == "drop" else 0)
    assert hub.repositories[repo].tags == {"v1": result.commit}


def test_an_upload_that_breaks_off_is_repeated(hub, api, publication, repo):
    hub.objects.clear()
    hub.faults.append(Fault("PUT", "/lfs/", "drop", times=1))
    publish(publication, repo, api)
    assert hub.repositories[repo].tags


def test_what_comes_back_changed_is_not_tagged(hub, api, publication, repo):
    hub.faults.append(Fault("GET", "/cdn/", "corrupt_end"))
    with pytest.raises(PublishingError, match="another hash"):
        publish(publication, repo, api)
    assert hub.repositories[repo].tags == {}


def test_private_repositories(hub, api, publication, repo):
    publish(publication, repo, api, private=True)
    assert hub.repositories[repo].is_private
    hub.add(f"{repo}-public", {"README.md": b"---\n---\n"})
    with pytest.raises(ValueError, match="is public"):
        publish(publication, f"{repo}-public", api, private=True)


@pytest.mark.parametrize("token", ["token-of-the-reader", "token-of-nobody"])
def test_without_rights_nothing_happens_and_the_token_is_not_shown(hub, publication, repo, token, capfd):
    with pytest.raises(PublishingError, match="40[13]") as caught:
        publish(publication, repo, HfApi(endpoint=hub.url, token=token))
    assert repo not in hub.repositories
    output = capfd.readouterr()
    assert token not in str(caught.value) + output.out + output.err


def test_without_connection_the_remedy_is_said(publication):
    with HubServer() as gone:
        pass
    with pytest.raises(PublishingError, match="ConnectError.*\nRun the same command again"):
        publish(publication, "lab/gone", HfApi(endpoint=gone.url, token="token-of-the-writer"))


@pytest.mark.slow
def test_the_script_publishes_and_never_prints_the_token(hub, writer, folder):
    arguments = ("publish.py", folder, "--repo", "lab/script", "--private", "--tag", "v3")
    before = len(hub.requests)
    text = writer.run_command(*arguments, "--dry-run")
    assert "EXIT 0" in text and "model.safetensors" in text and "nothing was uploaded" in text
    assert len(hub.requests) == before
    hub.faults.append(Fault("POST", "lab/script/commit/", "drop", times=1))
    broken = writer.run_command(*arguments)
    assert "EXIT 2" in broken and "error: RemoteProtocolError" in broken and "Traceback" not in broken
    assert hub.repositories["lab/script"].tags == {}
    resumed = writer.run_command(*arguments)
    assert "EXIT 0" in resumed and "published lab/script v3" in resumed
    assert hub.repositories["lab/script"].is_private and set(hub.repositories["lab/script"].tags) == {"v3"}
    assert "token-of-the-writer" not in text + broken + resumed
    for path in folder.rglob("*"):
        assert not path.is_file() or b"token-of-the-writer" not in path.read_bytes()
    (folder / "model.safetensors").unlink()
    text = writer.run_command(*arguments)
    assert "EXIT 2" in text and "error: There are no weights" in text and "Traceback" not in text
