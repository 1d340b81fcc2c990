"""A Hugging Face hub on this machine, with the answers that the real one gives.

Listings, redirects of large files to another address, ETags, parts of files, and on demand: broken
connections, damaged content, gated repositories.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".pt", ".pth", ".bin")
"""Files that the hub keeps apart, under the sha256 of their content."""


@dataclass
class Hub:
    """What is served, how, and what was asked for."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # outside the hub: path -> content
    url: str = ""
    storage: str = ""  # under another name: the client tells the two hosts apart
    gated: set[str] = field(default_factory=set)
    breaks: list[int] = field(default_factory=list)  # bytes after which the next answers break off
    damaged: set[str] = field(default_factory=set)  # paths whose first byte is another one
    asked: list[tuple[str, str]] = field(default_factory=list)  # (method, path)


def is_large(path: str) -> bool:
    return path.endswith(LARGE)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listing(files: dict[str, bytes]) -> list[dict[str, object]]:
    """The answer to a request for a repository's tree."""
    entries: list[dict[str, object]] = []
    for path, content in files.items():
        entry = {"type": "file", "oid": git_sha1(content), "size": len(content), "path": path}
        if is_large(path):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        entries.append(entry)
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": p} for p in folders]
    return entries


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)[1:]
            hub.asked.append((self.command, path))
            if path in hub.files:
                return self.redirect(f"{hub.storage}/blobs/{path}", {})
            if path.startswith("blobs/"):
                return self.send_blob(path.removeprefix("blobs/"))
            if path.startswith("api/models/"):
                owner, name, *what = path.removeprefix("api/models/").split("/")
                repo = f"{owner}/{name}"
                if repo not in hub.repos:
                    return self.refuse(404, "RepoNotFound")
                answer: object = listing(hub.repos[repo])
                if what[:1] == ["tree"]:
                    assert what[1:] in (["main"], [COMMIT])
                else:  # about the repository
                    assert what in ([], ["revision", "main"], ["revision", COMMIT])
                    siblings = [{"rfilename": file} for file in hub.repos[repo]]
                    answer = {"id": repo, "sha": COMMIT, "siblings": siblings}
                return self.send_bytes(json.dumps(answer).encode(), {})
            repo, _, rest = path.partition("/resolve/")
            _, _, file = rest.partition("/")
            if repo not in hub.repos:
                return self.refuse(404, "RepoNotFound")
            if repo in hub.gated:
                return self.refuse(403, "GatedRepo")
            content = hub.repos[repo].get(file)
            if content is None:
                return self.refuse(404, "EntryNotFound")
            headers = {"X-Repo-Commit": COMMIT}
            if not is_large(file):
                return self.send_bytes(content, headers | {"ETag": f'"{git_sha1(content)}"'})
            linked = {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            return self.redirect(f"{hub.storage}/blobs/{repo}/{file}", headers | linked)

        def send_blob(self, path: str) -> None:
            if path in hub.files:
                content = hub.files[path]
            else:
                owner, name, file = path.split("/", 2)
                content = hub.repos[f"{owner}/{name}"][file]
            if path in hub.damaged:
                content = bytes([content[0] ^ 1]) + content[1:]
            self.send_bytes(content, {"ETag": f'"{sha256(content)}"', "Accept-Ranges": "bytes"})

        def send_bytes(self, content: bytes, headers: dict[str, str]) -> None:
            first = 0
            if wanted := self.headers["Range"]:
                first = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if first else 200)
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            for key, value in (headers | {"Content-Length": str(len(content) - first)}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                blob = unquote(self.path).startswith("/blobs/")
                breaks = hub.breaks.pop(0) if hub.breaks and blob else None
                self.wfile.write(content[first : None if breaks is None else first + breaks])

        def redirect(self, where: str, headers: dict[str, str]) -> None:
            self.send_response(302)
            for key, value in (headers | {"Location": where, "Content-Length": "0"}).items():
                self.send_header(key, value)
            self.end_headers()

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            for key, value in {"X-Error-Code": code, "Content-Length": "0"}.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
