"""Wiring of the plugin `net_bridge`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from pydantic import BaseModel

from plugin_sdk import (
    DriverSpec,
    EngineError,
    InvalidParameter,
    Plugin,
    PluginAdmin,
    PluginContext,
    PluginMeta,
    hookimpl,
    setting,
)
from plugin_sdk.aio import blocking
from plugin_sdk.network import IpamConfig, IpamPool, NetworkDriver, NetworkRecord
from plugins.net_bridge import options as keys
from plugins.net_bridge.driver import BRIDGE_ADDRESS, BridgeDriver
from plugins.net_bridge.firewall import Firewall
from plugins.net_bridge.links import Links
from plugins.net_bridge.watch import Watch

_NO_BRIDGE = "none"
_USUAL_NAME = "docker0"


class NetBridgeSettings(BaseModel):
    """Settings; dockerd's names and meanings."""

    bip: str = setting("", "IPv4 address and prefix of the default bridge", flag="--bip")
    bip6: str = setting("", "IPv6 address and prefix of the default bridge", flag="--bip6")
    bridge: str = setting("", 'Existing bridge for containers; "none": no default network', flag="--bridge", short="-b")
    mtu: int = setting(1500, "MTU of the default network", flag="--mtu")
    icc: bool = setting(True, "Let containers of the default network talk to each other", flag="--icc")
    iptables: bool = setting(True, "Manage firewall rules for IPv4 (with nftables)", flag="--iptables")
    ip6tables: bool = setting(True, "Manage firewall rules for IPv6 (with nftables)", flag="--ip6tables")
    ip_forward: bool = setting(True, "Enable the kernel's forwarding of packets", flag="--ip-forward")
    ip_masq: bool = setting(True, "Masquerade the default network's traffic", flag="--ip-masq")
    ip: str = setting("0.0.0.0", "Address on which ports are published", flag="--ip")
    fixed_cidr: str = setting("", "IPv4 range of the default network's containers", flag="--fixed-cidr")
    fixed_cidr_v6: str = setting("", "IPv6 subnet of the default network", flag="--fixed-cidr-v6")
    default_gateway: str = setting("", "IPv4 gateway of the default network's containers", flag="--default-gateway")
    default_gateway_v6: str = setting(
        "", "IPv6 gateway of the default network's containers", flag="--default-gateway-v6"
    )
    ipv6: bool = setting(False, "Enable IPv6 on the default network", flag="--ipv6")
    userland_proxy: bool = setting(
        True,
        "Publish ports with a proxy",
        flag="--userland-proxy",
        ignored="ports are published by the kernel alone, from the host's own loopback too, so that source addresses stay",
    )
    userland_proxy_path: str = setting(
        "", "Path of the proxy", flag="--userland-proxy-path", ignored="there is no userland proxy"
    )


class NetBridgePlugin(Plugin):
    """Bridges, veth pairs, published ports."""

    meta = PluginMeta(
        name="net_bridge",
        description="Bridge networks: bridges, veth pairs, published ports (nftables)",
        drivers=(NetworkDriver,),
        requires=(PluginAdmin,),
        settings=NetBridgeSettings,
    )

    async def start(self, ctx: PluginContext) -> None:
        """Check the settings and choose the default bridge's name."""
        settings: NetBridgeSettings = ctx.settings
        self._ctx = ctx
        engine_id = ctx.require(PluginAdmin).facts.id.replace("-", "")
        families = [name for name, wanted in (("ip", settings.iptables), ("ip6", settings.ip6tables)) if wanted]
        links = Links(engine_id)
        table = f"engine-{engine_id[:12]}"
        host_ip = _address(settings.ip, "--ip") if settings.ip not in ("", "0.0.0.0") else ""
        self._driver = BridgeDriver(
            links, Firewall(table, families), families, host_ip=host_ip, forward=settings.ip_forward, log=ctx.log
        )
        self._predefined = await blocking(default_network, settings, links, f"eng-{engine_id[:8]}")
        self._watch = Watch(table, self._firewall_changed) if families else None

    async def restore(self) -> None:
        """Listen for changes of the firewall; `networks` calls the driver's own restore."""
        if self._watch is not None:
            try:
                self._watch.start()
            except OSError as error:
                self._ctx.log.warning("changes of the firewall by others will not be noticed: %s", error)

    async def stop(self) -> None:
        """Let go; running containers keep their network."""
        watch: Watch | None = getattr(self, "_watch", None)
        if watch is not None:
            watch.stop()
        if hasattr(self, "_driver"):
            await self._driver.close()

    def _firewall_changed(self) -> None:
        self._ctx.spawn(self._driver.firewall_changed(), name="firewall")

    @hookimpl
    def engine_drivers(self) -> Iterable[DriverSpec]:
        """The driver."""
        return [DriverSpec(NetworkDriver, "bridge", self._driver)]

    @hookimpl
    def engine_predefined_networks(self) -> Iterable[NetworkRecord]:
        """The network "bridge"."""
        return [self._predefined] if self._predefined is not None else []

    @hookimpl
    def engine_info(self) -> dict[str, object]:
        """Part of `GET /info`."""
        return {"FirewallBackend": {"Driver": "nftables"}}


