"""Routes of the system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import InvalidParameter, PluginContext
from plugin_sdk.http import reply
from plugin_sdk.text import parse_filters
from plugin_sdk.times import parse_moment_ns
from plugins.system import events, usage
from plugins.system.describe import Description


def router(ctx: PluginContext, description: Description) -> APIRouter:
    """`/version`, `/info`, `/events`, `/system/df`."""
    routes = APIRouter()

    @routes.get("/version")
    async def version(request: Request) -> Response:
        return reply(description.version())

    @routes.get("/info")
    async def info(request: Request) -> Response:
        return reply(description.info())

    @routes.get("/system/df")
    async def disk_usage(request: Request, type: Annotated[list[str] | None, Query()] = None) -> Response:
        for kind in type or ():
            if kind not in usage.KINDS:
                raise InvalidParameter(f"unknown object type: {kind}")
        return reply(await usage.measure(ctx, set(type or usage.KINDS)))

    _events(routes, ctx, description)
    return routes


def _events(routes: APIRouter, ctx: PluginContext, description: Description) -> None:
    def listening(change: int) -> None:
        description.listeners += change

    count: Callable[[int], None] = listening

    @routes.get("/events")
    async def follow(request: Request, since: str = "", until: str = "", filters: str = "") -> Response:
        since_ns, until_ns = parse_moment_ns(since), parse_moment_ns(until)
        events.check_span(since_ns, until_ns)
        chosen = parse_filters(filters, known=events.FILTERS)
        lines = events.stream(ctx.events, chosen, since_ns, until_ns, count)
        return StreamingResponse(lines, media_type="application/json")
