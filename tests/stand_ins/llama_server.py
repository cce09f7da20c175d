"""A real llama.cpp that serves a GGUF file: the program llama-server, or the same server in the package xllamacpp.

The variable THINKWRIGHT_LLAMA_SERVER names a program; it is taken before the package.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

PROGRAM = os.environ.get("THINKWRIGHT_LLAMA_SERVER")
THERE = bool(PROGRAM) or find_spec("xllamacpp") is not None
REASON = "needs a llama.cpp: pip install xllamacpp, or a llama-server named by THINKWRIGHT_LLAMA_SERVER"
SECONDS = 300  # that an answer may take on a machine with other work
CONTEXT = 1_024
# In a process of its own: an assertion in llama.cpp ends the process. It serves until its input is closed
PACKAGE = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, port, params.reasoning_format = sys.argv[1], int(sys.argv[2]), getattr(
    xllamacpp.common_reasoning_format, "COMMON_REASONING_FORMAT_" + sys.argv[3].upper())
params.hostnames, params.port, params.n_ctx, params.n_parallel = ["127.0.0.1"], port, int(sys.argv[4]), 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup, params.use_jinja = False, True
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class LlamaServer:
    """Requests to a running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **request: Any) -> Any:
        body = json.dumps(request).encode()
        call = urllib.request.Request(f"{self.address}{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(call, timeout=SECONDS) as reply:
            return json.load(reply)

    def stream(self, path: str, **request: Any) -> list[Any]:
        body = json.dumps(request | {"stream": True}).encode()
        call = urllib.request.Request(f"{self.address}{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(call, timeout=SECONDS) as reply:
            lines = [line.decode().strip().removeprefix("data: ") for line in reply if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def ids(self, text: str) -> list[int]:
        """The ids of a text in which the names of tokens are tokens, as in a prompt of the server."""
        found: list[int] = self.ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        return found

    def prompt(self, messages: list[Any]) -> str:
        found: str = self.ask("/apply-template", messages=messages)["prompt"]
        return found

    def greedy(self, ids: list[int], most: int) -> list[int]:
        """The ids that are written after a prompt; the end token is not among them."""
        done = self.ask(
            "/completion", prompt=ids, n_predict=most, temperature=0, return_tokens=True, cache_prompt=False
        )
        found: list[int] = done["tokens"]
        return found


@contextmanager
def serving(path: Path, reasoning_format: str = "auto", **environment: str) -> Iterator[LlamaServer]:
    """Serve a GGUF file with one thread. Raises RuntimeError with what llama.cpp says if it does not load the file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = [str(path), str(port), reasoning_format, str(CONTEXT)]
    named = ["-m", "--port", "--reasoning-format", "-c"]
    options = [part for pair in zip(named, given, strict=True) for part in pair]
    command = [PROGRAM, *options, "--jinja", "-t", "1"] if PROGRAM else [sys.executable, "-c", PACKAGE, *given]
    with TemporaryFile() as said:  # not a pipe, which would be full soon
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, env=os.environ | environment
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, said)
            yield LlamaServer(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.communicate()


def _wait(address: str, process: "subprocess.Popen[bytes]", said: Any) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            said.seek(0)
            raise RuntimeError(said.read().decode(errors="replace")[-3_000:])
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:  # not listening yet, or loading
            time.sleep(0.05)
    raise RuntimeError("llama.cpp did not load the file in time")
