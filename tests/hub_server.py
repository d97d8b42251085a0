"""A server of the Hub's HTTP routes for the real huggingface-hub client, and models for it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from restorekit.hub import ModelCard

Files = dict[str, bytes]

CARD = ModelCard(
    name="net.test",
    architecture="net",
    config={"width": 4},
    task="denoise",
    transfer="srgb",
    layout="rgb",
    licence="CC0-1.0",
    scores={"psnr": 31.5},
)


def stored(content: bytes, **changes: object) -> Files:
    """Return the files of a model with the given weights, its card changed as named."""
    sha256 = hashlib.sha256(content).hexdigest()
    values = CARD.to_json() | {"sha256": sha256} | changes
    return {"config.json": json.dumps(values).encode(), "model.safetensors": content}


def bundle_of(folder: Path, content: bytes) -> Path:
    """Make a folder of bundled weights with one model."""
    sha256 = hashlib.sha256(content).hexdigest()
    card = replace(CARD, file="net.test.safetensors", sha256=sha256)
    folder.mkdir()
    (folder / card.file).write_bytes(content)
    manifest = {"version": 1, "models": [card.to_json()]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class HubServer(ThreadingHTTPServer):
    """Hold repositories by name and commit; break what the test names."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, Files]] = {}
        self.heads: dict[str, str] = {}
        self.requests: list[str] = []
        self.corrupted: set[str] = set()
        self.dropped: set[str] = set()
        self.status: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def publish(self, repo: str, files: Files) -> str:
        commits = self.commits.setdefault(repo, {})
        listing = f"{repo}{len(commits)}{sorted(files.items())}"
        commit = hashlib.sha1(listing.encode()).hexdigest()
        commits[commit] = files
        self.heads[repo] = commit
        return commit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        self._resolve(with_body=True)

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            repo = json.loads(body)
            name = f"{repo['organization']}/{repo['name']}"
            self._answer_json({"url": f"{self.server.url}/{name}"})
            return
        _, _, _, user, name, action, _ = self.path.split("/")
        if action == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer_json({"files": modes})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commit = self.server.publish(f"{user}/{name}", files)
            url = f"{self.server.url}/{user}/{name}/commit/{commit}"
            self._answer_json({"commitUrl": url, "commitOid": commit})

    def _resolve(self, *, with_body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        user, name, _, revision, file = self.path[1:].split("/", 4)
        repo = f"{user}/{name}"
        if self.server.status is not None:
            self._answer(self.server.status, {})
            return
        if repo not in self.server.commits:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
            return
        commit = self.server.heads[repo] if revision == "main" else revision
        if commit not in self.server.commits[repo]:
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
            return
        files = self.server.commits[repo][commit]
        if file not in files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = files[file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if file in self.server.corrupted:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if with_body and file in self.server.dropped:
            self._answer(200, headers, content, sent=len(content) * 9 // 10)
            self.close_connection = True
        else:
            self._answer(200, headers, content, sent=len(content) if with_body else 0)

    def _answer_json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self._answer(200, {"Content-Type": "application/json"}, content, sent=len(content))

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes = b"", *, sent: int = 0
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """Serve until the block ends."""
    with HubServer() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point the client of this process, which read its environment at import, at another Hub."""
    from huggingface_hub import close_session, constants

    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    close_session()
