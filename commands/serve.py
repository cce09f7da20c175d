"""serve: an OpenAI-compatible endpoint with a run's model."""

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from commands.generate import add_device, decoding_settings, device
from commands.load import Loaded, Opened, open_run
from commands.messages import quiet
from commands.openai_api.request import EffortSettings, Served
from commands.parsing import Parser
from commands.rivals import BASE, run_name
from commands.which_run import add_run_arguments
from errors import UserError
from hub import model_folder
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.engine import Engine
from lightning_modules.net.base_files import config_values

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from commands.openai_api.app import Model
log = logging.getLogger("thinkwright")
CONTEXT = 4096  # tokens, unless the model takes fewer: the cache of longer ones leaves room for few rows
LOCAL = ("localhost", "127.0.0.1", "::1")
GRACE = 5.0  # seconds for responses that are being written when the server is asked to stop


def build_parser() -> Parser:
    parser = Parser("serve")
    add_run_arguments(parser)
    parser.add_argument(
        "--host",
        type=str,
        default="127.0.0.1",
        help="Address to listen at. Default 127.0.0.1: this machine only. There is no password: with another one, "
        "everybody who reaches the machine can ask.",
    )
    parser.add_argument("--port", type=int, default=8000, help="Port; 0 takes a free one. Default 8000.")
    parser.add_argument(
        "--base", action="store_true", help="Serve the base before its training as well, as the model named base."
    )
    parser.add_class_arguments(DecodingSettings, None)
    parser.add_class_arguments(EffortSettings, None)
    parser.add_argument(
        "--context",
        type=int | None,
        default=None,
        help="Most tokens of a prompt and its response. Default null: what the model takes, at most 4,096.",
    )
    parser.add_argument(
        "--batch_size",
        type=int | None,
        default=None,
        help="Most responses that are written at once. Default null: as many as save time and have room, at most 64.",
    )
    parser.add_argument(
        "--queue", type=int, default=64, help="Most requests that wait; more get status 429. Default 64."
    )
    parser.add_argument(
        "--max_body",
        type=int,
        default=2**20,
        help="Most bytes of a request's body; more get status 413. Default 1 MiB.",
    )
    add_device(parser)
    return parser


def run(args: Sequence[str]) -> int:
    quiet()
    require_packages()
    parser = build_parser()
    given = parser.read(args)
    settings = decoding_settings(given)
    chosen = device(given.device)
    listening = listen(given.host, given.port)
    with listening:
        opened = [open_run(given.run, given.ckpt_path, given.root)]
        if given.base:
            if opened[0].tuner.from_scratch:
                raise UserError("--base", None, "the run's base is random (model.from_scratch)", "delete it")
            run_folder, checkpoint = str(opened[0].run.folder), str(opened[0].checkpoint)
            opened.append(open_run(run_folder, checkpoint, given.root))
        settings.check(opened[0].data.think_tokenizer)
        context = context_of(opened[0], given.context)
        name = run_name(opened[0])
        models = {}
        for known, one, trained in zip((name, BASE), opened, (True, False), strict=False):
            loaded = one.load(trained)
            loaded.tuner.to(chosen)
            models[known] = serve_model(known, loaded, settings, context, given)
        from commands.openai_api.app import make_app

        app = make_app(models, given.max_body, given.host in LOCAL)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        if given.host not in LOCAL:
            log.warning(f"warning: everybody who reaches {shown}:{port} can ask the model: there is no password")
        log.info(f"{' and '.join(models)} at http://{shown}:{port}/v1, a page at http://{shown}:{port}/ (Ctrl-C stops)")
        return serve(app, models, listening)


def require_packages() -> None:
    """Raise UserError if a package of the extra is missing."""
    from importlib.util import find_spec

    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            fix = "run pip install '.[serve]' in the folder of this program"
            raise UserError(name, None, "is not installed, and serve needs it", fix)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before a model is loaded. Raises UserError if the port is in use."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError("--host", host, f"is no address ({error.strerror})", "give 127.0.0.1 or 0.0.0.0") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        if "cannot assign" in reason:
            fix = "give 127.0.0.1 or 0.0.0.0"
            raise UserError("--host", host, "is no address of this machine", fix) from error
        if isinstance(error, PermissionError):
            raise UserError("--port", port, "needs the rights of an administrator", "give one above 1023") from error
        fix = "give another one, or 0 for a free one"
        raise UserError("--port", port, f"cannot be used ({reason})", fix) from error
    return listening


def context_of(opened: Opened, given: int | None) -> int:
    """Return the most tokens of a prompt and its response. Raises UserError for more than the model takes."""
    config = config_values(model_folder(opened.tuner.name, opened.tuner.revision))
    most: int | None = config.get("max_position_embeddings")
    if given is not None and most is not None and given > most:
        raise UserError("--context", given, f"is more than the {most:,} positions of the model", "lower it")
    return given or min(most or CONTEXT, CONTEXT)


def serve_model(name: str, loaded: Loaded, settings: DecodingSettings, context: int, given: Any) -> "Model":
    """Return a loaded model with its engine."""
    from commands.openai_api.app import Model

    tuner = loaded.tuner
    assert tuner.net is not None
    efforts = EffortSettings(**{one.name: given[one.name] for one in fields(EffortSettings)})
    own = replace(settings, max_new_tokens=context)
    decoding = Decoding.of(tuner.tokenizer, tuner.generation_config, own)
    engine = Engine(tuner.net, tuner.tokenizer, decoding, given.batch_size, given.queue)
    most = engine.rows + engine.queue
    served = Served(name, tuner.tokenizer, loaded.template, tuner.generation_config, settings, efforts, context, most)
    return Model(served, engine)


def serve(app: "Starlette", models: "dict[str, Model]", listening: socket.socket) -> int:
    """Serve until a signal; return the exit code. Responses that are being written have GRACE seconds to end."""
    import uvicorn

    engines = [model.engine for model in models.values()]
    received: list[int] = []

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            closing = asyncio.create_task(self._close_engines())
            await super().shutdown(sockets)
            closing.cancel()

        async def _close_engines(self) -> None:
            until = asyncio.get_running_loop().time() + GRACE
            while asyncio.get_running_loop().time() < until and any(sum(engine.load) for engine in engines):
                await asyncio.sleep(0.05)
            await asyncio.gather(*(asyncio.to_thread(engine.close) for engine in engines))

    # uvicorn raises the signal again after the end: these handlers take it then
    signals = [signal.SIGINT, signal.SIGTERM]
    before = {one: signal.signal(one, lambda number, frame: received.append(number)) for one in signals}
    try:
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=int(GRACE) + 5
        )
        Server(config).run([listening])
    finally:
        for engine in engines:
            engine.close()
        for one, handler in before.items():
            signal.signal(one, handler)
    if received:
        log.info(f"stopped by {signal.Signals(received[0]).name}")
        return 128 + received[0]
    return 0
