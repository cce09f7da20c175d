"""The upload to the hub, on a hub on loopback."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.stand_ins.upload_hub import COMMIT, UploadHub

PUSH = """
import sys
from errors import UserError
from lightning_modules.export.push import check_push, push
from pathlib import Path
try:
    check_push(sys.argv[2])
    print(push(Path(sys.argv[1]), sys.argv[2], "demo: merged weights"))
except UserError as error:
    print(error)
    raise SystemExit(2)
"""
FILES = {"README.md": b"---\nlibrary_name: transformers\n---\n", "config.json": b"{}", "model.safetensors": b"\0" * 99}


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with UploadHub().serving() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    for name, content in FILES.items():
        (made / name).write_bytes(content)
    return made


def pushed(
    hub: UploadHub, folder: Path, name: str = "me/model", token: str | None = "hf_right", **more: str
) -> tuple[int, str]:
    """The exit code and what was printed."""
    env = hub.environment(folder.parent / "home", token) | {"PYTHONPATH": str(ROOT)} | more
    done = subprocess.run(
        [sys.executable, "-c", PUSH, str(folder), name], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.strip() or done.stderr


def test_all_files_are_uploaded_to_a_new_private_repository(hub: UploadHub, folder: Path) -> None:
    assert pushed(hub, folder) == (0, f"{hub.endpoint}/me/model/commit/{COMMIT}")
    assert hub.repositories == {"me/model": True}
    assert hub.files == FILES and hub.messages == ["demo: merged weights"]


def test_a_repository_that_is_there_stays_as_public_as_it_is(hub: UploadHub, folder: Path) -> None:
    hub.repositories["me/model"] = False
    assert pushed(hub, folder)[0] == 0
    assert hub.repositories == {"me/model": False} and hub.files == FILES


def test_files_of_an_earlier_export_are_replaced_and_others_stay(hub: UploadHub, folder: Path) -> None:
    hub.repositories["me/model"] = False
    earlier = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json", "config.json")
    others = {"notes.md": b"mine", "model.gguf": b"GGUF", "more/model.safetensors": b"mine", ".gitattributes": b""}
    hub.files.update(dict.fromkeys(earlier, b"old") | others)
    assert pushed(hub, folder)[0] == 0
    assert hub.files == FILES | others


def test_a_wrong_or_missing_token_is_said_before_anything_is_sent(hub: UploadHub, folder: Path) -> None:
    for token, words in ((None, "there is no token of the hub on this machine"), ("hf_wrong", "answers 401")):
        code, text = pushed(hub, folder, token=token)
        assert code == 2 and text.startswith("--push: 'me/model' cannot be written:") and words in text
        assert "Run `hf auth login` with a token that may write." in text
    assert not hub.repositories and not hub.files


def test_a_repository_of_another_account_is_one_line_and_the_folder_stays(hub: UploadHub, folder: Path) -> None:
    code, text = pushed(hub, folder, "stranger/model")
    assert code == 2 and "this account may not write it" in text and f"the folder {folder} is whole" in text
    assert f"`hf upload stranger/model {folder}`" in text and not hub.files


def test_a_hub_that_refuses_the_commit_is_one_line(hub: UploadHub, folder: Path) -> None:
    hub.refused = 400
    code, text = pushed(hub, folder)
    assert code == 2 and "answers 400" in text and "is whole" in text and len(text.splitlines()) == 1


def test_without_network_or_with_a_wrong_name_nothing_is_tried(hub: UploadHub, folder: Path) -> None:
    code, text = pushed(hub, folder, HF_HUB_OFFLINE="1")
    assert code == 2 and "HF_HUB_OFFLINE is set. Unset HF_HUB_OFFLINE." in text
    assert pushed(hub, folder, "model") == (2, "--push: 'model' is no id of a repository. Give OWNER/NAME.")
