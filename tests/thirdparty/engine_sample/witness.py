"""A second plugin: takes part in every hook, and tells at `GET /witness` what it was asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine_sample.drivers import SampleVolumes
from engine_sample.modes import Modes
from plugin_sdk import DriverSpec, Event, Holder, Plugin, PluginContext, PluginMeta, hookimpl
from plugin_sdk.api import Denial, RequestView, RouterSpec
from plugin_sdk.containers import ContainerDraft, ContainerRecord, Preparation
from plugin_sdk.network import EndpointRecord, IpamConfig, IpamPool, NetworkRecord
from plugin_sdk.runtime import Exit, OciSpec
from plugin_sdk.volumes import VolumeDriver


class WitnessPlugin(Plugin):
    """Sees everything, changes a little."""

    meta = PluginMeta(name="witness", description="Takes part in every hook")

    async def start(self, ctx: PluginContext) -> None:
        self._ctx = ctx
        self._seen: list[list[Any]] = []

    def _saw(self, hook: str, *facts: Any) -> None:
        self._seen.append([hook, *facts])

    # The engine

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec] | None:
        self._saw("engine_drivers")
        return None

    @hookimpl
    async def engine_driver_missing(self, contract: type[Any], name: str) -> DriverSpec | None:
        self._saw("engine_driver_missing", contract.__name__, name)
        if contract is VolumeDriver and name == "late":
            return DriverSpec(VolumeDriver, "late", SampleVolumes(self._ctx.root / "late", Modes()))
        return None

    @hookimpl
    async def engine_ready(self, addresses: list[str]) -> None:
        self._saw("engine_ready", *addresses)

    @hookimpl
    async def engine_event(self, event: Event) -> None:
        self._saw("engine_event", event.type, event.action)

    @hookimpl
    def engine_info(self) -> dict[str, Any]:
        return {"Warnings": ["WARNING: a witness is present"]}

    @hookimpl
    def engine_holders(self, kind: str, key: str) -> Iterable[Holder]:
        self._saw("engine_holders", kind, key)
        return [Holder("witness", "w1", "the-witness")] if key == "precious" else []

    # The API

    @hookimpl
    def engine_api_routers(self) -> Iterable[RouterSpec]:
        from fastapi import APIRouter

        router = APIRouter()

        @router.get("/witness")
        async def look() -> list[list[Any]]:
            return self._seen

        return [RouterSpec(router)]

    @hookimpl
    async def engine_authorize(self, request: RequestView) -> Denial | None:
        if "forbidden" in request.query:
            return Denial(f"{request.method} {request.path}: the witness objects")
        return None

    # A container's life

    @hookimpl
    async def engine_container_validate(self, draft: ContainerDraft) -> None:
        self._saw("engine_container_validate")
        draft.warnings.append("the witness is watching")

    @hookimpl
    async def engine_container_create(self, draft: ContainerDraft) -> None:
        self._saw("engine_container_create", (await draft.rootfs()).joinpath("bin/busybox").exists())

    @hookimpl
    async def engine_container_prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        self._saw("engine_container_prepare", container.Name, preparation.rootfs.is_dir())

    @hookimpl
    def engine_oci_spec(self, container: ContainerRecord, spec: OciSpec) -> None:
        self._saw("engine_oci_spec", container.Name)
        spec["process"]["env"].append("WITNESSED=yes")

    @hookimpl
    async def engine_container_started(self, container: ContainerRecord) -> None:
        self._saw("engine_container_started", container.Name)

    @hookimpl
    async def engine_container_release(self, container: ContainerRecord, exit: Exit | None) -> None:
        self._saw("engine_container_release", container.Name, exit.code if exit else None)

    @hookimpl
    async def engine_container_remove(self, container: ContainerRecord, volumes: bool) -> None:
        self._saw("engine_container_remove", container.Name, volumes)

    # Networks

    @hookimpl
    def engine_predefined_networks(self) -> Iterable[NetworkRecord]:
        pool = IpamPool(Subnet="10.221.1.0/24", Gateway="10.221.1.1")
        options = {"com.docker.network.bridge.name": "stage0"}
        ipam = IpamConfig(Config=[pool])
        return [NetworkRecord(Id="", Name="stage", Created="", Driver="bridge", IPAM=ipam, Options=options)]

    @hookimpl
    async def engine_resolve_name(self, network: NetworkRecord, name: str) -> Sequence[str] | None:
        self._saw("engine_resolve_name", network.Name, name)
        return ["192.0.2.99"] if name == "oracle" else None

    @hookimpl
    async def engine_endpoint_changed(self, change: str, network: NetworkRecord, endpoint: EndpointRecord) -> None:
        self._saw("engine_endpoint_changed", change, network.Name, endpoint.ContainerName)
