"""Routes of what containers use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import InvalidParameter
from plugin_sdk.http import Flag, reply
from plugins.stats.sampler import Reading, Sampler
from plugins.stats.wire import shown

OneShot = Annotated[Flag, Query(alias="one-shot")]
"""Everybody's single reading comes at once, so this asks for nothing more."""


def router(sampler: Sampler) -> APIRouter:
    """`/containers/ID/stats`, and ours: `/containers/stats` for all that run."""
    routes = APIRouter()

    @routes.get("/containers/stats")
    async def all_stats(stream: Flag = True) -> Response:
        if not stream:
            return reply([shown(reading) for reading in await sampler.read_all()])

        async def lines() -> AsyncIterator[bytes]:
            async for readings in sampler.follow_all():
                yield orjson.dumps([shown(reading) for reading in readings]) + b"\n"

        return StreamingResponse(lines(), media_type="application/json")

    @routes.get("/containers/{ref}/stats")
    async def stats(ref: str, stream: Flag = True, one_shot: OneShot = False) -> Response:
        if one_shot and stream:
            raise InvalidParameter("cannot have stream=true and one-shot=true")
        if not stream:
            return reply(shown(await sampler.read(ref)))
        readings = sampler.follow(ref)
        first = await anext(readings)

        async def lines() -> AsyncIterator[bytes]:
            yield _line(first)
            async for reading in readings:
                yield _line(reading)

        return StreamingResponse(lines(), media_type="application/json")

    return routes


def _line(reading: Reading) -> bytes:
    return orjson.dumps(shown(reading)) + b"\n"
