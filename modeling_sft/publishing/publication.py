"""Publishing: a checked folder becomes a tagged repository on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from ..hub.processing import SavedWithCode
from ..hub.remote_code import write_code
from ..training.writing import replace_text
from .benchmark import check_benchmark_results, write_benchmark_result
from .card import check_card, load_card, render_card
from .files import CARD_NAME, LocalFile, format_size, list_files
from .validation import CheckedFolder, check_folder


class PublishingError(RuntimeError):
    """The Hub refused something, or the connection broke; publishing again continues."""


@dataclass(frozen=True)
class Publication:
    """What would be, or was, published.

    Args:
        files: all files of the release, the code included.
        left_out: names in the folder that are not published.
        uploaded: files that this run uploaded.
        commit: name of the commit that holds the release.
    """

    files: Sequence[LocalFile]
    left_out: Sequence[str]
    uploaded: Sequence[str] = ()
    commit: str | None = None

    def __str__(self) -> str:
        lines = [f"{format_size(file.size):>10}  {file.name}" for file in self.files]
        lines.append(f"{format_size(sum(file.size for file in self.files)):>10}  in {len(self.files)} files")
        if self.left_out:
            lines.append(f"left out: {', '.join(self.left_out)}")
        return "\n".join(lines)


def prepare(
    folder: str | Path,
    repo_id: str,
    license_name: str = "apache-2.0",
    data_license: str | None = None,
    benchmark: str | None = None,
) -> Publication:
    """Check a folder, write its model card unless it has one, and list what would be uploaded. Touches no network.

    The code of model and processor is generated for the upload, in place of files of the same names in the folder.

    Args:
        folder: folder that `scripts/train.py` and `scripts/evaluate.py` wrote.
        repo_id: repository, such as `"org/name"`.
        license_name, data_license: see [`render_card`].
        benchmark: see [`write_benchmark_result`].

    Raises:
        ValueError: if the folder is not fit to be published, or a number in the card has no source.
    """
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f'`repo_id` must be "org/name", got {repo_id!r}.')
    checked = check_folder(folder)
    path = checked.path / CARD_NAME
    if path.is_file():
        card = load_card(path)
    else:
        card = render_card(checked, repo_id, license_name, data_license)
        replace_text(path, str(card))
    check_card(card, checked.reports, checked.sections)
    if benchmark is not None:
        write_benchmark_result(checked, benchmark)
    check_benchmark_results(checked)
    files, left_out = list_files(checked.path)
    named = {file.name: file for file in [*files, *code_files(checked)]}
    return Publication([named[name] for name in sorted(named)], left_out)


def code_files(checked: CheckedFolder) -> list[LocalFile]:
    """Generate the code of a folder's model and processor; a tokenizer needs none.

    Args:
        checked: the folder; nothing is written into it.
    """
    with tempfile.TemporaryDirectory() as folder:
        if checked.model_class.auto_class_name is not None:
            write_code(checked.model_class, folder)
        if issubclass(checked.processor_class, SavedWithCode):
            write_code(checked.processor_class, folder)
        return [LocalFile.read(path.read_bytes(), path.name) for path in sorted(Path(folder).iterdir())]


def publish(
    publication: Publication,
    repo_id: str,
    api: HfApi,
    private: bool = False,
    tag: str = "v1",
    report: Callable[[str], None] = print,
) -> Publication:
    """Upload a release in one commit, tag it, download it again and compare the hashes.

    Only files that the repository lacks, or has otherwise, are uploaded. After a broken connection, publishing again
    continues: the Hub keeps large files that arrived whole, and nothing is visible before the commit.

    Args:
        publication: what [`prepare`] returned.
        repo_id: repository, created if it does not exist.
        api: the Hub, with the token to use.
        private: whether only its owners may see the repository.
        tag: name of the release.
        report: called with one line for each step.

    Returns:
        [`Publication`]: With what was uploaded, and the commit.

    Raises:
        ValueError: if the tag exists with other files, or the repository is public and `private` is set.
        PublishingError: if the Hub refuses a request, the connection breaks, or what comes back is not what was sent.
    """
    try:
        return _publish(publication, repo_id, api, private, tag, report)
    except (ValueError, PublishingError):
        raise
    # The client lets errors of its HTTP library through, and the library changes between versions.
    except Exception as error:
        text = _without_token(f"{type(error).__name__}: {error}", api)
        # The chained exceptions hold the requests, and those the token.
        raise PublishingError(f"{text}\nRun the same command again: it uploads only what is missing.") from None


def _without_token(text: str, api: HfApi) -> str:
    for token in (api.token, get_token()):
        if isinstance(token, str) and token:
            text = text.replace(token, "***")
    return text


def _publish(
    publication: Publication, repo_id: str, api: HfApi, private: bool, tag: str, report: Callable[[str], None]
) -> Publication:
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    if private and not api.model_info(repo_id).private:
        raise ValueError(f"{repo_id} exists and is public: make it private on the Hub first, or leave `private` out.")
    tags = {each.name: each.target_commit for each in api.list_repo_refs(repo_id).tags}
    missing = _missing(publication.files, api, repo_id, tags.get(tag))
    if tag in tags:
        if missing:
            names = ", ".join(file.name for file in missing)
            raise ValueError(f"{repo_id} has a `tag` {tag} already, with other files ({names}): choose another tag.")
        commit = tags[tag]
        report(f"{repo_id} has this release already, as {tag}: nothing to upload")
    elif missing:
        report(f"uploading {len(missing)} of {len(publication.files)} files to {repo_id}")
        operations = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.source) for file in missing]
        commit = api.create_commit(repo_id, operations, commit_message=f"Release {tag}").oid
    else:
        commit = api.model_info(repo_id).sha or ""
        report("all files are there: nothing to upload")
    _verify(publication.files, api, repo_id, commit)
    report(f"read back {len(publication.files)} files: all hashes agree")
    if tag not in tags:
        api.create_tag(repo_id, tag=tag, revision=commit)
    return replace(publication, uploaded=[file.name for file in missing], commit=commit)


def _missing(files: Sequence[LocalFile], api: HfApi, repo_id: str, revision: str | None) -> list[LocalFile]:
    tree: list[Any] = list(api.list_repo_tree(repo_id, recursive=True, revision=revision))
    remote = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    return [file for file in files if file.name not in remote or not file.equals(remote[file.name])]


def _verify(files: Sequence[LocalFile], api: HfApi, repo_id: str, commit: str) -> None:
    # The bytes themselves: the listing would only repeat the hashes that were sent.
    with tempfile.TemporaryDirectory() as cache:
        for file in files:
            path = api.hf_hub_download(repo_id, file.name, revision=commit, cache_dir=cache)
            if LocalFile.read(Path(path), file.name).sha256 != file.sha256:
                raise PublishingError(
                    f"{file.name} came back from {repo_id} with another hash than it was sent with, and {commit[:12]} "
                    "was not tagged: run the same command again, and delete the file on the Hub if that does not help."
                )
