"""The upload of an exported folder to the hub."""

from pathlib import Path
from typing import Any

from errors import UserError
from hub import HUB_ID, reason, retry_server_errors

LOGIN = "run `hf auth login` with a token that may write"
# Of an earlier export, which would be read beside the new files or in their place
REPLACED = (
    "config.json", "model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json",
    "adapter_config.json", "adapter_model.safetensors",
)  # fmt: skip


def check_push(repository: str) -> None:
    """Raise UserError, before a model is loaded, if nothing could be uploaded to a repository."""
    from huggingface_hub import HfApi

    if not HUB_ID.fullmatch(repository):
        raise UserError("--push", repository, "is no id of a repository", "give OWNER/NAME")
    retry_server_errors()
    try:
        HfApi().whoami()
    except Exception as error:  # httpx's, requests', OSError or the hub's own, depending on versions
        raise UserError("--push", repository, f"cannot be written: {_why(error)}", _way_out(error)) from error


def push(folder: Path, repository: str, message: str) -> str:
    """Upload a folder and return its address. A repository that does not exist is created, and is private.

    Weights and config of an earlier export there are replaced; other files stay. Raises UserError if it fails. The
    folder stays.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        done: Any = api.upload_folder(
            folder_path=folder, repo_id=repository, commit_message=message, delete_patterns=list(REPLACED)
        )
    except Exception as error:  # httpx's, requests', OSError or the hub's own, depending on versions
        problem = f"cannot be written: {_why(error)}; the folder {folder} is whole"
        fix = f"{_way_out(error)}, then `hf upload {repository} {folder}`"
        raise UserError("--push", repository, problem, fix) from error
    return str(done.commit_url)


def _why(error: Exception) -> str:
    from huggingface_hub.errors import LocalTokenNotFoundError

    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token of the hub on this machine"
    if _status(error) == 403:
        return "this account may not write it"
    return reason(error)


def _way_out(error: Exception) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "unset HF_HUB_OFFLINE"
    known = type(error).__name__ == "LocalTokenNotFoundError" or _status(error) in (401, 403)
    return LOGIN if known else "try again"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