def default_network(settings: NetBridgeSettings, links: Links, own_name: str) -> NetworkRecord | None:
    """The network "bridge" that the settings describe. Blocking.

    The bridge is called docker0, unless that belongs to somebody else (another engine): then it has a name of its own,
    and the address manager finds a subnet that is free.

    Raises:
        InvalidParameter: settings that contradict each other, or are no addresses.
    """
    if settings.bridge == _NO_BRIDGE:
        return None
    pools: list[IpamPool] = []
    if settings.bridge:
        if settings.bip:
            raise InvalidParameter("--bridge and --bip exclude each other: the bridge's own address is used")
        name = settings.bridge
        for address in links.bridge_addresses(name):
            if address.version == 4 or settings.ipv6:
                pools.append(IpamPool(Subnet=str(address.network), Gateway=str(address.ip)))
    else:
        try:
            name = links.claim_bridge(_USUAL_NAME, own_name)
        except OSError as error:
            raise EngineError(f"cannot make the default bridge: {error}") from None
    if settings.bip:
        pools.append(_pool(settings.bip, "--bip"))
    if settings.bip6:
        pools.append(_pool(settings.bip6, "--bip6"))
    elif settings.fixed_cidr_v6:
        pools.append(IpamPool(Subnet=str(_network(settings.fixed_cidr_v6, "--fixed-cidr-v6"))))
    if settings.fixed_cidr:
        pools = _with_range(pools, settings.fixed_cidr)
    for gateway, flag in (
        (settings.default_gateway, "--default-gateway"),
        (settings.default_gateway_v6, "--default-gateway-v6"),
    ):
        if gateway:
            pools = _with_gateway(pools, _address(gateway, flag), flag)
    return NetworkRecord(
        Id="",
        Name="bridge",
        Created="",
        Driver="bridge",
        EnableIPv6=settings.ipv6,
        IPAM=IpamConfig(Config=pools),
        Options={
            keys.DEFAULT_BRIDGE: "true",
            keys.ICC: str(settings.icc).lower(),
            keys.MASQUERADE: str(settings.ip_masq).lower(),
            keys.HOST_BINDING: settings.ip or "0.0.0.0",
            keys.NAME: name,
            keys.MTU: str(settings.mtu or 1500),
        },
    )


def _pool(text: str, flag: str) -> IpamPool:
    try:
        address = ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidParameter(
            f"invalid {flag} {text!r}: want an address with its prefix, for example 172.17.0.1/16"
        ) from None
    if address.ip == address.network.network_address and address.network.num_addresses > 2:
        raise InvalidParameter(f"invalid {flag} {text!r}: that is the network's address, not the bridge's")
    return IpamPool(Subnet=str(address.network), Gateway=str(address.ip))


def _with_range(pools: list[IpamPool], text: str) -> list[IpamPool]:
    part = _network(text, "--fixed-cidr")
    if not any(":" not in pool.Subnet for pool in pools):
        return [*pools, IpamPool(Subnet=str(part))]
    narrowed = []
    for pool in pools:
        if ":" not in pool.Subnet:
            if not part.subnet_of(ipaddress.IPv4Network(pool.Subnet)):  # type: ignore[arg-type]
                raise InvalidParameter(f"--fixed-cidr {text} does not lie in the bridge's network {pool.Subnet}")
            pool = pool.model_copy(update={"IPRange": str(part)})
        narrowed.append(pool)
    return narrowed


def _with_gateway(pools: list[IpamPool], gateway: str, flag: str) -> list[IpamPool]:
    changed = []
    fits = False
    for pool in pools:
        if ipaddress.ip_address(gateway) in ipaddress.ip_network(pool.Subnet):
            fits = True
            aux = {BRIDGE_ADDRESS: pool.Gateway} if pool.Gateway and pool.Gateway != gateway else {}
            pool = pool.model_copy(update={"Gateway": gateway, "AuxiliaryAddresses": aux})
        changed.append(pool)
    if not fits:
        raise InvalidParameter(f"{flag} {gateway} does not lie in the bridge's network; set --bip")
    return changed


def _network(text: str, flag: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidParameter(f"invalid {flag} {text!r}: want a network, for example 172.17.1.0/24") from None


def _address(text: str, flag: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidParameter(f"invalid {flag} {text!r}: want an IP address") from None
