"""Names to folders, local and from the hub, and clear refusals. The address of the hub is read once a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hub
from errors import UserError
from tests.conftest import ROOT, TINY

ASK = """
import sys
from errors import UserError
from hub import model_folder
try:
    print(model_folder(sys.argv[1], sys.argv[2] or None, weights=sys.argv[3] == "weights"))
except UserError as error:
    print(error)
"""


def ask(env: dict[str, str], name: str, revision: str = "", weights: bool = False) -> str:
    command = [sys.executable, "-c", ASK, name, revision, "weights" if weights else ""]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_folder_is_found_from_here_and_from_the_checkout(in_tmp: Path) -> None:
    assert hub.model_folder("assets/tiny-qwen") == TINY
    assert hub.model_folder(str(TINY)) == TINY
    (in_tmp / "hollow").mkdir()
    with pytest.raises(UserError, match=r"'hollow' has no config\.json"):
        hub.model_folder("hollow")
    with pytest.raises(UserError, match=r"'a/b/c' does not exist"):
        hub.model_folder("a/b/c")


def test_a_common_wrong_id_is_corrected_without_network() -> None:
    for size in ("0.5B", "1.8B", "72B"):
        with pytest.raises(UserError, match=rf"use Qwen/Qwen1\.5-{size}-Chat".replace("use", "Use")):
            hub.model_folder(f"Qwen/Qwen1.5-{size}-Instruct")


@pytest.mark.slow
def test_a_downloaded_id_is_found_again_without_network(hub_env: dict[str, str], tmp_path: Path) -> None:
    env = hub_env | {"HF_HOME": str(tmp_path)}
    folder = Path(ask(env, "Qwen/Qwen2-1.5B-Instruct"))
    assert (folder / "tokenizer.json").is_file()
    assert not (folder / "model.safetensors").exists()  # not requested yet
    assert "is not in the local cache" in ask(env | {"HF_HUB_OFFLINE": "1"}, "Qwen/Qwen2-1.5B-Instruct", weights=True)
    assert Path(ask(env, "Qwen/Qwen2-1.5B-Instruct", weights=True), "model.safetensors").is_file()
    for offline in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert ask(env | offline, "Qwen/Qwen2-1.5B-Instruct", weights=True) == str(folder)


@pytest.mark.slow
def test_an_unknown_id_is_refused_with_the_nearest_known_one(hub_env: dict[str, str]) -> None:
    assert "Did you mean Qwen/Qwen2-1.5B-Instruct?" in ask(hub_env, "Qwen/Qwen2-1.5B-Instruckt")
    assert "check its spelling" in ask(hub_env, "nobody/nothing").lower()
    assert "has no such revision" in ask(hub_env, "Qwen/Qwen2-1.5B-Instruct", "no-such-branch")


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_reported_with_the_ways_out() -> None:
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    text = ask(env, "Qwen/Qwen1.5-1.8B-Chat")
    for words in ("127.0.0.1:9 does not answer", "hf download Qwen/Qwen1.5-1.8B-Chat --local-dir", "make demo"):
        assert words in text


def test_what_is_there_instead_is_said(in_tmp: Path) -> None:
    (in_tmp / "folder").mkdir()
    (in_tmp / "file").touch()
    (in_tmp / "loop").symlink_to(in_tmp / "loop")
    os.mkfifo(in_tmp / "pipe")
    said = {"folder": "is a folder", "file": "is a file", "pipe": "is a pipe or a device", "none": "does not exist"}
    said |= {"/dev/zero": "is a pipe or a device", "a\0b": "does not exist", "file/x": "does not exist"}
    assert {name: hub.what_is_there(name) for name in said} == said
    assert hub.what_is_there("loop") == "cannot be opened (Too many levels of symbolic links)"
    assert hub.what_is_there("n" * 300) == "cannot be opened (File name too long)"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_config_of_a_model_is_named(content: bytes, in_tmp: Path) -> None:
    (in_tmp / "base").mkdir()
    (in_tmp / "base" / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.name: .*base/config\.json' is damaged"):
        hub.model_folder("base")
