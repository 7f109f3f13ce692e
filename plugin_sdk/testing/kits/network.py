"""The kit of `NetworkDriver`. Networks lie in 198.18.0.0/15 (see the kit of `IpamDriver`). Needs root."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from kernel.contracts.network import (
    EndpointRecord,
    IpamConfig,
    IpamPool,
    JoinInfo,
    NetworkDriver,
    NetworkRecord,
    PublishedPort,
)
from kernel.errors import Conflict, EngineError, Forbidden, NotSupported, PluginRefusal
from plugin_sdk.aio import blocking
from plugin_sdk.testing.kit import Bench, Broken, DoesNotApply, Kit
from plugin_sdk.testing.kits.ipam import subnet
from plugin_sdk.testing.sandboxes import Sandbox
from plugin_sdk.text import new_id
from plugin_sdk.times import now

INTERFACE = "eth0"


class NetworkBench(Bench[NetworkDriver]):
    """Makes networks, endpoints and sandboxes, and takes them back."""

    def draft(self) -> tuple[NetworkRecord, IPv4Network]:
        """A network that does not exist yet, and its subnet."""
        net = subnet()
        pool = IpamPool(Subnet=str(net), Gateway=str(net[1]), PoolID=str(net))
        return (
            NetworkRecord(
                Id=new_id(),
                Name=self.unique(),
                Created=now(),
                Driver=self.subject.name,
                IPAM=IpamConfig(Config=[pool]),
                Options=self.options,
            ),
            net,
        )

    async def network(self) -> tuple[NetworkRecord, IPv4Network]:
        """A network."""
        if self.driver.capabilities().scope == "global":
            raise DoesNotApply("the driver is of global scope: its networks are made by a swarm")
        network, net = self.draft()
        try:
            self.driver.validate(network)
        except Forbidden as error:
            raise DoesNotApply(f"the driver makes no networks on request: {error}") from error
        self.later("delete the network", lambda: self.driver.delete_network(network))
        await self.fine("create_network", self.driver.create_network(network))
        return network, net

    def endpoint_of(self, network: NetworkRecord, net: IPv4Network, number: int, **more: Any) -> EndpointRecord:
        """An endpoint that the driver has not seen."""
        return EndpointRecord(
            Id=new_id(),
            NetworkID=network.Id,
            ContainerID=new_id(),
            ContainerName=self.unique(),
            IPv4Address=f"{net[number]}/{net.prefixlen}",
            Gateway=str(net[1]),
            Interface=INTERFACE,
            **more,
        )

    async def endpoint(self, network: NetworkRecord, draft: EndpointRecord) -> EndpointRecord:
        """A reserved endpoint."""
        self.later("delete the endpoint", lambda: self.driver.delete_endpoint(network, draft))
        return await self.fine("create_endpoint", self.driver.create_endpoint(network, draft))

    async def sandbox(self) -> Sandbox:
        """A network namespace."""
        made = await blocking(Sandbox)
        self.later("close the sandbox", lambda: blocking(made.close))
        return made

    async def joined(
        self, network: NetworkRecord, endpoint: EndpointRecord
    ) -> tuple[EndpointRecord, Sandbox, JoinInfo]:
        """The endpoint in a sandbox of its own, as a container's start leaves it."""
        sandbox = await self.sandbox()
        endpoint = endpoint.model_copy(update={"Sandbox": str(sandbox.path)})
        self.later("leave", lambda: self.driver.leave(network, endpoint))
        info = await self.fine("join", self.driver.join(network, endpoint, sandbox.path, INTERFACE))
        try:
            name = await blocking(sandbox.place, info, endpoint)
        except OSError as error:
            raise Broken("join to name an interface that can be moved into the sandbox", f"{info}: {error}") from error
        links = await blocking(sandbox.links)
        if not links:
            raise DoesNotApply("the driver gives its sandboxes no interface")
        self.expect(name in links, f"an interface {name} in the sandbox", sorted(links))
        return endpoint, sandbox, info


KIT = Kit("NetworkDriver", NetworkDriver, NetworkBench)


@KIT.check("scopes are local or global", says=NetworkDriver.capabilities)
async def capabilities(bench: NetworkBench) -> None:
    told = bench.driver.capabilities()
    for scope in (told.scope, told.connectivity_scope):
        bench.expect(scope in ("local", "global"), 'scopes to be "local" or "global"', told)


