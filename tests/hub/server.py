"""A small Hugging Face Hub for tests: what the real huggingface_hub client calls, on a local port, in memory."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub.repository import LFS_SUFFIXES, Blob, Repository

Reply = tuple[int, Any]


@dataclass
class Fault:
    """Spoils `times` replies to requests of a method whose path contains `path`.

    Args:
        kind: "drop" closes the connection before the request is handled, "lose" after it, "cut" in the middle of the
            content; "short" sends half of the content as if that were all, "corrupt" changes the first bytes of the
            content, "corrupt_end" the last.
    """

    method: str
    path: str
    kind: str
    times: int = 1_000_000


class HubServer:
    """The server and its content. Use as a context manager.

    Attributes:
        url: what HF_ENDPOINT must say.
        users: name of the user of each token; `writers` are those who may create and change repositories.
        repositories: by name, such as "org/name".
        objects: contents that LFS uploaded, by SHA-256.
        requests: (method, path) of all requests so far.
        cdn_url: where large files are downloaded from.
        tokens_at_cdn: how many requests brought a token there.
        faults: replies to spoil.
        unknown: requests for which the server has no endpoint.
    """

    def __init__(self) -> None:
        self.users = {"token-of-the-writer": "writer", "token-of-the-reader": "reader"}
        self.writers = {"writer"}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.unknown: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        # Another host, as in reality: the client must follow there, without its token.
        self.cdn_url = f"http://localhost:{port}"
        self.tokens_at_cdn = 0
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        """Create a repository with files, without a client."""
        repository = self.repositories[name] = Repository(name, **options)
        repository.commit("main", {p: Blob(content, p.endswith(LFS_SUFFIXES)) for p, content in files.items()})
        return repository

    def take_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and fault.path in path and fault.times > 0:
                    fault.times -= 1
                    return fault.kind
        return None

    def count(self, method: str, path: str) -> int:
        """How many requests there were of a method whose path contains `path`."""
        return sum(each == method and path in where for each, where in list(self.requests))


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.hub.requests.append((self.command, path))
        body = self._body()
        self.fault = self.hub.take_fault(self.command, path)
        if self.fault == "drop":
            self.close_connection = True
            return
        try:
            self._route(path.strip("/").split("/"), body)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            content = json.dumps({"error": refusal.message}).encode()
            self._send(refusal.status, content, {name: value for name, value in headers.items() if value})

    def _route(self, parts: list[str], body: bytes) -> None:
        method = self.command
        match parts:
            case ["api", "agent-harnesses"]:
                self._json([])
            case ["api", "whoami-v2"]:
                if self._user() is None:
                    raise _Refusal(401, message="Invalid credentials in Authorization header")
                self._json({"type": "user", "name": self._user(), "orgs": [], "auth": {"type": "access_token"}})
            case ["api", "repos", "create"] if method == "POST":
                self._create(json.loads(body))
            case ["api", "validate-yaml"] if method == "POST":
                starts_well = json.loads(body)["content"].startswith("---\n")
                errors = [] if starts_well else [{"message": "no metadata"}]
                self._json({"errors": errors, "warnings": []}, 200 if starts_well else 400)
            case ["api", "models", owner, name, *rest]:
                self._api(self._repository(f"{owner}/{name}"), rest, body)
            case [owner, name, "info", "lfs", "objects", "batch"] if method == "POST":
                self._lfs_batch(self._repository(f"{owner}/{name.removesuffix('.git')}", write=True), json.loads(body))
            case ["lfs", "verify"] if method == "POST":
                self._json({}, 200 if json.loads(body)["oid"] in self.hub.objects else 404)
            case ["lfs", oid] if method == "PUT":
                if Blob(body).sha256 != oid:
                    raise _Refusal(400, message="the content does not have this hash")
                self.hub.objects[oid] = body
                self._json({})
            case ["cdn", oid, *_] if method in ("GET", "HEAD"):
                self.hub.tokens_at_cdn += "Authorization" in self.headers
                self._content(Blob(self.hub.objects[oid], is_lfs=True), {})
            case [owner, name, "resolve", revision, *path] if method in ("GET", "HEAD"):
                self._resolve(self._repository(f"{owner}/{name}", download=True), revision, "/".join(path))
            case _:
                self._unknown()

    def _unknown(self) -> None:
        self.hub.unknown.append((self.command, self.path))
        raise _Refusal(404, message="the test Hub has no such endpoint")

    def _create(self, request: dict) -> None:
        user = self._user()
        if user not in self.hub.writers:
            raise _Refusal(401 if user is None else 403, message="You don't have the rights to create this model")
        name = f"{request.get('organization') or user}/{request['name']}"
        exists = name in self.hub.repositories
        if not exists:
            self.hub.repositories[name] = Repository(name, is_private=request.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name}, 409 if exists else 200)

    def _api(self, repository: Repository, rest: list[str], body: bytes) -> None:
        writes = self.command != "GET" and rest[:1] != ["paths-info"]
        if writes and self._user() not in self.hub.writers:
            raise _Refusal(403, message="You have no right to write to this repository")
        match rest:
            case [] | ["revision", _]:
                self._info(repository, rest[1] if rest else "main")
            case ["tree", revision, *folder]:
                self._tree(repository, revision, "/".join(folder))
            case ["paths-info", revision]:
                files = repository.files(revision)
                self._json([files[p].entry(p) for p in parse_qs(body.decode()).get("paths", []) if p in files])
            case ["refs"]:
                refs = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
                reply: dict = {"converts": []}
                for kind, (folder, names) in refs.items():
                    reply[kind] = [
                        {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha}
                        for name, sha in names.items()
                    ]
                self._json(reply)
            case ["preupload", revision]:
                files = repository.files(revision)
                self._json({"files": [_upload_mode(each, files) for each in json.loads(body)["files"]]})
            case ["commit", revision]:
                self._commit(repository, revision, [json.loads(line) for line in body.splitlines() if line])
            case ["tag", revision]:
                tag = json.loads(body)["tag"]
                if tag in repository.tags:
                    raise _Refusal(409, message="Tag reference exists already")
                repository.tags[tag] = self._sha(repository, revision)
                self._json({})
            case _:
                self._unknown()

    def _info(self, repository: Repository, revision: str) -> None:
        sha = self._sha(repository, revision)
        siblings = [{"rfilename": path} for path in repository.commits[sha]]
        kind = {"private": repository.is_private, "gated": "manual" if repository.is_gated else False}
        self._json({"id": repository.name, "modelId": repository.name, "sha": sha, "siblings": siblings} | kind)

    def _tree(self, repository: Repository, revision: str, folder: str) -> None:
        files = repository.commits[self._sha(repository, revision)]
        prefix = f"{folder}/" if folder else ""
        inside = {path: blob for path, blob in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise _Refusal(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        entries = [blob.entry(path) for path, blob in inside.items()]
        if self.query.get("recursive", ["False"])[0].lower() != "true":
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
        self._json(entries)

    def _lfs_batch(self, repository: Repository, request: dict) -> None:
        objects = []
        for each in request["objects"]:
            reply = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.objects:
                verify = {"href": f"{self.hub.url}/lfs/verify"}
                reply["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}, "verify": verify}
            objects.append(reply)
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, revision: str, lines: list[dict]) -> None:
        files = dict(repository.files(revision))
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]))
                case "lfsFile":
                    if value["oid"] not in self.hub.objects:
                        raise _Refusal(400, message=f"{value['path']} was not uploaded")
                    files[value["path"]] = Blob(self.hub.objects[value["oid"]], is_lfs=True)
                case "deletedFile":
                    del files[value["path"]]
        sha = repository.commit(revision, files)
        url = f"{self.hub.url}/{repository.name}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url, "pullRequestUrl": None})

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        sha = self._sha(repository, revision)
        blob = repository.commits[sha].get(path)
        headers = {"X-Repo-Commit": sha}
        if blob is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self._send(404, b"", headers)
        elif blob.is_lfs:
            self.hub.objects.setdefault(blob.sha256, blob.content)
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
            self._send(302, b"", headers | {"Location": f"{self.hub.cdn_url}/cdn/{blob.sha256}/{path}"})
        else:
            self._content(blob, headers)

    def _content(self, blob: Blob, headers: dict[str, str]) -> None:
        content, status = blob.content, 200
        headers = headers | {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end), len(content) - 1) if end else len(content) - 1
            if first >= len(content):
                raise _Refusal(416)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[first : last + 1], 206
        self._send(status, content, headers)

    def _repository(self, name: str, write: bool = False, download: bool = False) -> Repository:
        repository, user = self.hub.repositories.get(name), self._user()
        if repository is None or (repository.is_private and user is None):
            # The Hub does not say whether a repository exists to those who may not see it.
            raise _Refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user not in self.hub.writers:
            raise _Refusal(403, message="You have no right to write to this repository")
        if download and repository.is_gated and user not in repository.readers:
            status = 401 if user is None else 403
            raise _Refusal(status, "GatedRepo", f"Access to model {name} is restricted")
        return repository

    def _sha(self, repository: Repository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def _user(self) -> str | None:
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        if self.fault == "lose":
            self.close_connection = True
            return
        if self.fault == "corrupt":
            content = bytes(255 - byte for byte in content[:16]) + content[16:]
        elif self.fault == "corrupt_end":
            content = content[:-4] + bytes(255 - byte for byte in content[-4:])
        elif self.fault == "short":
            content = content[: len(content) // 2]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.fault == "cut":
            self.close_connection = True
            content = content[: len(content) // 2]
        if self.command != "HEAD":
            self.wfile.write(content)


def _upload_mode(file: dict, files: dict[str, Blob]) -> dict:
    path = file["path"]
    is_binary = path.endswith(LFS_SUFFIXES) or b"\0" in base64.b64decode(file["sample"])
    known = files.get(path)
    return {
        "path": path,
        "uploadMode": "lfs" if is_binary else "regular",
        "shouldIgnore": False,
        "oid": None if known is None else known.etag,
    }
