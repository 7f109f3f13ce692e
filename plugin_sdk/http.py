"""For `api.py` modules: what the Engine API's routes have in common. The one module of the SDK that needs FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BeforeValidator, ValidationError

from kernel.contracts.api import HIJACK, RawStream
from kernel.contracts.common import Wire
from kernel.errors import EngineError, InvalidParameter

W = TypeVar("W", bound=Wire)


def _boolean(value: Any) -> Any:
    # Docker's rule: "", "0", "no", "false", "none" are false, all else is true.
    return value.strip().lower() not in ("", "0", "no", "false", "none") if isinstance(value, str) else value


Flag = Annotated[bool, BeforeValidator(_boolean), Query()]
"""A boolean query parameter, read as dockerd reads it."""


def api_version(request: Request) -> tuple[int, int]:
    """Version that the client asked for; the newest for bare paths."""
    version: tuple[int, int] = request.scope["engine.api_version"]
    return version


def reply(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON. Wire models and dataclasses may be anywhere in `content`; keys keep their order."""
    return Response(
        orjson.dumps(content, default=_encode) + b"\n", status, headers=headers, media_type="application/json"
    )


def _encode(value: Any) -> Any:
    if isinstance(value, Wire):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


async def body(request: Request, model: type[W], *, empty_ok: bool = False) -> W:
    """The request's JSON body as a model.

    Raises:
        InvalidParameter: not JSON, or not of the model's shape; names the field.
    """
    raw = await request.body()
    if not raw.strip():
        if empty_ok:
            return model()
        raise InvalidParameter("request body is empty: want JSON")
    return decode(raw, model)


def decode(raw: bytes, model: type[W]) -> W:
    """JSON bytes as a model. Raises InvalidParameter, naming the field."""
    try:
        return model.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidParameter(f"invalid value for {where or 'the body'}: {first['msg']}") from None


async def hijack(request: Request, content_type: str = "application/vnd.docker.raw-stream") -> RawStream:
    """Take the connection over. Call it only when nothing can be refused any more."""
    stream: RawStream = await request.scope["extensions"][HIJACK](content_type)
    return stream


class Hijacked(Response):
    """What a route returns after it has hijacked the connection: sends nothing."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        return


Report = Callable[[dict[str, Any]], Awaitable[None]]
"""Sends one progress message, for example {"status": "Loading layer", "id": "..."}."""


def progress(work: Callable[[Report], Awaitable[None]]) -> Response:
    """A stream of JSON messages while `work` runs; it is cancelled when the client goes away.

    A failure before the first message has the status it deserves (it is raised when the response starts); later ones
    become a last message `{"errorDetail": {"message": ...}, "error": ...}`, as the docker CLI expects.
    """
    return _Progress(work)


class _Progress(StreamingResponse):
    def __init__(self, work: Callable[[Report], Awaitable[None]]) -> None:
        super().__init__(self._messages(), media_type="application/json")
        self._work = work
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(64)
        self._first: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        try:
            await self._work(self._queue.put)
        finally:
            await self._queue.put(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._task = asyncio.create_task(self._run())
        try:
            self._first = await self._queue.get()
            if self._first is None:
                await self._task
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _messages(self) -> AsyncIterator[bytes]:
        assert self._task is not None
        message = self._first
        while message is not None:
            yield orjson.dumps(message) + b"\r\n"
            message = await self._queue.get()
        try:
            await self._task
        except EngineError as error:
            yield orjson.dumps({"errorDetail": {"message": str(error)}, "error": str(error)}) + b"\r\n"
