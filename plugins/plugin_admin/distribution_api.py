"""Routes of plugins in registries: privileges, pull, push, upgrade."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk import InvalidParameter, PluginContext
from plugin_sdk.http import Report, progress, read, reply
from plugin_sdk.managed import ManagedPlugins
from plugin_sdk.registry import Credentials
from plugins.plugin_admin import shapes


def add(routes: APIRouter, ctx: PluginContext) -> None:
    """Before the routes that take any name."""
    store = ctx.require(ManagedPlugins)

    def credentials(request: Request) -> Credentials:
        return Credentials.decode(request.headers.get("x-registry-auth"))

    @routes.get("/plugins/privileges")
    async def privileges(request: Request, remote: str = "") -> Response:
        asked = await store.privileges(_given(remote), credentials(request))
        return reply([shapes.privilege(each) for each in asked])

    @routes.post("/plugins/pull")
    async def pull(request: Request, remote: str = "", name: str = "") -> Response:
        granted, auth = shapes.privileges(await read(request)), credentials(request)

        async def work(report: Report) -> None:
            await store.install(_given(remote), name, granted, auth, report)

        response = progress(work)
        response.headers["Docker-Plugin-Name"] = name or remote
        return response

    @routes.post("/plugins/{name:path}/upgrade")
    async def upgrade(request: Request, name: str, remote: str = "") -> Response:
        granted, auth = shapes.privileges(await read(request)), credentials(request)

        async def work(report: Report) -> None:
            await store.upgrade(name, remote, granted, auth, report)

        return progress(work)

    # docker-py posts a push to /pull.
    @routes.post("/plugins/{name:path}/pull")
    @routes.post("/plugins/{name:path}/push")
    async def push(request: Request, name: str) -> Response:
        store.get(name)
        auth = credentials(request)

        async def work(report: Report) -> None:
            await store.push(name, auth, report)

        return progress(work)


def _given(remote: str) -> str:
    if not remote:
        raise InvalidParameter("the query parameter remote is missing")
    return remote
