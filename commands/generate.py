"""generate: answer prompts with a run's model."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Literal

import torch

from commands.load import Loaded, Opened, load_run, open_run
from commands.parsing import Parser
from commands.prompts import Conversation, all_prompts, segments
from commands.which_run import add_run_arguments, find
from datamodules.text.segments import Template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.evaluation.summary import styled
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate, in_order
from lightning_modules.generation.think_response import ThinkResponse, respond
from lightning_modules.generation.token_choice import Request
from lightning_modules.generation.with_vllm import check_vllm, write_with_vllm
from lightning_modules.run.progress_line import AnswerProgress, ProgressLine
from visible import visible

CUTS = {
    "budget": "thinking was cut after {} tokens, by its budget",
    "limit": "thinking was cut after {} tokens, so that the answer has its --answer_reserve",
    "loop": "thinking was in a loop, and was cut after {} tokens",
}


def build_parser() -> Parser:
    parser = Parser("generate")
    parser.add_argument("--prompt", type=str, nargs="+", default=[], help="One or several prompts.")
    parser.add_argument(
        "--prompts",
        type=str | None,
        default=None,
        help="File with one prompt per line; - reads standard input. In a .jsonl file each line is "
        '{"instruction": "…"}, so that a prompt may have several lines, or a conversation, {"messages": [{"role": '
        '"user", "content": "…"}, …]}. A conversation may begin with a system message; its last message is the '
        "user's; an earlier answer is given with its think blocks.",
    )
    add_run_arguments(parser)
    parser.add_class_arguments(DecodingSettings, None)
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help="Print one JSON object per prompt: prompt (its last message), thoughts, answer, finished, well_formed, "
        "ended_by (end, budget, limit or loop), tokens, thinking_tokens, forced_tokens, raw, and with a control of "
        "thinking also masked; docs/thinking.md explains them.",
    )
    add_writing_options(parser)
    return parser


def add_writing_options(parser: Parser) -> None:
    """Add the options of commands that let a run's model write: how many at once, by which seed, where, and by what."""
    parser.add_argument(
        "--batch_size",
        type=int | None,
        default=None,
        help="Most prompts that are answered at once; fewer need less memory. Default null: as many as save time, at "
        "most 64.",
    )
    parser.add_argument("--seed", type=int, default=1, help="Random seed, used if temperature is above 0.")
    add_device(parser)
    parser.add_argument(
        "--engine",
        type=Literal["own", "vllm"],
        default="own",
        help="vllm: write with vLLM on the folder export of the run, for large jobs on a GPU. It must be installed, "
        "and thinking is not controlled there. Default own.",
    )


def add_device(parser: Parser) -> None:
    parser.add_argument(
        "--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."
    )


def decoding_settings(given: Any) -> DecodingSettings:
    """Return the settings of decoding among the options. Raise UserError for settings that contradict each other."""
    settings = DecodingSettings(**{one.name: given[one.name] for one in fields(DecodingSettings)})
    settings.check()
    return settings


def run(args: Sequence[str]) -> int:
    parser = build_parser()
    given = parser.read(args)
    prompts = all_prompts(given)
    chosen = None if given.engine == "vllm" else device(given.device)  # vLLM takes the GPU itself
    find(given.run, given.ckpt_path, given.root)  # raises UserError if there is no run
    settings = decoding_settings(given)
    line = ProgressLine()
    if given.engine == "vllm":
        opened = open_run(given.run, given.ckpt_path, given.root)
        check_vllm(opened.run.folder / "export", settings)
        written_by_prompt = answers_of_vllm(opened, prompts, settings, given.seed)
    else:
        loaded = load_run(given.run, given.ckpt_path, given.root, check=settings.check)
        loaded.tuner.to(chosen)
        progress = AnswerProgress("answering", len(prompts), settings.max_new_tokens, line)
        shown = progress if len(prompts) > 1 else lambda ended, tokens: None
        written_by_prompt = answers(loaded, prompts, settings, given.batch_size, given.seed, shown)
    for prompt, written in zip(prompts, written_by_prompt, strict=True):
        line.close()  # the answer takes its place on a terminal
        if given.jsonl:
            print(json.dumps(written.as_json(prompt[-1].text), ensure_ascii=False), flush=True)
        else:
            print_response(prompt[-1].text if len(prompts) > 1 else None, written, settings)
    return 0


def answers(
    loaded: Loaded,
    prompts: Sequence[Conversation],
    settings: DecodingSettings,
    rows: int | None,
    seed: int,
    progress: Callable[[int, int], None],
) -> Iterator[ThinkResponse]:
    """Yield a ThinkResponse for each prompt, in order."""
    tuner = loaded.tuner
    assert tuner.net is not None
    decoding = Decoding.of(tuner.tokenizer, tuner.generation_config, settings)
    requests = requests_of(prompts, loaded.template, tuner.tokenizer, seed)
    yield from in_order(generate(tuner.net, tuner.tokenizer, requests, decoding, rows=rows, progress=progress))


def answers_of_vllm(
    opened: Opened, prompts: Sequence[Conversation], settings: DecodingSettings, seed: int
) -> Iterator[ThinkResponse]:
    """Yield a ThinkResponse for each prompt, in order, by vLLM."""
    requests = requests_of(prompts, opened.data.template, opened.data.think_tokenizer, seed)
    yield from responses_of_vllm(opened, requests, settings)


def responses_of_vllm(
    opened: Opened, requests: Sequence[Request], settings: DecodingSettings
) -> Iterator[ThinkResponse]:
    """Yield a ThinkResponse for each request, in order, by vLLM. The end tokens are those of the export."""
    from transformers import GenerationConfig

    folder, tokenizer = opened.run.folder / "export", opened.data.think_tokenizer
    of_export = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    decoding = Decoding.of(tokenizer, GenerationConfig.from_dict(of_export), settings)
    for written in write_with_vllm(folder, requests, decoding):
        yield respond(written, tokenizer, decoding.end_ids)


def requests_of(
    prompts: Sequence[Conversation], template: Template, tokenizer: ThinkTokenizer, seed: int
) -> list[Request]:
    ids = tokenizer.encode_prompts([segments(number, prompt, template) for number, prompt in enumerate(prompts, 1)])
    return [Request(prompt, seed + number) for number, prompt in enumerate(ids)]


def device(name: str) -> torch.device:
    """Return the device of this name. Raise UserError if this machine has none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.ones(1, device=name).tolist()  # a device without values, like meta, cannot answer
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError("--device", name, "is not a device of this machine", "give auto or cpu") from error
    return torch.device(name)


def print_response(prompt: str | None, written: ThinkResponse, settings: DecodingSettings) -> None:
    """Print the generated text; on a terminal the thoughts are dimmed."""
    if prompt is not None:
        print(f"# {visible(prompt)}")
    print(styled(written.text, sys.stdout.isatty()), flush=True)
    if written.cut is not None:
        print(f"({CUTS[written.cut].format(written.thinking_tokens)})", file=sys.stderr)
    if not written.finished:
        print(f"(cut off after {settings.max_new_tokens} tokens, the limit of --max_new_tokens)", file=sys.stderr)
