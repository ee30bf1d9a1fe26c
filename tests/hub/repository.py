"""What the test Hub stores: repositories with commits, branches and tags, all in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".png", ".npz")


@dataclass(frozen=True)
class Blob:
    """The content of one file. `is_lfs` says how it was committed."""

    content: bytes
    is_lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The git object's name: that of the pointer file, where the content is stored by LFS."""
        data = self.content
        if self.is_lfs:
            data = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.oid

    def entry(self, path: str) -> dict:
        """The file as the tree endpoint lists it."""
        entry: dict = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.is_lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


@dataclass
class Repository:
    """One model repository. `is_gated` lets everybody see it, and only `readers` download from it."""

    name: str
    is_private: bool = False
    is_gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")})

    def commit(self, branch: str, files: dict[str, Blob]) -> str:
        """Make `files` the content of a branch, and return the commit's name."""
        text = f"{self.name} {branch} {len(self.commits)}" + "".join(f"{p} {files[p].oid}" for p in sorted(files))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's name stands for."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return sha if sha in self.commits else None

    def files(self, revision: str = "main") -> dict[str, Blob]:
        sha = self.resolve(revision)
        return {} if sha is None else self.commits[sha]
