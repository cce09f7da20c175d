"""A hub on loopback that takes uploads, in a thread: the requests of huggingface_hub's `upload_folder`, without Xet.

Clients read the hub's address when they are imported, so they run in processes of their own, with
`UploadHub.environment`.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.stand_ins.loopback import loopback

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class UploadHub:
    """The server, with all that it was sent."""

    token: str = "hf_right"
    refused: int = 0
    """The status with which every commit is answered; 0: commits are taken."""
    repositories: dict[str, bool] = field(default_factory=dict)  # by id: whether it is private
    files: dict[str, bytes] = field(default_factory=dict)  # of commits, by path
    blobs: dict[str, bytes] = field(default_factory=dict)  # of LFS, by digest
    messages: list[str] = field(default_factory=list)  # of commits
    endpoint: str = ""

    @contextmanager
    def serving(self) -> Iterator["UploadHub"]:
        """Serves until the block ends."""
        with loopback(_handler(self)) as self.endpoint:
            yield self

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a process that uploads here."""
        ours = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        ours |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return ours | ({"HF_TOKEN": token} if token else {})


def _handler(hub: UploadHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

        def answer(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            if path.startswith("/lfs/"):
                hub.blobs[path.removeprefix("/lfs/")] = body
                return self.answer({})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.answer({"error": "Invalid credentials in Authorization header"}, 401)
            if path == "/api/whoami-v2":
                return self.answer({"name": "me", "type": "user"})
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            given = [json.loads(line) for line in body.splitlines()] if body else []
            if re.fullmatch(r"/api/models/[^/]+/[^/]+/tree/main", path):
                listed = [{"type": "file", "path": name, "size": len(content), "oid": COMMIT}
                          for name, content in hub.files.items()]  # fmt: skip
                return self.answer(listed)
            if path == "/api/repos/create":
                return self.create(given[0])
            if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
                modes = [{"path": one["path"], "uploadMode": self.mode(one["path"]), "shouldIgnore": False}
                         for one in given[0]["files"]]  # fmt: skip
                return self.answer({"files": modes})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [one | {"actions": {"upload": {"href": f"{hub.endpoint}/lfs/{one['oid']}"}}}
                           for one in given[0]["objects"]]  # fmt: skip
                return self.answer({"transfer": "basic", "objects": objects})
            if re.fullmatch(r"/api/models/[^/]+/[^/]+/commit/main", path):
                return self.commit(given, path.split("/commit/")[0].removeprefix("/api/models/"))
            return self.answer({"error": "not served here"}, 404)

        def create(self, given: dict[str, Any]) -> None:
            owner = given.get("organization") or "me"
            name = f"{owner}/{given['name']}"
            if owner != "me":
                return self.answer({"error": "You don't have the rights to create a model here"}, 403)
            if name in hub.repositories:
                return self.answer({"url": f"{hub.endpoint}/{name}", "error": "You already created this repo"}, 409)
            hub.repositories[name] = given.get("visibility") == "private" or bool(given.get("private"))  # by release
            return self.answer({"url": f"{hub.endpoint}/{name}", "name": name})

        def mode(self, path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        def commit(self, given: list[dict[str, Any]], name: str) -> None:
            if hub.refused:
                return self.answer({"error": "a requested fault"}, hub.refused)
            for one in given:
                value = one["value"]
                if one["key"] == "header":
                    hub.messages.append(value["summary"])
                elif one["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif one["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.blobs[value["oid"]]
                elif one["key"] == "deletedFile":
                    del hub.files[value["path"]]
            return self.answer({"commitUrl": f"{hub.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

        do_GET = do_POST = do_PUT = do_HEAD = handle_request  # noqa: N815 (the names of http.server)

    return Handler
