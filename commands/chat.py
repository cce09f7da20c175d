"""chat: talk to a run's model in the terminal."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from commands.chat_session.slash import handle
from commands.chat_session.speaker import Speaker
from commands.chat_session.state import Chat
from commands.chat_session.view import View
from commands.generate import add_device, decoding_settings, device
from commands.load import Loaded, Opened, open_run
from commands.messages import quiet
from commands.parsing import Parser
from commands.rivals import BASE, run_name
from commands.serve import context_of
from commands.which_run import add_run_arguments
from datamodules.text.malformed import MalformedResponse
from errors import UserError
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.engine import Engine

PROMPT = "> "


def build_parser() -> Parser:
    parser = Parser("chat")
    add_run_arguments(parser)
    parser.add_class_arguments(DecodingSettings, None)
    parser.add_argument("--seed", type=int, default=1, help="Random seed, used if temperature is above 0.")
    parser.add_argument(
        "--context",
        type=int | None,
        default=None,
        help="Most tokens of a prompt, with the turns before it, and its answer. Default null: what the model takes, "
        "at most 4,096.",
    )
    add_device(parser)
    return parser


def run(args: Sequence[str]) -> int:
    from rich.console import Console

    given = build_parser().read(args)
    quiet()
    settings = decoding_settings(given)
    chosen = device(given.device)
    opened = open_run(given.run, given.ckpt_path, given.root)
    settings.check(opened.data.think_tokenizer)
    context = context_of(opened, given.context)
    several = knows_several_turns(opened)
    tuned = speaker(run_name(opened), opened.load(), chosen, settings, context)

    def load_base() -> Speaker:
        if opened.tuner.from_scratch:
            raise UserError("/base", None, "the base is random: the run began with model.from_scratch", "go on without")
        again = open_run(str(opened.run.folder), str(opened.checkpoint), given.root)
        return speaker(BASE, again.load(trained=False), chosen, settings, context)

    chat = Chat(tuned, View(Console(highlight=False)), settings, load_base, several, given.seed)
    chat.view.say(f"{tuned.name}: /help shows the commands, Ctrl-C stops an answer, Ctrl-D ends")
    if not several:
        chat.view.say("each question stands alone: the run was trained without several turns")
    try:
        talk(chat)
    finally:
        for one in (chat.tuned, chat.base):
            if one is not None:
                one.engine.close()
    return 0


def knows_several_turns(opened: Opened) -> bool:
    """Whether a run was trained for conversations: by data.turns, or with a chat template."""
    template = opened.data.template
    return not template.no_history and (template.chat is not None or opened.data.run_template.turns != "last")


def speaker(name: str, loaded: Loaded, chosen: torch.device, settings: DecodingSettings, context: int) -> Speaker:
    """Return a loaded model as one that answers."""
    tuner = loaded.tuner.to(chosen)
    assert tuner.net is not None
    decoding = Decoding.of(tuner.tokenizer, tuner.generation_config, replace(settings, max_new_tokens=context))
    engine = Engine(tuner.net, tuner.tokenizer, decoding, rows=1)
    return Speaker(name, engine, tuner.tokenizer, loaded.template, tuner.generation_config)


def talk(chat: Chat) -> None:
    """Read lines until the user leaves. Ctrl-C stops an answer and not the chat."""
    with suppress(ImportError):  # the arrow keys then bring back earlier lines
        import readline  # noqa: F401
    while not chat.ended:
        try:
            line = input(PROMPT if sys.stdin.isatty() else "")
            handle(chat, line)
        except EOFError:
            return
        except KeyboardInterrupt:
            chat.view.say("\n(stopped; /quit or Ctrl-D ends the chat)")
        except (UserError, MalformedResponse) as error:
            chat.view.say(f"error: {error}", style="red")
