"""Routes of registries."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plugin_sdk import InvalidParameter
from plugin_sdk.http import abandon_with_client, body, reply
from plugin_sdk.reference import parse
from plugin_sdk.registry import Credentials, Registry

from . import inspection


def router(registry: Registry) -> APIRouter:
    """`/auth` and `/distribution/NAME/json`."""
    routes = APIRouter()

    @routes.post("/auth")
    async def auth(request: Request) -> Response:
        abandon_with_client(request)
        token = await registry.login(await body(request, Credentials))
        return reply({"IdentityToken": token, "Status": "Login Succeeded"})

    @routes.get("/distribution/{name:path}/json")
    async def distribution(request: Request, name: str) -> Response:
        abandon_with_client(request)
        reference = parse(name).tagged()
        if reference.tag and reference.digest:
            raise InvalidParameter(f"invalid reference format: {name} has both a tag and a digest; want one of them")
        credentials = Credentials.decode(request.headers.get("x-registry-auth"))
        return reply(await inspection.inspect(registry, reference, credentials))

    return routes