@KIT.check("validate refuses in plain words, and makes nothing", says=NetworkDriver.validate)
async def validate(bench: NetworkBench) -> None:
    network, _ = bench.draft()
    try:
        for _ in range(2):
            bench.driver.validate(network)
    except Forbidden as error:
        raise DoesNotApply(f"the driver makes no networks on request: {error}") from error


@KIT.check("networks are made and deleted, each as often as one likes", says=NetworkDriver)
async def create_and_delete(bench: NetworkBench) -> None:
    network, _ = await bench.network()
    await bench.fine("create_network again, as after a crash", bench.driver.create_network(network))
    await bench.twice("delete_network", lambda: bench.driver.delete_network(network))
    never, _ = bench.draft()
    await bench.fine("delete_network of one that never was", bench.driver.delete_network(never))
    await bench.fine("create_network after its deletion", bench.driver.create_network(network))


@KIT.check("an endpoint keeps what was already decided", says=NetworkDriver.create_endpoint)
async def endpoint_keeps(bench: NetworkBench) -> None:
    network, net = await bench.network()
    draft = bench.endpoint_of(network, net, 20, MacAddress="02:42:c6:12:00:14")
    made = await bench.endpoint(network, draft)
    fields = ("Id", "NetworkID", "ContainerID", "IPv4Address", "MacAddress", "Interface")
    # Over the protocol a gateway comes with the answer to Join.
    for field in fields if bench.subject.remote else (*fields, "Gateway"):
        bench.equal(getattr(made, field), getattr(draft, field), field)


@KIT.check("an endpoint is reserved and deleted, each as often as one likes", says=NetworkDriver)
async def endpoint_again(bench: NetworkBench) -> None:
    network, net = await bench.network()
    draft = bench.endpoint_of(network, net, 21)
    first = await bench.endpoint(network, draft)
    again = await bench.fine("create_endpoint again, as after a crash", bench.driver.create_endpoint(network, draft))
    bench.equal((again.Id, again.MacAddress), (first.Id, first.MacAddress), "ID and hardware address the second time")
    await bench.twice("delete_endpoint", lambda: bench.driver.delete_endpoint(network, first))
    stranger = bench.endpoint_of(network, net, 22)
    await bench.fine("delete_endpoint of one that never was", bench.driver.delete_endpoint(network, stranger))


@KIT.check("join gives the sandbox an interface with the endpoint's addresses", says=NetworkDriver.join)
async def join(bench: NetworkBench) -> None:
    network, net = await bench.network()
    mac = "02:42:c6:12:00:17"
    made = await bench.endpoint(network, bench.endpoint_of(network, net, 23, MacAddress=mac))
    endpoint, sandbox, info = await bench.joined(network, made)
    name = info.dst_name or INTERFACE
    bench.equal((await blocking(sandbox.links))[name], mac, f"the hardware address of {name}")
    held = await blocking(sandbox.addresses)
    bench.expect(endpoint.IPv4Address in held, f"the address {endpoint.IPv4Address}", sorted(held))


@KIT.check("leave takes the interface out; again, and without a sandbox, it is fine", says=NetworkDriver.leave)
async def leave(bench: NetworkBench) -> None:
    network, net = await bench.network()
    made = await bench.endpoint(network, bench.endpoint_of(network, net, 24))
    endpoint, sandbox, _ = await bench.joined(network, made)
    await bench.twice("leave", lambda: bench.driver.leave(network, endpoint))
    if bench.subject.remote:
        raise DoesNotApply("over the protocol the engine, not the driver, takes interfaces out of sandboxes")
    bench.equal(await blocking(sandbox.links), {}, "the interfaces of the sandbox after leave")
    await blocking(sandbox.close)
    await bench.fine("leave when the namespace is gone", bench.driver.leave(network, endpoint))


@KIT.check("an endpoint can join again after it has left", says=NetworkDriver)
async def join_again(bench: NetworkBench) -> None:
    network, net = await bench.network()
    made = await bench.endpoint(network, bench.endpoint_of(network, net, 25))
    endpoint, sandbox, _ = await bench.joined(network, made)
    await bench.driver.leave(network, endpoint)
    await blocking(sandbox.close)
    await bench.joined(network, made)


