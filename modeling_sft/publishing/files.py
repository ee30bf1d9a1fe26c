"""The files of a folder that are published, with their hashes."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CARD_NAME = "README.md"
EVAL_RESULTS_FOLDER = ".eval_results"
_SUFFIXES = {
    ".cff",
    ".jinja",
    ".json",
    ".md",
    ".model",
    ".png",
    ".py",
    ".safetensors",
    ".svg",
    ".txt",
    ".yaml",
    ".yml",
}
_NAMES = {"LICENSE", "NOTICE"}
_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


@dataclass(frozen=True)
class LocalFile:
    """One file to publish.

    Args:
        name: its path in the repository.
        source: where it lies, or its content if it lies nowhere, as generated code does.
        size: in bytes.
        sha256, git_oid: hashes by which the Hub knows large and small files.
    """

    name: str
    source: Path | bytes
    size: int
    sha256: str
    git_oid: str

    @classmethod
    def read(cls, source: Path | bytes, name: str) -> LocalFile:
        """Read a file in blocks, and hash it."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
                git.update(block)
        return cls(name, source, size, sha256.hexdigest(), git.hexdigest())

    def read_bytes(self) -> bytes:
        """The whole content."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def equals(self, remote: Any) -> bool:
        """Whether a `RepoFile` of the Hub has the same content."""
        return self.sha256 == remote.lfs.sha256 if remote.lfs is not None else self.git_oid == remote.blob_id


def check_inside(folder: Path, path: Path) -> None:
    """Raise a ValueError if a path in a folder leads out of it, which only links do."""
    if not path.resolve().is_relative_to(folder.resolve()):
        name = path.relative_to(folder).as_posix()
        raise ValueError(f"{name} is a link that leads out of the folder: replace it by a copy, or remove it.")


def list_files(folder: Path) -> tuple[list[LocalFile], list[str]]:
    """List the files to publish, and the names of what is left out: checkpoints, pickles, hidden files.

    Raises:
        ValueError: if a file contains what looks like a Hub token, or is a link that leads out of the folder.
    """
    files, left_out = [], []
    for path in sorted([*folder.iterdir(), *folder.glob(f"{EVAL_RESULTS_FOLDER}/*.yaml")]):
        name = path.relative_to(folder).as_posix()
        if name == EVAL_RESULTS_FOLDER:
            continue
        is_published = path.suffix in _SUFFIXES or name in _NAMES
        if not path.is_file() or path.name.startswith(".") or not is_published:
            left_out.append(name + "/" * path.is_dir())
            continue
        check_inside(folder, path)
        if path.suffix != ".safetensors" and _TOKEN.search(path.read_bytes()):
            raise ValueError(f"{name} contains what looks like a Hub token: remove it, and revoke the token.")
        files.append(LocalFile.read(path, name))
    return files, left_out


def format_size(size: int) -> str:
    """Write a number of bytes for reading: `812 B`, `1.2 MB`."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
