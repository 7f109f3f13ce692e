"""For `api.py` modules: what the Engine API's routes have in common. The one module of the SDK that needs FastAPI.

Routes raise EngineErrors; the API server alone turns them into statuses. Keep routes cheap: take `Request` and the few
query parameters that matter, and answer with `reply`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import orjson
from fastapi import Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BeforeValidator, ValidationError
from starlette.requests import ClientDisconnect, HTTPConnection

from kernel.contracts.api import ABANDON, HIJACK, RawStream
from kernel.contracts.common import Wire
from kernel.errors import DeadlineExceeded, EngineError, InvalidParameter, TooLarge

W = TypeVar("W", bound=Wire)

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of a JSON body that are accepted. Uploads (`request.stream()`) have no limit."""
BODY_DEADLINE = 60.0
"""Seconds within which a JSON body must have come."""

_SPOOL_STEP = 1024 * 1024

_log = logging.getLogger("engine.http")


def _boolean(value: Any) -> Any:
    # Docker's rule: "", "0", "no", "false", "none" are false, all else is true.
    return value.strip().lower() not in ("", "0", "no", "false", "none") if isinstance(value, str) else value


Flag = Annotated[bool, BeforeValidator(_boolean), Query()]
"""A boolean query parameter, read as dockerd reads it."""


def api_version(request: HTTPConnection) -> tuple[int, int]:
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


async def body(request: Request, model: type[W], *, empty_ok: bool = False, strict: bool = False) -> W:
    """The request's JSON body as a model.

    Args:
        strict: a text is neither a number nor a truth value, as for Go's servers.

    Raises:
        InvalidParameter: not JSON, not declared as JSON, or not of the model's shape; names the field.
        TooLarge: more than BODY_LIMIT bytes.
        DeadlineExceeded: it did not come within BODY_DEADLINE seconds.
    """
    raw = await read(request)
    if not raw.strip():
        if empty_ok:
            return model()
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    declared = request.headers.get("content-type", "")
    if declared.partition(";")[0].strip().lower() != "application/json":
        # A web page can make a browser post anything but this: the check keeps it from driving a local engine.
        what = "unsupported" if declared else "malformed"
        raise InvalidParameter(f"{what} Content-Type header ({declared}): must be 'application/json'")
    return decode(raw, model, strict=strict)


async def read(request: Request, *, limit: int = BODY_LIMIT) -> bytes:
    """The request's whole body. Raises TooLarge and DeadlineExceeded like `body`."""
    refusal = TooLarge(f"the request body is larger than the {limit} bytes that are accepted")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise refusal
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise refusal
                parts.append(part)
    except TimeoutError:
        raise DeadlineExceeded(f"the request body did not come within {BODY_DEADLINE:g} s") from None
    return b"".join(parts)


@asynccontextmanager
async def spool(request: Request, folder: Path) -> AsyncIterator[BinaryIO]:
    """The request's body, of any size, as a file to read from its start; it has no name and leaves nothing behind.

    Args:
        folder: on the file system that shall hold it.
    """
    file = await asyncio.to_thread(_nameless, folder)
    try:
        waiting: list[bytes] = []
        size = 0
        async for part in request.stream():
            waiting.append(part)
            size += len(part)
            if size >= _SPOOL_STEP:
                await asyncio.to_thread(file.writelines, waiting)
                waiting, size = [], 0
        await asyncio.to_thread(file.writelines, waiting)
        file.seek(0)
        yield file
    finally:
        file.close()


def _nameless(folder: Path) -> BinaryIO:
    return tempfile.TemporaryFile("w+b", dir=folder)


def decode(raw: bytes, model: type[W], *, strict: bool = False) -> W:
    """JSON bytes as a model. Raises InvalidParameter, naming the field."""
    try:
        parsed = orjson.loads(raw)
        return model.model_validate({} if parsed is None else parsed, strict=strict)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidParameter(f"invalid value for {where or 'the body'}: {first['msg']}") from None


async def hijack(request: Request, content_type: str = "application/vnd.docker.raw-stream") -> RawStream:
    """Take the connection over. Call it only when nothing can be refused any more.

    The stream is ended when the route returns; `await` all work with it before.
    """
    stream: RawStream = await request.scope["extensions"][HIJACK](content_type)
    return stream


class Hijacked(Response):
    """What a route returns after it has hijacked the connection: sends nothing."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        return


def abandon_with_client(request: Request) -> None:
    """Have this request's task cancelled when its client goes away.

    Without it that happens only once the response has started: a client that leaves early still gets its container
    created, but nobody should wait on for its sake.
    """
    if abandon := request.scope["extensions"].get(ABANDON):
        abandon()


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
        except Exception:
            await self._queue.put(None)
            raise
        await self._queue.put(None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if abandon := scope.get("extensions", {}).get(ABANDON):
            abandon()
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
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the client, who has its status already, must hear of any failure
            if not isinstance(error, EngineError):
                _log.error("a progress stream failed", exc_info=error)
            yield orjson.dumps({"errorDetail": {"message": str(error)}, "error": str(error)}) + b"\r\n"
