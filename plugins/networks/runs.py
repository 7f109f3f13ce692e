"""Networks at the start and at the end of a container's run."""

from __future__ import annotations

from pathlib import Path

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.containers import ContainerRecord, Containers, EndpointConfig, Preparation
from plugin_sdk.network import EndpointRecord
from plugins.networks import hosts, modes
from plugins.networks.base import Base, name_of, with_endpoint
from plugins.networks.gwbridge import settle_gateway
from plugins.networks.links import link_environment, resolve_links
from plugins.networks.modes import Mode, parse_mode
from plugins.networks.plugging import choose_gateway
from plugins.networks.records import Attachment, StoredNetwork
from plugins.networks.sandbox import owner
from plugins.networks.surroundings import Surroundings, add_mounts
from plugins.networks.turns import all_of

Plan = list[tuple[StoredNetwork, EndpointRecord]]

FILES = "networks.files"
"""Key in `Preparation.facts`: the folder with the container's hosts, hostname and resolv.conf."""


class Runs:
    """Plugs containers in, and out."""

    def __init__(self, base: Base, surroundings: Surroundings) -> None:
        self._base, self._surroundings = base, surroundings

    async def prepare(self, container: ContainerRecord, preparation: Preparation) -> None:
        """`engine_container_prepare`: sandbox, endpoints, ports, files. A failure leaves nothing behind."""
        base = self._base
        async with base.turns.alone(container.Id):
            stale = base.attachment(container)
            if stale.plugged:
                await self._release(stale)
            mode = parse_mode(container.HostConfig.NetworkMode)
            if mode.kind == "container":
                self._share(mode, container, preparation)
                return
            try:
                await self._plug_all(container, base.attachment(container), mode, preparation)
            finally:
                base.coming.pop(container.Id, None)

    async def release(self, container_id: str, *, wait: bool = True) -> None:
        """`engine_container_release`. What a driver does not take back is owed to it, and keeps nobody waiting.

        Args:
            wait: for plugins in a process of their own; else they are told behind the answer.
        """
        async with self._base.turns.alone(container_id):
            attachment = self._base.attachments.get(container_id)
            if attachment is not None and attachment.plugged:
                await self._release(attachment, wait)

    async def _plug_all(
        self, container: ContainerRecord, attachment: Attachment, mode: Mode, preparation: Preparation
    ) -> None:
        base = self._base
        links = resolve_links(container, mode, base.ctx.find(Containers), self._on_predefined)
        plan: Plan = []
        sandbox: Path | None = None
        entered: dict[str, EndpointRecord] = {}
        try:
            plan = await self._reserve_all(container, attachment)
            if mode.kind != "host":
                sandbox = await (base.pool.make_owned(container.Ids) if container.Ids else base.pool.take())
            where = str(sandbox or "")
            plan = [(network, endpoint.model_copy(update={"Sandbox": where})) for network, endpoint in plan]
            attachment = attachment.model_copy(
                update={
                    "Endpoints": [endpoint for _, endpoint in plan],
                    "Sandbox": where,
                    "Files": str(preparation.bundle / "network"),
                }
            )
            await all_of(
                base.attachments.save(attachment),
                *[self._enter(network, endpoint, sandbox, entered) for network, endpoint in plan],
                self._surroundings.furnish(container, mode, attachment, links, preparation),
            )
            plan, attachment = await self._entered(container, attachment, plan, entered)
        except BaseException:
            await self._undo(attachment, self._latest(container.Id, plan, entered), sandbox)
            raise
        preparation.netns = sandbox
        if sandbox is not None and container.Ids is not None:
            preparation.userns = owner(sandbox)
        preparation.env += link_environment(name_of(container), links)
        preparation.facts[FILES] = attachment.Files
        for network, endpoint in plan:
            base.discovery.names.add(endpoint)
            base.tell("connect", network, container.Id)
            base.announce("connected", network, endpoint)

    def _latest(self, container_id: str, plan: Plan, entered: dict[str, EndpointRecord]) -> Plan:
        """What is to be undone of a start: the choice of the gateway may have marked an endpoint, or added one."""
        base = self._base
        known = base.attachments.get(container_id)
        latest = {endpoint.Id: endpoint for _, endpoint in plan} | entered
        latest |= {endpoint.Id: endpoint for endpoint in known.Endpoints if endpoint.DefaultRoute} if known else {}
        by_id = {network.Id: network for network, _ in plan}
        networks = [by_id.get(e.NetworkID) or base.objects.find(e.NetworkID) for e in latest.values()]
        return [(network, e) for network, e in zip(networks, latest.values(), strict=True) if network is not None]

    async def _reserve_all(self, container: ContainerRecord, attachment: Attachment) -> Plan:
        """An endpoint with addresses on each network that is wanted."""
        base = self._base
        wanted: list[tuple[StoredNetwork, EndpointConfig]] = []
        for ref, config in attachment.Wanted.items():
            known = base.objects.find(config.NetworkID) if config.NetworkID else None
            wanted.append((base.objects.usable(known.Id if known is not None else ref), config))
        base.coming[container.Id] = {network.Id: name_of(container) for network, _ in wanted}
        drafts = [base.draft(container, network, config, f"eth{n}") for n, (network, config) in enumerate(wanted)]
        late = [network.Id for network, _ in wanted if await base.plugger.gateway_at_join(network)]
        if len(drafts) == 1 and not late and not wanted[0][0].Internal and wanted[0][0].IPAM.Config:
            # Known at once, so that the driver can reserve ports and set the route in the same breath.
            drafts[0] = _as_gateway(container, drafts[0])
        elif wanted and wanted[0][0].Id in late and not wanted[0][0].Internal:
            # Such a driver wants to know the ports early, and publishes them late if its network becomes the gateway.
            drafts[0] = _as_gateway(container, drafts[0]).model_copy(update={"DefaultRoute": False})
        plan: Plan = []
        try:
            for (network, config), draft in zip(wanted, drafts, strict=True):
                plan.append((network, await base.plugger.reserve(network, draft, config)))
        except BaseException:
            for network, endpoint in plan:
                await base.plugger.give_back(network, endpoint)
            raise
        plan = [
            (network, endpoint.model_copy(update={"Ports": []}) if network.Id in late else endpoint)
            for network, endpoint in plan
        ]
        if len(plan) > 1 and not late:
            gateway = choose_gateway([endpoint for _, endpoint in plan], [network for network, _ in plan])
            plan = [
                (network, _as_gateway(container, endpoint) if endpoint is gateway else endpoint)
                for network, endpoint in plan
            ]
        return plan

    async def _enter(
        self,
        network: StoredNetwork,
        endpoint: EndpointRecord,
        sandbox: Path | None,
        entered: dict[str, EndpointRecord],
    ) -> None:
        base = self._base
        if sandbox is None:
            return

        async def join() -> None:
            entered[endpoint.Id] = await base.plugger.join(network, endpoint, sandbox)

        if not (endpoint.DefaultRoute and endpoint.Ports):
            await join()
            return
        _, published = await all_of(join(), base.plugger.publish(network, endpoint))
        entered[endpoint.Id] = entered[endpoint.Id].model_copy(update={"Ports": published.Ports})

    async def _entered(
        self, container: ContainerRecord, attachment: Attachment, plan: Plan, entered: dict[str, EndpointRecord]
    ) -> tuple[Plan, Attachment]:
        """All networks were joined: take over what the drivers said then, and choose the gateway if that had to wait."""
        base = self._base
        before = attachment
        for endpoint in entered.values():
            attachment = with_endpoint(attachment, endpoint)
        if not any(endpoint.DefaultRoute for endpoint in attachment.Endpoints) and attachment.Sandbox:
            attachment = await settle_gateway(base, container, attachment)
        if attachment != before:
            await base.attachments.save(attachment)
        return [(base.objects.get(endpoint.NetworkID), endpoint) for endpoint in attachment.Endpoints], attachment

    async def _undo(self, attachment: Attachment, plan: Plan, sandbox: Path | None) -> None:
        base = self._base
        base.discovery.stop(attachment.ContainerID)
        for network, endpoint in plan:
            await base.plugger.let_go(network, _leaving(endpoint))
        if sandbox is not None:
            base.pool.destroy_soon(sandbox)
        base.attachments.settle(attachment.model_copy(update={"Endpoints": [], "Sandbox": "", "Files": ""}))

    async def _release(self, attachment: Attachment, wait: bool = True) -> None:
        base = self._base
        base.discovery.stop(attachment.ContainerID)
        for endpoint in attachment.Endpoints:
            base.discovery.names.remove(endpoint)
        plugged = [(endpoint, base.objects.find(endpoint.NetworkID)) for endpoint in attachment.Endpoints]
        # At the same time, so that a plugin that does not answer costs its time once.
        await all_of(*[self._let_go(network, endpoint, wait) for endpoint, network in plugged if network is not None])
        if attachment.Sandbox:
            base.pool.destroy_soon(Path(attachment.Sandbox))
        base.attachments.settle(attachment.model_copy(update={"Endpoints": [], "Sandbox": "", "Files": ""}))

    async def _let_go(self, network: StoredNetwork, endpoint: EndpointRecord, wait: bool) -> None:
        base = self._base
        await base.plugger.let_go(network, _leaving(endpoint), wait=wait)
        base.tell("disconnect", network, endpoint.ContainerID)
        base.announce("disconnected", network, endpoint)

    def _share(self, mode: Mode, container: ContainerRecord, preparation: Preparation) -> None:
        """`container:X`: the other one's namespace, and its files."""
        containers = self._base.ctx.require(Containers)
        target = containers.get(mode.ref)
        seen = {container.Id}
        while True:
            if target.Id in seen:
                raise InvalidParameter("cannot join own network namespace")
            seen.add(target.Id)
            if not target.State.running:
                raise Conflict(f"cannot join network of a non running container: {target.Id}")
            further = parse_mode(target.HostConfig.NetworkMode)
            if further.kind != "container":
                break
            target = containers.get(further.ref)
        attachment = self._base.attachments.get(target.Id)
        if attachment is None or not attachment.plugged:
            raise Conflict(f"cannot join network of a non running container: {target.Id}")
        preparation.netns = Path(attachment.Sandbox) if attachment.Sandbox else None
        if preparation.netns is not None and target.Ids is not None:
            preparation.userns = owner(preparation.netns)
        add_mounts(preparation, container, hosts.mounts(Path(attachment.Files)))
        preparation.facts[FILES] = attachment.Files

    def _on_predefined(self, container_id: str) -> EndpointRecord | None:
        attachment = self._base.attachments.get(container_id)
        for endpoint in attachment.Endpoints if attachment is not None else ():
            network = self._base.objects.find(endpoint.NetworkID)
            if network is not None and network.Predefined:
                return endpoint
        return None


def _as_gateway(container: ContainerRecord, endpoint: EndpointRecord) -> EndpointRecord:
    ports = modes.published_ports(container.Config, container.HostConfig)
    return endpoint.model_copy(update={"DefaultRoute": True, "Ports": ports})


def _leaving(endpoint: EndpointRecord) -> EndpointRecord:
    # An interface that the engine moved in goes back to its driver before the sandbox goes.
    return endpoint if endpoint.Source else endpoint.model_copy(update={"Sandbox": ""})
