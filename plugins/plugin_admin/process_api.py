"""Routes that Docker lacks: a managed plugin's output and processes, and plugins in files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import PluginContext
from plugin_sdk.http import Flag, reply, spool
from plugin_sdk.managed import ManagedPlugins
from plugin_sdk.streams import Outlet
from plugins.plugin_admin import shapes


def add(routes: APIRouter, ctx: PluginContext) -> None:
    """`/engine/managed/NAME/{logs,top,save}`, `/engine/managed/load`, `/engine/old-style`."""
    store = ctx.require(ManagedPlugins)

    @routes.get("/engine/managed/{name:path}/logs")
    async def logs(request: Request, name: str, follow: Flag = False, tail: int = -1) -> Response:
        store.get(name)

        async def lines() -> AsyncIterator[bytes]:
            async for entries in store.logs(name, tail=tail, follow=follow):
                yield b"".join(entry.line + (b"" if entry.partial else b"\n") for entry in entries)

        return StreamingResponse(lines(), media_type="text/plain")

    @routes.get("/engine/managed/{name:path}/top")
    async def top(request: Request, name: str) -> Response:
        pids = await store.pids(name)
        return reply({"Titles": ["PID", "CMD"], "Processes": await asyncio.to_thread(_processes, pids)})

    @routes.get("/engine/managed/{name:path}/save")
    async def save(request: Request, name: str) -> Response:
        store.get(name)

        async def content() -> AsyncIterator[bytes]:
            async with Outlet() as outlet:
                work = asyncio.ensure_future(_write(store, name, outlet))
                async for piece in outlet:
                    yield piece
                await work

        return StreamingResponse(content(), media_type="application/x-tar")

    @routes.post("/engine/managed/load")
    async def load(request: Request) -> Response:
        async with spool(request, ctx.root) as archive:
            plugin = await store.load(archive)
        return reply({"Name": plugin.Name, "Id": plugin.Id})

    @routes.get("/engine/old-style")
    async def old_style(request: Request) -> Response:
        return reply([shapes.old_style(plugin) for plugin in await store.old_style()])


async def _write(store: ManagedPlugins, name: str, outlet: Outlet) -> None:
    try:
        await store.save(name, outlet)  # type: ignore[arg-type]
    except BaseException as error:
        outlet.end(error)
        raise
    outlet.end()


def _processes(pids: Any) -> list[list[str]]:
    found = []
    for pid in pids:
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it ended while we looked
        found.append([str(pid), raw.replace(b"\0", b" ").decode(errors="replace").strip()])
    return found
