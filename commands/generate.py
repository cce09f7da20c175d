"""generate: answer prompts with a run's model."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from commands.load import Loaded, add_run_arguments, load_run
from commands.parsing import Parser
from errors import UserError
from lightning_modules.evaluation.summary import styled
from lightning_modules.generation.generate import DecodingSettings, SamplingSettings, generate, generation_config
from lightning_modules.generation.think_response import ThinkResponse
from visible import visible


def build_parser() -> Parser:
    parser = Parser("generate")
    parser.add_argument("--prompt", type=str, nargs="+", default=[], help="One or several prompts.")
    parser.add_argument(
        "--prompts", type=str | None, default=None, help="File with one prompt per line; - reads standard input."
    )
    add_run_arguments(parser)
    parser.add_class_arguments(SamplingSettings, None)
    parser.add_argument(
        "--jsonl", action="store_true", help="Print one JSON object per prompt: prompt, thoughts, answer, finished."
    )
    parser.add_argument("--batch_size", type=int, default=16, help="Prompts per batch; fewer need less memory.")
    parser.add_argument("--seed", type=int, default=1, help="Random seed, used if temperature is above 0.")
    parser.add_argument(
        "--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."
    )
    return parser


def run(args: Sequence[str]) -> int:
    parser = build_parser()
    given = parser.read(args)
    prompts = [*given.prompt, *read_prompts(given.prompts)]
    if not prompts:
        raise UserError("--prompt", None, "there is no prompt", 'give --prompt "Solve x + 5 = 12", or --prompts FILE')
    settings = SamplingSettings(given.max_new_tokens, given.temperature, given.top_p)
    loaded = load_run(given.run, given.ckpt_path, given.root)
    torch.manual_seed(given.seed)
    loaded.tuner.to(device(given.device))
    for prompt, written in zip(prompts, answers(loaded, prompts, settings, given.batch_size), strict=True):
        if given.jsonl:
            print(json.dumps(written.as_json(prompt), ensure_ascii=False), flush=True)
        else:
            print_response(prompt if len(prompts) > 1 else None, written, settings)
    return 0


def answers(
    loaded: Loaded, prompts: Sequence[str], settings: DecodingSettings, batch_size: int
) -> Iterator[ThinkResponse]:
    """Yield a ThinkResponse for each prompt, in order."""
    tuner = loaded.tuner
    assert tuner.net is not None
    config = generation_config(tuner.tokenizer, tuner.net.vocabulary, tuner.generation_config, settings)
    ids = tuner.tokenizer.encode_prompts([loaded.template.prompt(prompt) for prompt in prompts])
    for start in range(0, len(ids), batch_size):
        yield from generate(tuner.net, tuner.tokenizer, ids[start : start + batch_size], config)


def read_prompts(name: str | None) -> list[str]:
    """Return the non-empty lines of a file; - is standard input."""
    if name is None:
        return []
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "--prompts", name, f"cannot be read ({error})", "give a text file with one prompt per line"
        ) from error
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


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
    if not written.finished:
        print(f"(cut off after {settings.max_new_tokens} tokens, the limit of --max_new_tokens)", file=sys.stderr)
