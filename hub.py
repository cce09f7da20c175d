"""From the name of a model or data set to files on disk or on the hub, with quick and clear refusals.

The libraries retry an unreachable hub for 23 to 46 seconds and name no way out. Here one short request comes first.
It distinguishes a missing repository from a missing network. Without network the local cache is used.
"""

import functools
import json
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any, Literal

from disk import FULL
from errors import UserError, suggest

CHECKOUT = Path(__file__).resolve().parent
PROBE_SECONDS = 6.0
RETRY_AFTER = (0.5, 1.0)  # seconds, added to the 23 seconds for which huggingface_hub repeats some requests
ANSWERS = {
    401: "it needs a login, or the token is wrong", 403: "this account may not read it", 404: "it lacks a file",
    408: "it was too slow", 429: "too many requests", 500: "an error of the hub", 502: "an error of the hub",
    503: "the hub is overloaded", 504: "the hub was too slow",
}  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
TOKENIZER_FILES = [
    "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "*.jinja", "added_tokens.json",
    "special_tokens_map.json",
]  # fmt: skip
WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]
# A mistyped id is compared with these. Other decoder-only models with q/k/v/o projections work as well.
KNOWN_MODELS = [
    "Qwen/Qwen1.5-0.5B-Chat", "Qwen/Qwen1.5-1.8B-Chat", "Qwen/Qwen1.5-4B-Chat", "Qwen/Qwen2-0.5B-Instruct",
    "Qwen/Qwen2-1.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "meta-llama/Llama-3.2-1B-Instruct",
]  # fmt: skip
KNOWN_DATASETS = [
    "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B",
    "Magpie-Align/Magpie-Reasoning-V1-150K-CoT-Deepseek-R1-Llama-70B",
]

Kind = Literal["model", "dataset"]


def local_folder(name: str) -> Path | None:
    """Return the folder of this name, here or in the checkout: shipped configs work from any folder."""
    return next((p.resolve() for p in (Path(name).expanduser(), CHECKOUT / name) if p.is_dir()), None)


def what_is_there(name: str) -> str:
    """Return why a path is not the file or folder that was asked for: what is there instead, if anything."""
    try:
        mode = Path(name).expanduser().stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError, RuntimeError):  # a NUL; the home of an unknown user
        return "does not exist"
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return "is a folder" if stat.S_ISDIR(mode) else "is a file" if stat.S_ISREG(mode) else "is a pipe or a device"


def check_json(key: str, path: Path) -> None:
    """Raise UserError for a file of a model that holds no JSON object."""
    try:
        problem = "" if isinstance(json.loads(path.read_bytes()), dict) else "it holds no object"
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        raise UserError(key, path, f"is damaged ({problem})", "download the model again")


def is_hub_id(name: str) -> bool:
    """Return whether a name can be an id on the hub. `./qwen` and `~/qwen` are paths, also if nothing is there."""
    return bool(HUB_ID.fullmatch(name)) and not name.startswith((".", "~")) and not Path(name).exists()


@functools.cache
def model_folder(name: str, revision: str | None = None, weights: bool = False, code: bool = False) -> Path:
    """Return a local folder with the config and tokenizer of a model, and with its weights and its code on request.

    Missing files are downloaded. Raises UserError for a path that does not exist, an id or revision that is unknown to
    the hub (with the nearest known id), and an unreachable hub if the local cache lacks the files.
    """
    key = "model.name"
    if folder := local_folder(name):
        if not (folder / "config.json").is_file():
            raise UserError(key, name, "has no config.json", "give the folder of a transformers model")
        check_json(key, folder / "config.json")
        return folder
    if not is_hub_id(name):
        fix = "give the folder of a model, or a hub id like Qwen/Qwen1.5-1.8B-Chat"
        raise UserError(key, name, what_is_there(name), fix)
    if wrong := re.fullmatch(r"(Qwen/Qwen1\.5-[\w.]+)-Instruct", name):
        raise UserError(key, name, "does not exist: Qwen1.5's chat models end in -Chat", f"use {wrong[1]}-Chat")
    info, why = probe("model", key, name, revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    patterns = TOKENIZER_FILES + (WEIGHT_FILES if weights else []) + (["*.py"] if code else [])
    try:
        # "*/*": Llama's repositories have a second copy of the weights in a subfolder
        found = snapshot_download(
            name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"], local_files_only=info is None
        )
    except Exception as error:  # httpx's, requests', OSError or the hub's own, depending on versions
        raise unreachable("model", key, name, why or reason(error)) from error
    if not (Path(found) / "config.json").is_file() or (weights and not list(Path(found).glob("*.safetensors"))):
        if info is None:
            raise unreachable("model", key, name, why)
        raise UserError(
            key,
            name,
            "has no config.json or no *.safetensors on the hub",
            "choose a transformers model saved as safetensors",
        )
    return Path(found)


def probe(kind: Kind, key: str, name: str, revision: str | None) -> tuple[Any | None, str]:
    """Return the `ModelInfo` or `DatasetInfo` of a repository; None and the reason if the hub does not give it.

    Raises UserError if the hub answers that the repository or revision does not exist or is gated.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    retry_server_errors()
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        return ask(name, revision=revision, timeout=PROBE_SECONDS), ""
    except GatedRepoError as error:
        raise UserError(
            key, name, "is gated", f"accept its terms on https://huggingface.co/{name} and run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        known = KNOWN_MODELS if kind == "model" else KNOWN_DATASETS
        fix = suggest(name, known, "check its spelling, or run `hf auth login` if it is private")
        raise UserError(key, name, "is neither on the hub nor a folder or file here", fix) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{key.partition('.')[0]}.revision",
            f"{name}@{revision}",
            "has no such revision",
            "give a branch, tag or commit of that repository, or null",
        ) from error
    except Exception as error:  # httpx's, requests', OSError or OfflineModeIsEnabled, depending on versions
        return None, reason(error)


def reason(error: Exception) -> str:
    """Return why the hub did not give what was asked for: its answer, a time limit, a full disk, or no network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"{constants.ENDPOINT} answers {status} ({ANSWERS.get(status, 'an error of the hub')})"
    if isinstance(error, OSError) and error.errno in FULL:
        return "the disk of the cache is full (HF_HOME)"
    slow = "Timeout" in type(error).__name__
    return f"{constants.ENDPOINT} does not answer" + (" in time" if slow else "") + f" ({type(error).__name__})"


def retry_server_errors() -> None:
    """Make huggingface_hub repeat a request after a 5xx answer. By default it repeats only some kinds of requests."""
    from huggingface_hub import get_session

    client: Any = get_session()  # shared by all requests
    if "send" in vars(client):
        return
    send = client.send

    def send_with_retries(request: Any, **options: Any) -> Any:
        for pause in RETRY_AFTER:
            response = send(request, **options)
            if response.status_code < 500:
                return response
            response.close()
            time.sleep(pause)
        return send(request, **options)

    client.send = send_with_retries


def unreachable(kind: Kind, key: str, name: str, why: str) -> UserError:
    """Return the error for a repository that the hub did not give, with the reason and the ways out."""
    option = "--repo-type dataset " if kind == "dataset" else ""
    fix = f"with network run `hf download {option}{name} --local-dir DIR` and set {key} DIR, or try `make demo`"
    if "answers 401" in why or "answers 403" in why:
        fix = f"run `hf auth login` with an account that may read https://huggingface.co/{name}"
    elif "answers 429" in why:
        fix = "wait some minutes; `hf auth login` raises the limit"
    return UserError(key, name, f"is not in the local cache and {why}", fix)