@KIT.check("neighbours on a network reach each other", says="NetworkDriver: one network is one place to meet.")
async def neighbours(bench: NetworkBench) -> None:
    network, net = await bench.network()
    places = []
    for number in (30, 31):
        made = await bench.endpoint(network, bench.endpoint_of(network, net, number))
        places.append((await bench.joined(network, made))[1])
    listener = await blocking(places[0].listen)
    try:
        reached = await blocking(places[1].reaches, str(net[30]), listener.getsockname()[1])
    finally:
        listener.close()
    bench.expect(reached, f"a connection from {net[31]} to {net[30]}", "none within 5 s")


@KIT.check("an ephemeral host port is chosen, published once, and given back", says=NetworkDriver.program_external)
async def published_ports(bench: NetworkBench) -> None:
    network, net = await bench.network()
    wanted = [PublishedPort(Port=80)]
    draft = bench.endpoint_of(network, net, 40, Ports=wanted, DefaultRoute=True)
    bench.later("delete the endpoint", lambda: bench.driver.delete_endpoint(network, draft))
    try:
        made = await bench.driver.create_endpoint(network, draft)
        endpoint, _, _ = await bench.joined(network, made)
        bench.later("revoke", lambda: bench.driver.revoke_external(network, endpoint))
        bound = await bench.driver.program_external(network, endpoint)
    except EngineError as error:
        if isinstance(error, NotSupported) or (bench.subject.remote and isinstance(error, PluginRefusal)):
            raise DoesNotApply(f"the driver publishes no ports, and says so: {error}") from error
        raise
    ports = [port.HostPort for port in bound.Ports if port.Port == 80]
    if bench.subject.remote and not any(ports):
        raise DoesNotApply("the plugin publishes no ports")
    if not bound.Ports:
        raise DoesNotApply("the driver publishes no ports")
    bench.expect(ports and all(ports), "a host port for port 80", bound.Ports)
    fixed = [PublishedPort(Port=80, HostIp=port.HostIp, HostPort=port.HostPort) for port in bound.Ports]
    rival = bench.endpoint_of(network, net, 41, Ports=fixed, DefaultRoute=True)
    bench.later("delete the rival", lambda: bench.driver.delete_endpoint(network, rival))

    async def publish() -> None:
        made = await bench.driver.create_endpoint(network, rival)
        bench.later("revoke the rival", lambda: bench.driver.revoke_external(network, made))
        await bench.driver.program_external(network, made)

    await bench.refused(f"host port {ports[0]} for another endpoint", publish(), Conflict)
    await bench.twice("revoke_external", lambda: bench.driver.revoke_external(network, bound))
    await bench.driver.delete_endpoint(network, rival)
    await bench.fine(f"host port {ports[0]} after it was given back", publish())


@KIT.check("restore keeps what it is told of, and can be repeated", says=NetworkDriver.restore)
async def restore(bench: NetworkBench) -> None:
    bench.only_fresh("restore would make it forget the engine's networks")
    network, net = await bench.network()
    made = await bench.endpoint(network, bench.endpoint_of(network, net, 50))
    endpoint, sandbox, _ = await bench.joined(network, made)
    await bench.restart()
    for _ in range(2):
        await bench.fine("restore", bench.driver.restore([network], [endpoint]))
    bench.expect(await blocking(sandbox.links), "the sandbox to keep its interface", "none")
    made = await bench.endpoint(network, bench.endpoint_of(network, net, 51))
    _, other, _ = await bench.joined(network, made)
    listener = await blocking(sandbox.listen)
    try:
        reached = await blocking(other.reaches, str(net[50]), listener.getsockname()[1])
    finally:
        listener.close()
    bench.expect(reached, "a new neighbour to reach the one that was there before the restart", "no connection")


@KIT.check("a network that cannot be is refused and leaves nothing", says=NetworkDriver.validate)
async def impossible_network(bench: NetworkBench) -> None:
    network, _ = await bench.network()
    twin = network.model_copy(update={"Id": new_id(), "Options": {**network.Options, "no.such.option": "x"}})
    try:
        bench.driver.validate(twin)
    except EngineError as error:
        bench.expect(str(error), "a refusal in words", repr(error))
        return
    raise DoesNotApply("the driver ignores options that it does not know")
