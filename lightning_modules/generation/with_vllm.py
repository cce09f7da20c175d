"""Generation by vLLM on an exported folder, for large jobs on a GPU. vLLM is no dependency, and no control of thinking
works with it. It was never run here: tests use a stand-in."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from errors import UserError
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.token_choice import Request, Written


def check_vllm(folder: Path, settings: DecodingSettings) -> None:
    """Raise UserError if vLLM cannot write with the export in `folder`."""
    if find_spec("vllm") is None:
        raise UserError("--engine", "vllm", "is not installed", "pip install vllm, or delete --engine")
    if settings.controlled:
        raise UserError("--engine", "vllm", "cannot control thinking", "delete the settings of thinking, or --engine")
    if not (folder / "config.json").is_file():
        problem, fix = f"needs the merged export of the run, and {folder} has none", "python cli.py export makes it"
        raise UserError("--engine", "vllm", problem, fix)


def write_with_vllm(folder: Path, requests: Sequence[Request], decoding: Decoding) -> list[Written]:
    """Return what vLLM writes for each request. It shows its own progress.

    vLLM gets the ids of a prompt, so that no text is tokenized again. It samples by its own draws: with a temperature
    the same seed gives other texts than elsewhere.
    """
    vllm: Any = import_module("vllm")
    settings, most = decoding.settings, decoding.settings.max_new_tokens
    sampling = [
        vllm.SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=most if request.limit is None else min(most, request.limit),
            seed=request.seed,
            stop_token_ids=list(decoding.end_ids),
            allowed_token_ids=list(range(decoding.known_ids)),
            detokenize=False,
        )
        for request in requests
    ]
    prompts = [{"prompt_token_ids": list(request.ids)} for request in requests]
    outputs = vllm.LLM(model=str(folder)).generate(prompts, sampling)
    return [_written(output.outputs[0], request, decoding) for output, request in zip(outputs, requests, strict=True)]


def _written(output: Any, request: Request, decoding: Decoding) -> Written:
    """Some releases leave out the id that ended a response."""
    ids = list(output.token_ids)
    if output.finish_reason == "stop" and (not ids or ids[-1] not in decoding.end_ids):
        named = output.stop_reason
        ids.append(named if isinstance(named, int) else decoding.end_ids[0])
    return Written(ids, decoding.opens(request.ids))
