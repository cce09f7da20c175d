"""vLLM is not installed in tests: a stand-in has its names, its arguments and the fields of its results."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from errors import UserError
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.token_choice import Request
from lightning_modules.generation.with_vllm import check_vllm, write_with_vllm


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the stand-in, which repeats the last id of a prompt up to the limit, or ends at once with id 9."""
    calls: list[Any] = []

    class LLM:
        def __init__(self, model: str) -> None:
            calls.append(model)

        def generate(self, prompts: Any, sampling: Any) -> list[Any]:
            calls.append((prompts, sampling))
            outputs = []
            for prompt, how in zip(prompts, sampling, strict=True):
                last = prompt["prompt_token_ids"][-1]
                one = SimpleNamespace(token_ids=(last,) * how.max_tokens, finish_reason="length", stop_reason=None)
                if last == 9:
                    one = SimpleNamespace(token_ids=(5,), finish_reason="stop", stop_reason=None)
                outputs.append(SimpleNamespace(outputs=[one]))
            return outputs

    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SimpleNamespace
    module.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "vllm", module)
    return calls


def test_vllm_gets_the_ids_of_the_prompts_and_our_settings(calls: list[Any]) -> None:
    decoding = Decoding(DecodingSettings(max_new_tokens=4, temperature=0.5, top_p=0.9), (9, 8), 20)
    requests = [Request([1, 2], seed=3), Request([7, 9], seed=4), Request([5], limit=2)]
    written = write_with_vllm(Path("folder"), requests, decoding)
    assert [one.ids for one in written] == [[2, 2, 2, 2], [5, 9], [5, 5]]
    folder, (prompts, sampling) = calls
    assert folder == "folder"
    assert prompts == [{"prompt_token_ids": list(request.ids)} for request in requests]
    assert [(one.temperature, one.top_p, one.seed) for one in sampling] == [(0.5, 0.9, 3), (0.5, 0.9, 4), (0.5, 0.9, 0)]
    assert {tuple(one.stop_token_ids) for one in sampling} == {(9, 8)}
    assert {tuple(one.allowed_token_ids) for one in sampling} == {tuple(range(20))}


def test_what_vllm_needs_is_told_before_it_starts(calls: list[Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the merged export of the run"):
        check_vllm(tmp_path, DecodingSettings())
    (tmp_path / "config.json").touch()
    check_vllm(tmp_path, DecodingSettings())
    with pytest.raises(UserError, match="cannot control thinking"):
        check_vllm(tmp_path, DecodingSettings(grammar=True))


def test_without_vllm_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--engine: 'vllm' is not installed\. pip install vllm, or delete --engine"):
        check_vllm(tmp_path, DecodingSettings())
