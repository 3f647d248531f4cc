"""A small hub on loopback: the endpoints that huggingface_hub's upload_folder and snapshot_download use, with real commits.

Regular files come inside a commit, *.safetensors and *.parquet by LFS's basic transfer. Repositories are private or public,
and nothing private is told without the token. Left out: Xet, branches but main, pull requests, multi-part uploads.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_madeUpTokenOfTheTests"
LARGE = (".safetensors", ".parquet")
_REPO = r"/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"


@dataclass
class File:
    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        """SHA-256 of a large file, else git's name of the blob."""
        return self.sha256 if self.lfs else hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: dict[str, File]) -> str:
        names = json.dumps([len(self.commits), {name: file.etag for name, file in sorted(files.items())}])
        sha = hashlib.sha1(names.encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def at(self, revision: str) -> dict[str, File]:
        return self.commits[self.head if revision == "main" else revision]


@dataclass
class Hub:
    """What a server holds. `seen`: method and path of every request; `answers` may be changed to break things."""

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)

    def files(self, repo: str, kind: str = "models") -> dict[str, bytes]:
        repository = self.repositories[kind, repo]
        return {name: file.content for name, file in repository.at("main").items()}

    def change(self, repo: str, kind: str = "models", **contents: bytes | None) -> None:
        """Commit changed files behind the pusher's back; None removes one. Names are given with __ for a dot."""
        repository = self.repositories[kind, repo]
        files = dict(repository.at("main"))
        for key, content in contents.items():
            name = key.replace("__", ".")
            if content is None:
                del files[name]
            else:
                files[name] = File(content, name.endswith(LARGE))
        repository.commit(files)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append((self.command, path))
        body = self._body()
        routes = {
            "POST /api/repos/create": self._create,
            "POST /api/validate-yaml": self._validate,
            rf"GET /api{_REPO}(/revision/(?P<revision>[^/]+))?": self._info,
            rf"GET /api{_REPO}/tree/(?P<revision>[^/]+)": self._tree,
            rf"POST /api{_REPO}/preupload/(?P<revision>[^/]+)": self._preupload,
            rf"POST /api{_REPO}/commit/(?P<revision>[^/]+)": self._commit,
            r"POST /(datasets/)?[^/]+/[^/]+\.git/info/lfs/objects/batch": self._batch,
            r"PUT /lfs/(?P<oid>[0-9a-f]{64})": self._store,
            r"(GET|HEAD) /(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)": self._resolve,
        }
        for pattern, answer in routes.items():
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                answer(body, **{key: value for key, value in found.groupdict().items() if value is not None})
                return
        self._json(501, {"error": f"not part of this hub: {self.command} {path}"})

    def _body(self) -> bytes:
        """Of known length, or in chunks, as large files are sent."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, status: int, content: Any, **headers: str) -> None:
        self._bytes(status, json.dumps(content).encode(), **{"Content-Type": "application/json", **headers})

    def _bytes(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _found(self, kind: str, repo: str) -> Repository | None:
        """None, and answered as the real one does, if it isn't there or not for this caller."""
        repository = self.hub.repositories.get((kind, repo))
        if repository is None or (repository.private and not self._is_known):
            self._json(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return repository

    def _writable(self, kind: str, repo: str) -> Repository | None:
        if not self._is_known:
            self._json(401, {"error": "Invalid username or password."})
            return None
        return self._found(kind, repo)

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        if not self._is_known:
            self._json(401, {"error": "Invalid username or password."})
            return
        repo = f"{asked['organization']}/{asked['name']}"
        repository = Repository(private=asked.get("visibility", "public") == "private")
        repository.commit({".gitattributes": File(b"*.safetensors filter=lfs\n*.parquet filter=lfs\n")})
        kind = f"{asked.get('type') or 'model'}s"
        self.hub.repositories[kind, repo] = repository
        self._json(200, {"url": f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{repo}"})

    def _validate(self, body: bytes) -> None:
        head = json.loads(body)["content"].split("---\n")[1]
        content = yaml.safe_load(head)
        good = isinstance(content, dict) and "license" in content
        self._json(200 if good else 400, {"errors": [] if good else [{"message": "no license"}], "warnings": []})

    def _info(self, body: bytes, kind: str, repo: str, revision: str = "main") -> None:
        repository = self._found(kind, repo)
        if repository is not None:
            if revision != "main" and revision not in repository.commits:
                self._json(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
                return
            siblings = [{"rfilename": name} for name in repository.at(revision)]
            sha = repository.head if revision == "main" else revision
            self._json(200, {"id": repo, "sha": sha, "private": repository.private, "siblings": siblings})

    def _tree(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        repository = self._found(kind, repo)
        if repository is not None:
            rows: list[dict[str, Any]] = []
            for name, file in repository.at(revision).items():
                row = {"type": "file", "path": name, "size": len(file.content), "oid": file.etag}
                if file.lfs:
                    row["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
                rows.append(row)
            self._json(200, rows)

    def _preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if self._writable(kind, repo) is not None:
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._json(200, {"files": modes})

    def _batch(self, body: bytes) -> None:
        """An object that is there already needs no upload."""
        answers = []
        for one in json.loads(body)["objects"]:
            href = {"href": f"{self.hub.url}/lfs/{one['oid']}"}
            answers.append(one if one["oid"] in self.hub.large else {**one, "actions": {"upload": href}})
        self._json(200, {"transfer": "basic", "objects": answers}) if self._is_known else self._json(401, {"error": "no token"})

    def _store(self, body: bytes, oid: str) -> None:
        good = hashlib.sha256(body).hexdigest() == oid
        if good:
            self.hub.large[oid] = body
        self._json(200 if good else 422, {})

    def _commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        repository = self._writable(kind, repo)
        if repository is None:
            return
        files = dict(repository.at("main"))
        for line in body.decode().splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif one["key"] == "lfsFile":
                files[value["path"]] = File(self.hub.large[value["oid"]], lfs=True)
            elif one["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(files)
        self._json(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"})

    def _resolve(self, body: bytes, repo: str, revision: str, name: str, kind: str = "models") -> None:
        repository = self._found(kind.strip("/"), repo)
        if repository is None:
            return
        sha = repository.head if revision == "main" else revision
        file = repository.at(revision).get(name)
        if file is None:
            self._json(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            return
        headers = {"X_Repo_Commit": sha, "ETag": f'"{file.etag}"', "Accept_Ranges": "bytes"}
        if file.lfs:
            headers |= {"X_Linked_Size": str(len(file.content)), "X_Linked_Etag": f'"{file.etag}"'}
        self._bytes(200, file.content, **headers)


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
