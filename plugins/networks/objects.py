"""Network objects: create, remove, look up, restore."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Sequence

from plugin_sdk import (
    Collection,
    Conflict,
    EngineError,
    Event,
    Forbidden,
    Holder,
    InvalidParameter,
    NotFound,
    PluginContext,
    PluginRefusal,
    Unavailable,
    Wire,
)
from plugin_sdk.network import IpamConfig, IpamDriver, IpamPool, NetworkDriver, NetworkRecord
from plugin_sdk.text import by_prefix, new_id
from plugin_sdk.times import now
from plugins.networks.allocating import gateways_to_skip, release_pools, take_pool
from plugins.networks.debts import Debt, Debts, Failure
from plugins.networks.finding import Finder
from plugins.networks.pools import net_version, pool_faults
from plugins.networks.records import StoredNetwork


class ConfigReference(Wire):
    """`{"Network": NAME}`."""

    Network: str = ""


class NetworkCreate(Wire):
    """Body of `POST /networks/create`."""

    Name: str = ""
    Driver: str = ""
    Scope: str = ""
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: ConfigReference = ConfigReference()
    IPAM: IpamConfig = IpamConfig()
    EnableIPv4: bool = True
    EnableIPv6: bool = False
    Options: dict[str, str] = {}
    Labels: dict[str, str] = {}


class NetworkObjects:
    """All networks.

    Args:
        in_use: gives the containers that are plugged into a network, or about to be.
    """

    def __init__(
        self, ctx: PluginContext, finder: Finder, debts: Debts, in_use: Callable[[str], Sequence[Holder]]
    ) -> None:
        self._ctx, self._finder, self._debts, self._in_use = ctx, finder, debts, in_use
        self._store: Collection[StoredNetwork] = ctx.state.collection(
            "networks", StoredNetwork, key=lambda network: network.Id, unique={"name": lambda network: network.Name}
        )
        self._removing: set[str] = set()

    def get(self, ref: str) -> StoredNetwork:
        """By ID, name, or unique prefix of an ID. Raises NotFound."""
        found = self._store.get(ref)
        if found is None:
            found = next(iter(self._store.by("name", ref)), None)
        if found is None and ref:
            found = by_prefix(ref, self.list(), lambda network: network.Id)
        if found is None or found.State != "ready":
            raise NotFound(f"network {ref} not found")
        return found

    def find(self, ref: str) -> StoredNetwork | None:
        """Like `get`, without the exception."""
        try:
            return self.get(ref)
        except EngineError:
            return None

    def list(self) -> Sequence[StoredNetwork]:
        """All that exist for clients."""
        return [network for network in self._store.values() if network.State == "ready"]

    def usable(self, ref: str) -> StoredNetwork:
        """Like `get`, for a container that wants to be plugged in. Raises Conflict while it is being removed."""
        network = self.get(ref)
        if network.Id in self._removing:
            raise Conflict(f"network {network.Name} is being removed")
        if network.ConfigOnly:
            raise Forbidden(f"cannot use config-only network {network.Name}: it only carries configuration")
        return network

    def owner_of(self, subnet: str) -> str:
        """`network NAME`, of a subnet in use; "" when unknown."""
        for network in self._store.values():
            if any(pool.Subnet == subnet for pool in network.IPAM.Config):
                return f"network {network.Name}"
        return ""

    async def create(self, request: NetworkCreate) -> StoredNetwork:
        """Create a network; a failure leaves nothing behind.

        Raises:
            Conflict: the name is taken. Forbidden: a predefined name, overlapping pools. InvalidParameter. NotFound: no
                such driver.
        """
        request = self._with_config_from(request)
        self._check(request)
        network = StoredNetwork(
            Id=new_id(),
            Name=request.Name,
            Created=now(),
            Driver="" if request.ConfigOnly else request.Driver or "bridge",
            EnableIPv4=request.EnableIPv4,
            EnableIPv6=request.EnableIPv6,
            Internal=request.Internal,
            Attachable=request.Attachable,
            ConfigOnly=request.ConfigOnly,
            IPAM=request.IPAM,
            Options=request.Options,
            Labels=request.Labels,
            State="creating",
            AskedPools=request.IPAM.Config,
            ConfigFrom=request.ConfigFrom.Network,
        )
        return await self._make(network)

    async def remove(self, ref: str) -> None:
        """Raises NotFound, Forbidden (predefined, or containers are plugged in)."""
        network = self.get(ref)
        if network.Predefined:
            raise Forbidden(f"{network.Name} is a pre-defined network and cannot be removed")
        await self._remove(network)

    async def _remove(self, network: StoredNetwork) -> None:
        if self.holders(network):
            raise Forbidden(
                f"error while removing network: network {network.Name} id {network.Id} has active endpoints"
            )
        if network.ConfigOnly and (users := [n.Name for n in self.list() if n.ConfigFrom == network.Name]):
            raise Forbidden(f"configuration network {network.Name!r} is in use by {', '.join(users)}")
        if network.Id in self._removing:
            raise Conflict(f"network {network.Name} is already being removed")
        self._removing.add(network.Id)
        try:
            await self._store.put(network.model_copy(update={"State": "removing"}))
            failures = await self.undo(network)
            # A driver that is there and cannot is the client's business; one that nobody has any more must not keep it.
            if refused := [f.error for f in failures if not f.addresses and not isinstance(f.error, NotFound)]:
                await self._store.put(network)
                raise refused[0]
            await self._let_go(network, failures)
        finally:
            self._removing.discard(network.Id)
        self._tell("destroy", network)

    async def _let_go(self, network: StoredNetwork, failures: Sequence[Failure]) -> None:
        if self._finder.local(NetworkDriver, network.Driver):
            # It goes by names that a later network may have (a bridge's), so that it is not asked again.
            for failure in failures:
                self._ctx.log.warning("network %s: %s", network.Name, failure.error)
            failures = [failure for failure in failures if failure.addresses]
        await self._debts.owe(Debt(Id=network.Id, Network=network), failures)
        if not failures:
            await self._debts.forget_network(network.Id)
        await self._store.delete(network.Id)

    def holders(self, network: NetworkRecord) -> Sequence[Holder]:
        """What keeps it in use, other plugins' objects included."""
        found = list(self._in_use(network.Id))
        for plugin, holders in self._ctx.hooks.sync("engine_holders", kind="network", key=network.Id):
            if plugin != self._ctx.name:
                found += holders
        return found

    async def settle_half_made(self) -> None:
        """At a start: undo what was being made or removed. What a driver cannot take back now is owed to it."""
        for network in self._store.values():
            if network.State != "ready":
                self._ctx.log.info("network %s was being %s: undone", network.Name, network.State.replace("ing", "ed"))
                if network.ConfigOnly or self._finder.local_both(network):
                    await self._let_go(network, await self.undo(network))
                else:
                    await self._debts.owe_later(Debt(Id=network.Id, Network=network))
                    await self._store.delete(network.Id)

    async def repool(self, network: StoredNetwork, pools: Sequence[IpamPool]) -> None:
        """The address manager has given a network's pools other IDs."""
        present = self._store.get(network.Id)
        if present is not None:
            ipam = present.IPAM.model_copy(update={"Config": list(pools)})
            await self._store.put(present.model_copy(update={"IPAM": ipam}))

    async def make_predefined(self) -> None:
        """Make the networks that plugins contribute, and remake those whose contribution changed."""
        for plugin, contributed in self._ctx.hooks.sync("engine_predefined_networks"):
            for template in contributed:
                try:
                    await self._make_one_predefined(template)
                except EngineError as error:
                    self._ctx.log.error("predefined network %s of plugin %s: %s", template.Name, plugin, error)

    async def _make_one_predefined(self, template: NetworkRecord) -> None:
        told = template.model_dump()
        existing = next(iter(self._store.by("name", template.Name)), None)
        if existing is not None and existing.Contributed == told:
            return
        if existing is not None:
            if self.holders(existing):
                self._ctx.log.warning(
                    "network %s keeps its old configuration while containers use it; restart the engine without them",
                    existing.Name,
                )
                return
            await self._let_go(existing, await self.undo(existing))
        fresh = StoredNetwork(
            **{
                **told,
                "Id": existing.Id if existing else new_id(),
                "Created": existing.Created if existing else now(),
                "State": "creating",
                "Predefined": True,
                "Contributed": told,
                "AskedPools": told["IPAM"]["Config"],
            }
        )
        await self._make(fresh, quiet=True)

    async def _make(self, network: StoredNetwork, *, quiet: bool = False) -> StoredNetwork:
        if network.ConfigOnly:
            ready = network.model_copy(update={"State": "ready"})
            await self._claim(ready)
        else:
            driver = await self._finder.network(network.Driver)
            network = network.model_copy(
                update={
                    "Scope": driver.capabilities().scope,
                    "Driver": self._finder.canonical(NetworkDriver, network.Driver),
                    "IPAM": await self._ipam_of(network),
                }
            )
            driver.validate(network)
            skip = await gateways_to_skip(driver, network)
            await self._claim(network)
            pools: list[IpamPool] = []
            try:
                await self._allocate(network, pools, skip)
                network = network.model_copy(update={"IPAM": network.IPAM.model_copy(update={"Config": pools})})
                await self._store.put(network)
                await driver.create_network(network)
                ready = network.model_copy(update={"State": "ready"})
                await self._store.put(ready)
            except BaseException as error:
                taken = network.IPAM.model_copy(update={"Config": pools})
                half = network.model_copy(update={"IPAM": taken})
                await self._abandon(half, error)
                raise
        if not quiet:
            self._tell("create", ready)
        return ready

    async def _abandon(self, network: StoredNetwork, error: BaseException) -> None:
        """Undo what was made when this error came."""
        # A plugin that refused has made nothing, and complains about a network that it does not know.
        refused = isinstance(error, PluginRefusal)
        if isinstance(error, Unavailable) and not self._finder.local(NetworkDriver, network.Driver):
            failures = [Failure(False, error), *await self.undo(network, driver=False)]
        else:
            failures = await self.undo(network, driver=not refused)
        await self._let_go(network, failures)

    async def _claim(self, network: StoredNetwork) -> None:
        try:
            await self._store.put(network)
        except Conflict:
            raise Conflict(f"network with name {network.Name} already exists") from None

    async def undo(self, network: StoredNetwork, *, driver: bool = True, pools: bool = True) -> list[Failure]:
        """Let the drivers take a network back, or the one of the two that is asked for; gives what failed."""
        failures: list[Failure] = []
        if network.ConfigOnly:
            return failures
        if driver:
            try:
                await (await self._finder.network(network.Driver)).delete_network(network)
            except EngineError as error:
                failures.append(Failure(False, error))
        if pools and any(pool.PoolID for pool in network.IPAM.Config):
            # A network that stays because of its driver must keep its addresses too.
            if any(not isinstance(failure.error, NotFound) for failure in failures) and network.State == "ready":
                return failures
            try:
                await release_pools(await self._finder.ipam(network.IPAM.Driver), network)
            except EngineError as error:
                failures.append(Failure(True, error))
        return failures

    async def _ipam_of(self, network: NetworkRecord) -> IpamConfig:
        name = network.IPAM.Driver or "default"
        await self._finder.ipam(name)
        return network.IPAM.model_copy(update={"Driver": self._finder.canonical(IpamDriver, name)})

    async def _allocate(
        self, network: StoredNetwork, pools: MutableSequence[IpamPool], skip: tuple[bool, bool]
    ) -> None:
        """Subnets and gateways; what was taken is in `pools` also after a failure."""
        ipam = await self._finder.ipam(network.IPAM.Driver)
        asked = list(network.IPAM.Config)
        for version, enabled in ((4, network.EnableIPv4), (6, network.EnableIPv6)):
            if enabled and not any(net_version(pool.Subnet) == version for pool in asked if pool.Subnet):
                asked.append(IpamPool())
            for pool in [pool for pool in asked if not pool.Subnet or net_version(pool.Subnet) == version]:
                asked.remove(pool)
                if enabled:
                    await take_pool(ipam, network, pool, pools, v6=version == 6, skip_gateway=skip[version == 6])

    def _with_config_from(self, request: NetworkCreate) -> NetworkCreate:
        name = request.ConfigFrom.Network
        if not name:
            return request
        source = self.get(name)
        if not source.ConfigOnly:
            raise InvalidParameter(f"network {name} is not a config-only network: ConfigFrom needs one")
        if request.Options or request.Labels or request.IPAM.Config:
            raise InvalidParameter(
                "user specified configuration with --config-from is not allowed: it comes from there"
            )
        return request.model_copy(
            update={
                "Options": source.Options,
                "Labels": source.Labels,
                "IPAM": source.IPAM,
                "EnableIPv4": source.EnableIPv4,
                "EnableIPv6": source.EnableIPv6,
                "Internal": source.Internal,
            }
        )

    def _check(self, request: NetworkCreate) -> None:
        if not request.Name.strip() or any(ord(letter) < 32 or letter == "/" for letter in request.Name):
            raise InvalidParameter(f"invalid name: {request.Name}")
        taken = next(iter(self._store.by("name", request.Name)), None)
        if taken is not None and taken.Predefined:
            raise Forbidden(f"operation is not permitted on predefined {request.Name} network ")
        if taken is not None:
            raise Conflict(f"network with name {request.Name} already exists")
        if request.Ingress or request.Scope == "swarm":
            raise Forbidden(
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to'
                " swarm and try again."
            )
        if not request.EnableIPv4 and not request.EnableIPv6 and not request.ConfigOnly:
            raise InvalidParameter("IPv4 or IPv6 must be enabled")
        reasons = [reason for pool in request.IPAM.Config for reason in pool_faults(pool, ipv6=request.EnableIPv6)]
        if reasons:
            raise InvalidParameter("invalid network config:\n" + "\n".join(reasons))

    def _tell(self, action: str, network: NetworkRecord) -> None:
        facts: Mapping[str, str] = {"name": network.Name, "type": network.Driver}
        self._ctx.events.publish(Event(type="network", action=action, actor=network.Id, attributes=facts))
