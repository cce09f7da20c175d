"""generate: ask a run's model, one prompt or many."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from commands.load import Loaded, add_run_arguments, load_run
from commands.parsing import Parser
from errors import UserError
from lightning_modules.evaluation.summary import styled
from lightning_modules.generation.generate import DecodingSettings, generate, generation_config
from lightning_modules.generation.think_response import ThinkResponse


def build_parser() -> Parser:
    parser = Parser(command="generate", description="Ask a run's model.")
    parser.add_argument("--prompt", type=str, nargs="+", default=[], help="What to ask; several are answered together.")
    parser.add_argument(
        "--prompts", type=str | None, default=None, help="File with one prompt a line; - for standard input."
    )
    add_run_arguments(parser)
    parser.add_class_arguments(DecodingSettings, None)
    parser.add_argument(
        "--jsonl", action="store_true", help="Print one JSON object a line: prompt, thoughts, answer, finished."
    )
    parser.add_argument("--batch_size", type=int, default=16, help="Prompts answered at once.")
    parser.add_argument("--seed", type=int, default=1, help="For temperature above 0.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1.")
    return parser


def run(args: Sequence[str]) -> int:
    parser = build_parser()
    given = parser.read(args)
    prompts = [*given.prompt, *lines(given.prompts)]
    if not prompts:
        raise UserError("--prompt", None, "nothing was asked", 'give --prompt "Solve x + 5 = 12", or --prompts FILE')
    settings = DecodingSettings(given.max_new_tokens, given.temperature, given.top_p)
    loaded = load_run(given.run, given.ckpt_path, given.root)
    torch.manual_seed(given.seed)
    loaded.tuner.to(device(given.device))
    for prompt, written in zip(prompts, answers(loaded, prompts, settings, given.batch_size), strict=True):
        if given.jsonl:
            print(json.dumps(written.as_json(prompt), ensure_ascii=False), flush=True)
        else:
            show(prompt if len(prompts) > 1 else None, written, settings)
    return 0


def answers(
    loaded: Loaded, prompts: Sequence[str], settings: DecodingSettings, batch_size: int
) -> Iterator[ThinkResponse]:
    """A ThinkResponse for each prompt, in order; batches are made as they are asked for."""
    tuner = loaded.tuner
    assert tuner.net is not None
    config = generation_config(tuner.tokenizer, tuner.net.vocabulary, tuner.generation_config, settings)
    ids = tuner.tokenizer.encode_prompts([loaded.template.prompt(prompt) for prompt in prompts])
    for start in range(0, len(ids), batch_size):
        yield from generate(tuner.net, tuner.tokenizer, ids[start : start + batch_size], config)


def lines(name: str | None) -> list[str]:
    """The lines of a file that are not empty."""
    if name is None:
        return []
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "--prompts", name, f"cannot be read ({error})", "give a text file with one prompt a line"
        ) from error
    return [line for line in text.splitlines() if line.strip()]


def device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError("--device", name, "is not a device of this machine", "give auto or cpu") from error
    return torch.device(name)


def show(prompt: str | None, written: ThinkResponse, settings: DecodingSettings) -> None:
    """The text as it was written; on a terminal the thoughts are dimmed."""
    if prompt is not None:
        print(f"# {prompt}")
    print(styled(written.text, sys.stdout.isatty()), flush=True)
    if not written.finished:
        print(f"(cut off after {settings.max_new_tokens} tokens; --max_new_tokens sets the limit)", file=sys.stderr)
