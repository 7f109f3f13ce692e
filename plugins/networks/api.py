"""Routes of networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from plugin_sdk import Conflict, Event, Forbidden, NotFound, PluginContext, Unavailable, Wire
from plugin_sdk import containers as wire
from plugin_sdk.containers import Containers
from plugin_sdk.http import Flag, api_version, body, reply
from plugin_sdk.text import match_labels, parse_filters
from plugin_sdk.times import parse_ns, parse_until_ns
from plugins.networks.objects import NetworkCreate
from plugins.networks.wirenet import LIST_FILTERS, check_filters, matches, show

if TYPE_CHECKING:
    from plugins.networks.service import NetworksService


class Connect(Wire):
    """Body of connect."""

    Container: str = ""
    EndpointConfig: wire.EndpointConfig = wire.EndpointConfig()


class Disconnect(Wire):
    """Body of disconnect."""

    Container: str = ""
    Force: bool = False


def router(ctx: PluginContext, service: NetworksService) -> APIRouter:
    """The routes under /networks."""

    async def restored() -> None:
        await service.ready()

    routes = APIRouter(dependencies=[Depends(restored)])
    _objects(routes, ctx, service)
    _attachments(routes, ctx, service)
    return routes


def _objects(routes: APIRouter, ctx: PluginContext, service: NetworksService) -> None:
    objects = service.objects

    @routes.get("/networks")
    async def list_networks(request: Request, filters: str = "") -> Response:
        wanted = parse_filters(filters, known=LIST_FILTERS)
        check_filters(wanted)
        # Clients of API 1.27 and older expect the containers in the list too.
        full = api_version(request) < (1, 28)
        found = []
        for network in objects.list():
            plugged = service.plugged_into(network.Id)
            if matches(network, wanted, bool(plugged)):
                found.append(show(network, plugged if full else (), api_version(request)))
        return reply(found)

    @routes.get("/networks/{ref:path}")
    async def inspect(request: Request, ref: str, verbose: Flag = False, scope: str = "") -> Response:
        network = objects.get(ref)
        if scope and network.Scope != scope:
            raise NotFound(f"network {ref} not found")
        return reply(show(network, service.plugged_into(network.Id), api_version(request)))

    @routes.post("/networks/create")
    async def create(request: Request) -> Response:
        made = await service.create_network(await body(request, NetworkCreate))
        return reply({"Id": made.Id, "Warning": ""}, 201)

    @routes.post("/networks/prune")
    async def prune(filters: str = "") -> Response:
        wanted = parse_filters(filters, known=("label", "label!", "until"))
        until = [parse_until_ns(moment) for moment in wanted.get("until", [])]
        unwanted = wanted.get("label!", [])
        deleted = []
        for network in objects.list():
            if network.Predefined or objects.holders(network) or network.ConfigOnly:
                continue
            if any(parse_ns(network.Created) >= moment for moment in until):
                continue
            if not match_labels(wanted.get("label", []), network.Labels):
                continue
            if any(match_labels([label], network.Labels) for label in unwanted):
                continue
            try:
                await objects.remove(network.Id)
            except (Conflict, Forbidden):
                continue  # it has come into use meanwhile
            deleted.append(network.Name)
        ctx.events.publish(Event("network", "prune", "", {"reclaimed": "0"}))
        return reply({"NetworksDeleted": deleted or None})

    @routes.delete("/networks/{ref:path}")
    async def remove(ref: str) -> Response:
        await objects.remove(ref)
        return Response(status_code=204)


def _attachments(routes: APIRouter, ctx: PluginContext, service: NetworksService) -> None:
    def containers() -> Containers:
        found = ctx.find(Containers)
        if found is None:
            raise Unavailable("no enabled plugin provides containers")
        return found

    @routes.post("/networks/{ref:path}/connect")
    async def connect(ref: str, request: Request) -> Response:
        asked = await body(request, Connect)
        await service.connect(ref, containers().get(asked.Container), asked.EndpointConfig)
        return Response(status_code=200)

    @routes.post("/networks/{ref:path}/disconnect")
    async def disconnect(ref: str, request: Request) -> Response:
        asked = await body(request, Disconnect)
        try:
            container = containers().get(asked.Container)
        except NotFound:
            if not asked.Force:
                raise
            await service.disconnect_gone(ref, asked.Container)
        else:
            await service.disconnect(ref, container, force=asked.Force)
        return Response(status_code=200)
