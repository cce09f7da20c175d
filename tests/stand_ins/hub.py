"""A hub on loopback, in a thread. It answers the read requests of huggingface_hub, datasets and transformers.

Each repository is a folder with one commit. An unknown repository, revision or file is refused as the hub refuses it.
Clients read the hub's address when they are imported, so they run in processes of their own, with `Hub.environment`.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tests.stand_ins.loopback import loopback

Kind = Literal["models", "datasets"]
LARGE = 1 << 20  # bytes; the hub keeps larger files in LFS
MISSING = {"RepoNotFound": 401, "RevisionNotFound": 404, "EntryNotFound": 404}
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Faults:
    """The faults of a hub. The defaults are no faults."""

    fail_every: int = 0
    """Each n-th request is answered with 500; 1 is every request."""
    status: int = 0
    """Every request is answered with this status."""
    wait: int = 0
    """Every answer comes after this number of seconds."""
    stop_after: int = 0
    """The answer for a file and the connection end after this number of bytes."""


@dataclass(frozen=True)
class Repository:
    """A folder that is served as a repository."""

    folder: Path
    commit: str = "0123456789abcdef0123456789abcdef01234567"

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The hub's description of each file, by its path in the repository."""
        found = {}
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            content = file.read_bytes()
            name, digest, size = (
                file.relative_to(self.folder).as_posix(),
                hashlib.sha256(content).hexdigest(),
                len(content),
            )
            found[name] = {"type": "file", "oid": digest[:40], "size": size, "path": name}
            if size > LARGE:
                found[name]["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
        return found

    def tree(self, under: str, recursive: bool) -> list[dict[str, Any]]:
        """Files and folders below a folder; empty if there is no such folder."""
        prefix = f"{under}/" if under else ""
        below = [entry for name, entry in self.entries.items() if name.startswith(prefix)]
        inner = sorted({prefix + entry["path"][len(prefix) :].partition("/")[0] for entry in below})
        folders = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
            for name in inner
            if name not in self.entries
        ]
        return [*folders, *(entry for entry in below if recursive or entry["path"] in inner)]


@dataclass
class Hub:
    """The server. `faults` may be changed at any time."""

    repositories: Mapping[tuple[Kind, str], Repository]
    faults: Faults = field(default_factory=Faults)
    endpoint: str = ""

    @contextmanager
    def serving(self) -> Iterator["Hub"]:
        """Serves until the block ends."""
        with loopback(_handler(self)) as self.endpoint:
            yield self

    def environment(self, cache: Path) -> dict[str, str]:
        """The environment of a process that uses this hub and stores its downloads in `cache`."""
        ours = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        return ours | {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    numbers = count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

        def answer(self, value: Any, status: int = 200, **headers: str) -> None:
            body = json.dumps(value).encode()
            self.start(status, {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers)
            if self.command != "HEAD":
                self.wfile.write(body)

        def start(self, status: int, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def missing(self, what: str) -> None:
            self.answer({"error": what}, MISSING[what], **{"X-Error-Code": what, "X-Error-Message": what})

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            time.sleep(hub.faults.wait)
            if hub.faults.status:
                return self.answer({"error": "a requested fault"}, hub.faults.status)
            if hub.faults.fail_every and next(numbers) % hub.faults.fail_every == 0:
                return self.answer({"error": "a requested fault"}, 500)
            url = urlsplit(self.path)
            if match := FILE.fullmatch(unquote(url.path)):
                return self.file("datasets" if match[1] else "models", *match.group(2, 3, 4))
            if match := API.fullmatch(unquote(url.path)):
                kind: Kind = "datasets" if match[1] == "datasets" else "models"
                deep = parse_qs(url.query).get("recursive", ["false"])[0].lower() in ("true", "1")
                name, verb, revision, under = match.group(2, 3, 4, 5)
                return self.ask(kind, name, verb, revision, under, deep, body)
            return self.answer({"error": "not served here"}, 404)

        def repository(self, kind: Kind, name: str, revision: str | None) -> Repository | None:
            """The repository at this revision. Sends the refusal and returns None if there is none."""
            found = hub.repositories.get((kind, name))
            known = found is not None and revision in (None, "main", found.commit)
            if not known:
                self.missing("RevisionNotFound" if found else "RepoNotFound")
            return found if known else None

        def ask(
            self, kind: Kind, name: str, verb: str | None, revision: str | None, under: str | None,
            deep: bool, sent: str,
        ) -> None:  # fmt: skip
            if (found := self.repository(kind, name, revision)) is None:
                return
            if verb == "tree":
                tree = found.tree(under or "", deep)
                self.answer(tree) if tree else self.missing("EntryNotFound")
            elif verb == "paths-info":
                asked = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent).get("paths", [])
                self.answer([found.entries[path] for path in asked if path in found.entries])
            else:
                date = "2025-01-01T00:00:00.000Z"
                self.answer({
                    "id": name, "_id": "0" * 24, "sha": found.commit, "author": name.partition("/")[0], "tags": [],
                    "private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "createdAt": date,
                    "siblings": [{"rfilename": path} for path in found.entries], "lastModified": date,
                })  # fmt: skip

        def file(self, kind: Kind, name: str, revision: str, path: str) -> None:
            if (found := self.repository(kind, name, revision)) is None:
                return
            if path not in found.entries:
                self.missing("EntryNotFound")
                return
            entry = found.entries[path]
            size, tag = entry["size"], f'"{entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}"'
            first, last = 0, size - 1
            headers = {"ETag": tag, "X-Repo-Commit": found.commit, "Accept-Ranges": "bytes"}
            if "lfs" in entry:
                headers |= {"X-Linked-Size": str(size), "X-Linked-ETag": tag}
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked:
                first, last = int(asked[1]), min(int(asked[2] or last), last)
                headers["Content-Range"] = f"bytes {first}-{last}/{size}"
            content = (found.folder / path).read_bytes()[first : last + 1]
            self.start(206 if asked else 200, headers | {"Content-Length": str(len(content))})
            if self.command != "HEAD":
                stop = hub.faults.stop_after
                self.wfile.write(content[:stop] if stop else content)
                self.close_connection |= 0 < stop < len(content)

        do_GET = do_HEAD = do_POST = handle_request  # noqa: N815

    return Handler
