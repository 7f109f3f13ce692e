"""Routes that Docker lacks: a managed plugin's output and processes, and plugins in files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import InvalidParameter, PluginContext, Wire
from plugin_sdk.api import RawStream
from plugin_sdk.containers import ExecSpec
from plugin_sdk.http import Flag, Hijacked, body, hijack, reply, spool
from plugin_sdk.managed import ManagedPlugins
from plugin_sdk.runtime import ExecProcess
from plugin_sdk.stdcopy import frame
from plugin_sdk.streams import Outlet
from plugins.plugin_admin import shapes

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
EXITED = 3
"""Stream of the last frame of an exec."""


def add(routes: APIRouter, ctx: PluginContext) -> None:
    """`/engine/managed/NAME/{logs,top,exec,save}`, `/engine/managed/load`, `/engine/old-style`."""
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

    @routes.post("/engine/managed/{name:path}/exec")
    async def run(request: Request, name: str) -> Response:
        asked = await body(request, ExecRequest)
        if not asked.Cmd:
            raise InvalidParameter("No exec command specified")
        process = await store.exec(name, asked.spec())
        try:
            await _converse(await hijack(request, MULTIPLEXED), process, stdin=asked.AttachStdin)
        finally:
            await process.close()
        return Hijacked()

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


class ExecRequest(Wire):
    """Body of `POST /engine/managed/NAME/exec`."""

    Cmd: list[str] = []
    Env: list[str] = []
    User: str = ""
    WorkingDir: str = ""
    AttachStdin: bool = False
    Tty: bool = False
    Privileged: bool = False

    def spec(self) -> ExecSpec:
        """For the runtime."""
        return ExecSpec(
            argv=self.Cmd,
            env=self.Env,
            user=self.User,
            cwd=self.WorkingDir,
            tty=self.Tty,
            stdin=self.AttachStdin,
            privileged=self.Privileged,
        )


async def _converse(client: RawStream, process: ExecProcess, *, stdin: bool) -> None:
    """Frames of output until the process has closed it, then a frame on `EXITED` with the exit code as text."""
    feeding = asyncio.create_task(_feed(client, process)) if stdin else None
    try:
        while (piece := await process.read()) is not None:
            await client.write(frame(*piece))
        await client.write(frame(EXITED, str(await process.wait()).encode()))
        await client.end()
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


async def _feed(client: RawStream, process: ExecProcess) -> None:
    while data := await client.read():
        await process.write(data)
    await process.close_stdin()


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
