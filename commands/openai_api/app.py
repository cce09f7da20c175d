"""The routes of the endpoint, on starlette. The engine writes in a thread of its own; all else is in the event loop."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from commands.openai_api.errors import ApiError
from commands.openai_api.fields import Fields
from commands.openai_api.page_files import page_routes
from commands.openai_api.reply import Reply
from commands.openai_api.reply import Response as Written
from commands.openai_api.request import Asked, Served, read_body
from lightning_modules.generation.engine import End, Engine, Job, Listener, QueueFull, Stopping
from lightning_modules.generation.sections import Piece, SectionReader

LOOPBACK = ["localhost", "127.0.0.1", "[::1]", "["]  # the last one is what starlette reads in [::1]:8000
RETRY = {"Retry-After": "1"}  # seconds
Event = tuple[int, list[Piece], bool]  # index of a response, its new pieces, whether it ended


@dataclass(frozen=True)
class Model:
    """A model that is served."""

    served: Served
    engine: Engine


def make_app(models: Mapping[str, Model], max_body: int, loopback: bool) -> Starlette:
    """Return the application. `max_body`: bytes of a body. `loopback`: refuse other names of this machine, with which
    a page of another site could reach it."""
    made = int(time.time())

    async def list_models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(one, made) for one in models.values()]})

    async def get_model(request: Request) -> Response:
        return JSONResponse(_model(_find(models, request.path_params["name"]), made))

    async def chat(request: Request) -> Response:
        return await _answer(request, models, max_body, chat=True)

    async def completions(request: Request) -> Response:
        return await _answer(request, models, max_body, chat=False)

    async def health(request: Request) -> Response:
        loads = {name: dict(zip(("running", "waiting"), one.engine.load, strict=True)) for name, one in models.items()}
        return JSONResponse({"status": "ok", "models": loads})

    return Starlette(
        routes=[
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", get_model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/health", health),
            *page_routes(),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)] if loopback else [],
        exception_handlers={ApiError: _refuse, HTTPException: _refuse_route},
    )


def _model(model: Model, made: int) -> dict[str, Any]:
    served = model.served
    return {
        "id": served.name, "object": "model", "created": made, "owned_by": "thinkwright",
        "max_model_len": served.context,
    }  # fmt: skip


def _find(models: Mapping[str, Model], name: str | None) -> Model:
    if name is None or name not in models:
        known = " or ".join(models)
        if name is None:
            raise ApiError(400, f"model: is not given. Give {known}.", "model")
        raise ApiError(404, f"model: {name!r} does not exist. Give {known}.", "model", "model_not_found")
    return models[name]


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = RETRY if error.status in (429, 503) else {}
    return JSONResponse(error.body(), error.status, headers)


async def _refuse_route(request: Request, error: Exception) -> Response:
    """A path that does not exist, or another method."""
    assert isinstance(error, HTTPException)
    return JSONResponse(ApiError(error.status_code, str(error.detail)).body(), error.status_code, error.headers)


async def _body(request: Request, most: int) -> bytes:
    """The body. Raises ApiError if it is no JSON by its header, or has too many bytes, as soon as this is known."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site may send other types without being asked
        raise ApiError(415, "Content-Type: is not application/json.")
    too_long = ApiError(413, f"the body has more than {most:,} bytes. Shorten it, or raise --max_body.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_long
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_long
    return body


async def _answer(request: Request, models: Mapping[str, Model], max_body: int, chat: bool) -> Response:
    try:
        given = Fields(await _body(request, max_body))
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    model = _find(models, given.text("model"))
    asked = read_body(given, model.served, chat)
    name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
    reply = Reply(asked, model.served.name, name, int(time.time()))
    decoding = asked.decoding
    responses = [
        Written(SectionReader(model.served.tokenizer, decoding.end_ids, decoding.opens(one.ids), asked.stop))
        for one in asked.requests
    ]
    writing = _Writing(model.engine, asked, responses)
    gone = asyncio.create_task(_until_gone(request))
    gone.add_done_callback(lambda _: writing.cancel())  # also if the client is gone before the first event
    if asked.stream:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        chunks = _stream(writing, reply, responses, gone)
        return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
    try:
        async for _ in writing.events(gone):
            pass
    except Exception as error:
        raise _api_error(error) from error
    finally:
        gone.cancel()
    return JSONResponse(reply.whole(responses))


async def _stream(
    writing: "_Writing", reply: Reply, responses: Sequence[Written], gone: "asyncio.Task[None]"
) -> AsyncIterator[str]:
    """The server-sent events of a reply."""
    try:
        if reply.asked.chat:
            for index in range(len(responses)):
                yield _event(reply.first(index))
        async for index, pieces, ended in writing.events(gone):
            for piece in pieces:
                yield _event(reply.piece(index, piece))
            if ended:
                yield _event(reply.last(index, responses[index]))
        if reply.asked.usage:
            yield _event(reply.usage_chunk(responses))
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(_api_error(error).body())
    finally:
        writing.cancel()
        gone.cancel()


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _until_gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _api_error(error: Exception) -> ApiError:
    """What a failure of the engine is to a client."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Stopping):
        return ApiError(503, "the server is stopping.")
    memory = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
    reason = "there is not enough memory; lower --context or --batch_size" if memory else "the server's log says why"
    return ApiError(500, f"the model failed: {reason}.")


class _Writing:
    """The responses of a body, as the engine writes them. Made at once, so that a full queue has its own status."""

    def __init__(self, engine: Engine, asked: Asked, responses: Sequence[Written]) -> None:
        self.responses = responses
        self._queue: asyncio.Queue[tuple[int, Sequence[int], End | None]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._at_once = asked.stream or bool(asked.stop)  # else the event loop sleeps until the end
        try:
            listeners = [self._listener(index) for index in range(len(responses))]
            self._jobs: list[Job] = engine.submit_all(asked.requests, listeners)
        except QueueFull as error:
            text = f"{engine.queue:,} requests wait already. Try again later, or raise --queue."
            raise ApiError(429, text, code="queue_full") from error
        except Stopping as error:
            raise _api_error(error) from error

    def _listener(self, index: int) -> Listener:
        held: list[int] = []

        def listen(tokens: Sequence[int], end: End | None) -> None:
            held.extend(tokens)
            if end is None and not self._at_once:
                return
            given = held.copy()
            held.clear()
            with suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, given, end))

        return listen

    async def events(self, gone: "asyncio.Task[None]") -> AsyncIterator[Event]:
        """Yield what is new, until all responses have ended or the client is gone. Raises what the engine raised."""
        open_responses = set(range(len(self.responses)))
        try:
            while open_responses:
                following = asyncio.ensure_future(self._queue.get())
                await asyncio.wait([following, gone], return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    following.cancel()
                    return
                index, tokens, end = following.result()
                if isinstance(end, Exception):
                    raise end
                response = self.responses[index]
                if index not in open_responses:
                    continue
                pieces = response.take(tokens)
                if end is not None:
                    pieces += response.end(end)
                ended = response.finish is not None
                if ended:
                    open_responses.discard(index)
                    self._jobs[index].cancel()
                yield index, pieces, ended
        finally:
            self.cancel()

    def cancel(self) -> None:
        for job in self._jobs:
            job.cancel()
