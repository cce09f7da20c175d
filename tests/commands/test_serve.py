"""serve: what is refused before a model is loaded. tests/cli drives it with a real run."""

import importlib.util
import socket
from typing import Any

import pytest

from cli import main
from commands.serve import listen
from errors import UserError


def test_a_port_in_use_is_said_before_a_run_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert main(["serve", "--port", port, "--root", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"--port: '{port}' cannot be used (address already in use)" in said


def test_a_free_port_can_be_taken_again_at_once() -> None:
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(UserError, match="--port"):
        listen("127.0.0.1", port)
    first.close()
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_of_this_machine_is_named(host: str) -> None:
    with pytest.raises(UserError, match=f"--host: '{host}' is no address"):
        listen(host, 0)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_package_ends_in_one_line_that_names_the_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == missing else find_spec(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"error: {missing}: ") and "pip install '.[serve]'" in said
