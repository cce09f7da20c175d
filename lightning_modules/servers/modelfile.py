"""The Modelfile, by which Ollama runs exported weights: template, settings of decoding, license."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.text.segments import Template
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer

FILE = "Modelfile"
CONTEXT = 4096  # tokens that Ollama holds in memory, as `serve` does, unless the rows of the training were longer
# Ollama's own reading ends thinking at the first closing tag. Of its parsers for single models this one goes on
PARSER = "laguna"
ONE_BLOCK = ("The model writes one think block, which Ollama shows apart from the answer.",)
ALL_BLOCKS = (
    f"The model may write several think blocks. Ollama's parser `{PARSER}` (0.22.1 and later) takes all of them for",
    "thinking. It was made for another model, and takes an answer without a block for thinking, too.",
)
FIRST_BLOCK = (
    "The model may write several think blocks. Ollama takes the first one for thinking, and shows the others, with",
    "their tags, as the beginning of the answer.",
)


def write_modelfile(
    folder: Path,
    template: Template,
    tokenizer: ThinkTokenizer,
    generation: Any,
    context: int,
    license: Mapping[str, str],
    one_block: bool = False,
    notes: Sequence[str] = (),
    weights: str = ".",
) -> str:
    """Write a Modelfile for a folder of weights, or for a GGUF file (`weights` "./NAME.gguf"). `notes` stand in it.

    Return why there is none: a template that cannot be written in Ollama's language. Empty if it was written.
    """
    begin = tokenizer.decode(tokenizer.prefix_ids)  # Ollama puts it before each prompt
    try:
        text = template.go_template(begin)
    except ValueError as error:
        return str(error)
    stops = [tokenizer.decode([token]) for token in generation.eos_token_id]
    parameters = [*_decoding(generation), ("num_ctx", context), *(("stop", _quoted(stop)) for stop in stops)]
    reads_all = template.tags == Tags() and not one_block
    blocks = ONE_BLOCK if one_block else ALL_BLOCKS if reads_all else FIRST_BLOCK
    lines = [
        *(f"# {note}" for note in (*blocks, *notes)),
        f"FROM {weights}",
        *([f"PARSER {PARSER}"] if reads_all else []),
        f'TEMPLATE """{text}"""',
        *(f"PARAMETER {name} {value}" for name, value in parameters),
        *([f"LICENSE {_quoted(license_text(license))}"] if license else []),
    ]
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ""


def context_length(positions: int | None, longest: int | None) -> int:
    """Return the tokens of a prompt and its answer. `positions`: the model takes; `longest`: of a row in training."""
    wanted = max(CONTEXT, longest or 0)
    return min(wanted, positions) if positions else wanted


def license_text(license: Mapping[str, str]) -> str:
    """Return the license as the card has it: its name, and where its text is."""
    name = license.get("license_name") or license["license"]
    link = license.get("license_link")
    return f"{name}: {link}" if link else name


def _decoding(generation: Any) -> list[tuple[str, Any]]:
    """The settings of decoding that the folder has in generation_config.json. Ollama's own defaults are others."""
    if not generation.do_sample:
        found: list[tuple[str, Any]] = [("temperature", 0)]
    else:
        temperature, top_p = generation.temperature, generation.top_p
        found = [
            ("temperature", f"{1.0 if temperature is None else temperature:g}"),
            ("top_p", f"{1.0 if top_p is None else top_p:g}"),
            ("top_k", generation.top_k or 0),
            ("min_p", 0),
        ]
    return [*found, ("repeat_penalty", 1), ("num_predict", generation.max_new_tokens)]


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'
