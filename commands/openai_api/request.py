"""From a body to requests of the engine, with the ids of prompts. Mistakes are found here, before the model runs."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from commands.openai_api.errors import ApiError
from commands.openai_api.fields import Fields, shown, wrong
from commands.prompts import conversation
from datamodules.text.malformed import MalformedResponse
from datamodules.text.segments import Role, Segment, Template, ask
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.token_choice import Request

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
OF_SETTINGS = {"thinking_budget": "thinking_token_budget", "max_new_tokens": "max_tokens"}
SEEDS = 2**32  # as of --seed


@dataclass(frozen=True)
class EffortSettings:
    """Budgets of thinking that `reasoning_effort` stands for."""

    effort_minimal: int = 64
    """Tokens of all thoughts with reasoning_effort minimal. Default 64."""
    effort_low: int = 256
    """Tokens of all thoughts with reasoning_effort low. Default 256."""
    effort_medium: int = 1024
    """Tokens of all thoughts with reasoning_effort medium. Default 1,024. high and xhigh have the --thinking_budget of
    the command line, and none does not think."""


@dataclass(frozen=True)
class Served:
    """What is known of a model before a request."""

    name: str
    tokenizer: ThinkTokenizer
    template: Template
    end_tokens: Any  # the generation config of its base
    settings: DecodingSettings  # of a request that gives none
    efforts: EffortSettings
    context: int  # most tokens of a prompt and its response
    most: int  # responses of a body


@dataclass(frozen=True)
class Asked:
    """The requests of a body, `n` for each prompt."""

    requests: Sequence[Request]
    stop: Sequence[str]
    stream: bool
    usage: bool  # of a stream
    chat: bool
    n: int

    @property
    def decoding(self) -> Decoding:
        """The decoding of all requests."""
        decoding = self.requests[0].decoding
        assert decoding is not None
        return decoding


def read_body(given: Fields, served: Served, chat: bool) -> Asked:
    """Return what a body asks of a model. Raises ApiError, which names the field."""
    prompts = _chat_prompt(given, served) if chat else _prompts(given, served)
    n = given.number("n", "samples") or 1
    if n * len(prompts) > served.most:
        raise ApiError(400, f"n: {n * len(prompts):,} responses are more than {served.most:,}, the most at once.", "n")
    settings = _settings(given, served)
    stop, stream = given.stop(), given.flag("stream")
    limit = _limit(given)
    options = dict(given.mapping("stream_options"))
    usage = options.pop("include_usage", False)
    options.pop("include_obfuscation", None)  # pads chunks against eavesdroppers: harmless
    if options or not isinstance(usage, bool):
        raise ApiError(400, 'stream_options: is not valid. Give {"include_usage": true}.', "stream_options")
    seed = given.number("seed", "seed")
    seed = secrets.randbits(32) if seed is None else seed
    given.end()
    limits = [_room(len(ids), limit, served, "messages" if chat else "prompt") for ids in prompts]
    for most in set(limits):
        _check(replace(settings, max_new_tokens=most), served)
    settings = replace(settings, max_new_tokens=served.context)
    decoding = Decoding.of(served.tokenizer, served.end_tokens, settings)
    requests = [
        Request(ids, (seed + k) % SEEDS, most, decoding)
        for ids, most in zip(prompts, limits, strict=True)
        for k in range(n)
    ]
    return Asked(requests, stop, stream, usage, chat, n)


def _limit(given: Fields) -> tuple[str, int] | None:
    """The field that limits a response, and its value."""
    limits = [(name, given.number(name, "max_new_tokens")) for name in ("max_completion_tokens", "max_tokens")]
    known = [(name, value) for name, value in limits if value is not None]
    if len({value for _, value in known}) > 1:
        raise ApiError(400, "max_tokens: max_completion_tokens has another value. Give one of them.", "max_tokens")
    return known[0] if known else None


def _room(prompt: int, limit: tuple[str, int] | None, served: Served, param: str) -> int:
    """The most tokens of a response. Raises ApiError if they have no room beside the prompt."""
    room = served.context - prompt
    if room < 1:
        text = f"the prompt has {prompt:,} tokens, and the context of {served.context:,} has no room for a response"
        raise ApiError(400, f"{param}: {text}. Shorten it.", param, "context_length_exceeded")
    if limit is None:
        return min(room, served.settings.max_new_tokens)
    name, value = limit
    if value > room:
        text = f"{value:,} tokens and the {prompt:,} of the prompt are more than the context of {served.context:,}"
        raise ApiError(400, f"{name}: {text}. Give at most {room:,}.", name, "context_length_exceeded")
    return value


def _settings(given: Fields, served: Served) -> DecodingSettings:
    """The settings of decoding: those of the command line, and what the body gives."""
    values: dict[str, Any] = {
        "temperature": given.number("temperature", "temperature", whole=False),
        "top_p": given.number("top_p", "top_p", whole=False),
        "thinking_budget": given.number("thinking_token_budget", "thinking_budget"),
    }
    for one in fields(DecodingSettings):  # the other settings of thinking have the names of the command line
        if one.name in given.left and one.name not in ("max_new_tokens", *values):
            default = getattr(served.settings, one.name)
            if isinstance(default, bool):
                values[one.name] = given.flag(one.name)
            elif isinstance(default, str):
                values[one.name] = given.text(one.name, one.name)
            else:
                values[one.name] = given.number(one.name, one.name)
    kwargs = dict(given.mapping("chat_template_kwargs"))
    if (think := kwargs.pop("enable_thinking", None)) is not None:
        if not isinstance(think, bool):
            raise wrong("chat_template_kwargs", think, "give true or false as enable_thinking")
        values["thinking"] = think
    if kwargs:
        text = f"chat_template_kwargs: {shown(next(iter(kwargs)))} is not supported. Only enable_thinking is."
        raise ApiError(400, text, "chat_template_kwargs")
    if (effort := given.text("reasoning_effort")) is not None:
        if effort not in EFFORTS:
            raise wrong("reasoning_effort", effort, f"give {', '.join(EFFORTS[:-1])} or {EFFORTS[-1]}")
        if values["thinking_budget"] is not None:
            text = "reasoning_effort: thinking_token_budget is given as well. Give one of them."
            raise ApiError(400, text, "reasoning_effort")
        values["thinking_budget"] = getattr(served.efforts, f"effort_{effort}", None)
        values["thinking"] = False if effort == "none" else values.get("thinking")
    if values.get("thinking") is False:  # what the command line asks of thoughts is not asked of a response without
        values = {"min_thinking": 0, "extend": 0} | values
    return replace(served.settings, **{name: value for name, value in values.items() if value is not None})


def _check(settings: DecodingSettings, served: Served) -> None:
    try:
        settings.check(served.tokenizer)
    except UserError as error:
        name = OF_SETTINGS.get(error.key, error.key)
        raise ApiError(400, str(error).replace(error.key, name, 1), name) from error


def _chat_prompt(given: Fields, served: Served) -> list[list[int]]:
    messages = given.take("messages")
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", messages, 'give [{"role": "user", "content": "…"}]')
    for one in messages:
        if not isinstance(one, dict) or not isinstance(one.get("role"), str):
            raise wrong("messages", one, 'give each as {"role": "user", "content": "…"}')
    # What this endpoint sent as `thoughts` is in `reasoning_content` as well
    messages = [{key: value for key, value in one.items() if key != "thoughts"} for one in messages]
    try:
        segments = ask(conversation({"messages": messages}), served.template)
    except (ValueError, MalformedResponse) as error:
        raise ApiError(400, f"messages: cannot be asked: {error}.", "messages") from error
    return served.tokenizer.encode_prompts([segments])


def _prompts(given: Fields, served: Served) -> list[list[int]]:
    """The prompts of /v1/completions: texts without a template."""
    value = given.take("prompt")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise wrong("prompt", value, "give a text or a list of texts")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "prompt: is not valid UTF-8.", "prompt") from error
    begin = [Segment(Role.PROMPT, served.tokenizer.decode([i]), control=True) for i in served.tokenizer.prefix_ids]
    ids = served.tokenizer.encode_prompts([[*begin, Segment(Role.PROMPT, one)] for one in texts])
    if not all(ids):
        raise ApiError(400, "prompt: is empty. Give a text.", "prompt")
    return ids
