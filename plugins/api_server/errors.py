"""The one mapper from errors to answers."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from plugin_sdk import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    NotSupported,
    TooLarge,
    Unauthorized,
    Unavailable,
)

STATUSES: tuple[tuple[type[EngineError], int], ...] = (
    (InvalidParameter, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (NotModified, 304),
    (NotSupported, 501),
    (Unavailable, 503),
)

log = logging.getLogger("engine.api_server")


def answer(error: Exception, request: str) -> tuple[int, bytes]:
    """Status and body for an error that a route raised; `request` names it in the log.

    Unexpected ones are logged with their traceback and become 500, with a message that says what was raised.
    """
    if isinstance(error, EngineError):
        status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
        if status == 500:
            log.error("%s: %s", request, error)
        elif status == 304:
            return status, b""
        return status, message(str(error))
    if isinstance(error, RequestValidationError):
        return 400, message(_validation(error))
    if isinstance(error, HTTPException):
        return error.status_code, message("page not found" if error.status_code in (404, 405) else str(error.detail))
    log.error("%s failed", request, exc_info=error)
    return 500, message(f"internal error: {type(error).__name__}: {error}")


def message(text: str) -> bytes:
    """The body of an error."""
    return orjson.dumps({"message": text}) + b"\n"


def _validation(error: RequestValidationError) -> str:
    first: dict[str, Any] = error.errors()[0]
    where = first["loc"][-1] if len(first["loc"]) > 1 else first["loc"][0]
    return f"invalid value for {where}: {first['msg']}"
