"""Routes of plugins: `/plugins` as Docker has it, and `/engine/plugins` for the in-process ones."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk import Conflict, InvalidParameter, NotFound, PluginAdmin, PluginContext, PluginStatus
from plugin_sdk.http import Flag, abandon_with_client, read, reply, spool
from plugin_sdk.managed import ManagedPlugin, ManagedPlugins
from plugin_sdk.text import parse_filters
from plugins.plugin_admin import distribution_api, process_api, shapes, verify_api


def router(ctx: PluginContext) -> APIRouter:
    """All routes."""
    routes = APIRouter()
    # First enable and disable: the last of the managed plugins' routes would match them too.
    _switch_routes(routes, ctx)
    distribution_api.add(routes, ctx)
    _managed_routes(routes, ctx)
    process_api.add(routes, ctx)
    verify_api.add(routes, ctx)
    _engine_routes(routes, ctx)
    return routes


def _managed_routes(routes: APIRouter, ctx: PluginContext) -> None:
    store = ctx.require(ManagedPlugins)

    def shown(plugin: ManagedPlugin) -> dict[str, object]:
        return shapes.managed(plugin, store.shown_settings(plugin.Id), store.status(plugin.Id))

    @routes.get("/plugins")
    async def list_plugins(request: Request, filters: str = "") -> Response:
        chosen = parse_filters(filters, known=("enabled", "capability"))
        return reply([shown(plugin) for plugin in shapes.select(store.list(), chosen)])

    @routes.get("/plugins/{name:path}/json")
    async def inspect(request: Request, name: str) -> Response:
        return reply(shown(store.get(name)))

    @routes.post("/plugins/create")
    async def create(request: Request, name: str = "") -> Response:
        if not name:
            raise InvalidParameter("the query parameter name is missing")
        async with spool(request, ctx.root) as archive:
            await store.create(name, archive)
        return Response(status_code=204)

    @routes.post("/plugins/{name:path}/set")
    async def change(request: Request, name: str) -> Response:
        await store.set(name, shapes.words(await read(request)))
        return Response(status_code=204)

    @routes.delete("/plugins/{name:path}")
    async def remove(request: Request, name: str, force: Flag = False) -> Response:
        if _managed(store, name) is None and _in_process(ctx, name) is not None:
            raise Conflict(f"plugin {name} belongs to an installed Python distribution: disable it, or uninstall that")
        plugin = store.get(name)
        before = shown(plugin)
        await store.remove(plugin.Id, force=force)
        return reply(before)


def _switch_routes(routes: APIRouter, ctx: PluginContext) -> None:
    """Enable and disable, for whichever kind carries the name; a managed plugin comes first."""
    store = ctx.require(ManagedPlugins)

    def in_process(name: str) -> str:
        if _in_process(ctx, name) is None:
            raise NotFound(f'plugin "{name}" not found')
        return name

    async def enable(request: Request, name: str, timeout: float = 0.0) -> Response:
        plugin = _managed(store, name)
        if plugin is None:
            await ctx.require(PluginAdmin).enable(in_process(name))
        else:
            # A client that gives up waiting wants no plugin that comes up later behind its back.
            abandon_with_client(request)
            await store.enable(plugin.Id, timeout=timeout)
        return Response(status_code=200)

    async def disable(request: Request, name: str, force: Flag = False) -> Response:
        plugin = _managed(store, name)
        if plugin is None:
            await ctx.require(PluginAdmin).disable(in_process(name), force=force)
        else:
            await store.disable(plugin.Id, force=force)
        return Response(status_code=200)

    for prefix in ("/plugins/{name:path}", "/engine/plugins/{name}"):
        routes.add_api_route(f"{prefix}/enable", enable, methods=["POST"])
        routes.add_api_route(f"{prefix}/disable", disable, methods=["POST"])


def _engine_routes(routes: APIRouter, ctx: PluginContext) -> None:
    admin = ctx.require(PluginAdmin)

    @routes.get("/engine/plugins")
    async def list_in_process(request: Request) -> Response:
        stats = admin.stats()
        return reply([shapes.in_process(status, stats) for status in admin.statuses()])

    @routes.get("/engine/plugins/{name}")
    async def inspect_in_process(request: Request, name: str) -> Response:
        status = _in_process(ctx, name)
        if status is None:
            raise NotFound(f'plugin "{name}" not found')
        return reply(shapes.in_process(status, admin.stats()))

    @routes.post("/engine/plugins/reload")
    async def reload(request: Request) -> Response:
        return reply({"Started": list(await admin.discover())})


def _managed(store: ManagedPlugins, name: str) -> ManagedPlugin | None:
    try:
        return store.get(name)
    except NotFound:
        return None


def _in_process(ctx: PluginContext, name: str) -> PluginStatus | None:
    return next((status for status in ctx.require(PluginAdmin).statuses() if status.name == name), None)
