"""`/_ping`: the API server answers for itself, whatever other plugins do."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugins.api_server.app import PING

_HEADERS = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get(PING)
    async def ping(request: Request) -> Response:
        return Response(b"OK", headers=_HEADERS, media_type="text/plain")

    @routes.head(PING)
    async def ping_head(request: Request) -> Response:
        return Response(b"", headers=_HEADERS, media_type="text/plain")

    return routes
