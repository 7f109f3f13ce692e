"""The route that runs the conformance kits against a plugin of this engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from plugin_sdk import Conflict, InvalidParameter, NotFound, PluginAdmin, PluginContext, Wire
from plugin_sdk.http import body
from plugin_sdk.managed import ManagedPlugins

if TYPE_CHECKING:
    from plugin_sdk.testing.kit import Kit, Subject


class VerifyRequest(Wire):
    """Body of `POST /engine/plugins/NAME/verify`; may be left out.

    Attributes:
        Options: for the volumes, logs and networks that the kits make.
        Checks: names of the checks to run; none: all.
    """

    Options: dict[str, str] = {}
    Checks: list[str] = []


@dataclass(frozen=True, slots=True)
class _Target:
    """A plugin as the drivers' registry knows it."""

    owner: str
    remote: bool


def add(routes: APIRouter, ctx: PluginContext) -> None:
    """`POST /engine/plugins/NAME/verify`."""
    turn = asyncio.Lock()

    @routes.post("/engine/plugins/{name:path}/verify")
    async def verify(request: Request, name: str) -> Response:
        """JSON lines: a result for each check, then the counts. One verification at a time."""
        asked = await body(request, VerifyRequest, empty_ok=True)
        work = await _work(ctx, name, asked)
        if turn.locked():
            raise Conflict("another plugin is being verified: try again when that has ended")
        return StreamingResponse(_results(work, asked, turn), media_type="application/x-ndjson")


async def _results(
    work: list[tuple[Kit, Subject[Any]]], asked: VerifyRequest, turn: asyncio.Lock
) -> AsyncIterator[bytes]:
    from plugin_sdk.testing import elsewhere

    counts: dict[str, int] = {}
    async with turn:
        for kit, subject in work:
            async with aclosing(elsewhere.run(kit, subject, asked.Checks)) as results:
                async for result in results:
                    counts[str(result.outcome)] = counts.get(str(result.outcome), 0) + 1
                    yield orjson.dumps({key.title(): value for key, value in asdict(result).items()}) + b"\n"
    yield orjson.dumps({"Counts": counts}) + b"\n"


async def _work(ctx: PluginContext, name: str, asked: VerifyRequest) -> list[tuple[Kit, Subject[Any]]]:
    """What to run. Raises NotFound, Conflict for a disabled plugin, InvalidParameter when there is nothing to verify."""
    from plugin_sdk.testing.kits import INTERFACES, KITS
    from plugin_sdk.testing.subjects import in_use

    target = await _target(ctx, name)
    work: list[tuple[Kit, Subject[Any]]] = []
    for contract, kit in KITS.items():
        for driver_name, driver in ctx.drivers.all(contract).items():
            if ctx.drivers.owner(contract, driver_name) == target.owner:
                work.append((kit, in_use(driver, driver_name, remote=target.remote, options=asked.Options)))
    if target.remote:
        for capability, kit in INTERFACES.items():
            try:
                peer = await ctx.require(ManagedPlugins).peer(target.owner, capability)
            except NotFound:
                continue
            work.append((kit, in_use(peer, target.owner, remote=True)))
    if not work:
        raise InvalidParameter(
            f"plugin {target.owner} has nothing that a conformance kit is about: no driver, no interface"
        )
    known = {check.name for kit, _ in work for check in kit.checks}
    if strangers := [check for check in asked.Checks if check not in known]:
        raise InvalidParameter(f"no check is named {strangers[0]!r} (there are: {', '.join(sorted(known))})")
    return work


async def _target(ctx: PluginContext, name: str) -> _Target:
    managed = ctx.require(ManagedPlugins)
    try:
        plugin = managed.get(name)
    except NotFound:
        if any(status.name == name for status in ctx.require(PluginAdmin).statuses()):
            return _Target(name, remote=False)
        return await _old_style(managed, name)
    if not plugin.Enabled:
        raise Conflict(f"plugin {plugin.Name} is disabled: enable it to have it verified")
    return _Target(plugin.Name, remote=True)


async def _old_style(managed: ManagedPlugins, name: str) -> _Target:
    """Activated by asking for it, whatever it implements."""
    if not any(plugin.name == name for plugin in await managed.old_style()):
        raise NotFound(f'plugin "{name}" not found')
    with suppress(NotFound):  # it implements something else, and is active now
        await managed.peer(name, "volumedriver")
    return _Target(name, remote=True)
