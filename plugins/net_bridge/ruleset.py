"""The firewall's tables as text: all of them, or the elements that one change adds or removes. Pure functions.

Everything that varies lies in sets and maps, so that a published port is one element, and no rule has to be found again
to be removed. One table `ip engine-<id>` and one `ip6 engine-<id>` per engine; nobody else's rules are touched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plugin_sdk.netlink import Net
from plugin_sdk.network import EndpointRecord, PublishedPort

FAMILIES = ("ip", "ip6")


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """What a bridge asks of the firewall."""

    name: str
    subnets: Sequence[Net]
    icc: bool = True
    internal: bool = False
    masquerade: bool = True


@dataclass(frozen=True, slots=True)
class PortRules:
    """One published port: host address ("" or a wildcard: all) and port to container address and port."""

    proto: str
    host_ip: str
    host_port: int
    target: str
    port: int

    @property
    def family(self) -> str:
        """ "ip" or "ip6"."""
        return "ip6" if ":" in self.target else "ip"


def port_rules(endpoint: EndpointRecord) -> list[PortRules]:
    """The rules of an endpoint's bound ports."""
    targets = {4: endpoint.IPv4Address, 6: endpoint.IPv6Address}
    found = []
    for port in endpoint.Ports:
        target = targets[_version(port)].partition("/")[0]
        if target and port.HostPort:
            found.append(PortRules(port.Proto, port.HostIp, port.HostPort, target, port.Port))
    return found


def whole(table: str, families: Iterable[str], bridges: Sequence[BridgeRules], ports: Sequence[PortRules]) -> str:
    """Commands that make the tables what they should be, whatever they are now."""
    parts = []
    for family in families:
        parts.append(f"table {family} {table}\ndelete table {family} {table}\n" + _frame(family, table))
        parts += [bridge_elements("add", table, [family], bridge) for bridge in bridges]
        parts.append(port_elements("add", table, [family], ports))
    return "\n".join(part for part in parts if part)


def nothing(table: str, families: Iterable[str] = FAMILIES) -> str:
    """Commands that remove the tables."""
    return "\n".join(f"table {family} {table}\ndelete table {family} {table}" for family in families)


def bridge_elements(verb: str, table: str, families: Iterable[str], bridge: BridgeRules) -> str:
    """`verb` is "add" or "delete"."""
    lines = []
    name = _quoted(bridge.name)
    for family in families:
        lines.append(f"{verb} element {family} {table} bridges {{ {name} }}")
        own = "friends" if bridge.icc else "strangers"
        lines.append(f"{verb} element {family} {table} {own} {{ {name} . {name} }}")
        if bridge.internal:
            lines.append(f"{verb} element {family} {table} internal {{ {name} }}")
        for subnet in bridge.subnets:
            if (subnet.version == 6) != (family == "ip6"):
                continue
            lines.append(f"{verb} element {family} {table} within {{ {subnet} . {subnet} }}")
            if bridge.masquerade and not bridge.internal:
                lines.append(f"{verb} element {family} {table} masked {{ {subnet} }}")
    return "\n".join(lines)


def port_elements(verb: str, table: str, families: Iterable[str], ports: Iterable[PortRules]) -> str:
    """`verb` is "add" or "delete"."""
    lines = []
    for port in ports:
        if port.family not in families:
            continue
        wild = port.host_ip in ("", "0.0.0.0", "::")
        key = f"{port.proto} . {port.host_port}" if wild else f"{port.host_ip} . {port.proto} . {port.host_port}"
        value = f" : {port.target} . {port.port}" if verb == "add" else ""
        lines.append(f"{verb} element {port.family} {table} {'anywhere' if wild else 'bound'} {{ {key}{value} }}")
    return "\n".join(lines)


def _frame(family: str, table: str) -> str:
    kind, loopback = ("ipv4_addr", "127.0.0.0/8") if family == "ip" else ("ipv6_addr", "::1")
    f = family
    # The kernel routes 127.0.0.1 to a bridge (route_localnet), but never ::1: a client is then refused, and tries 127.0.0.1.
    here = "fib daddr type local" + ("" if family == "ip" else " ip6 daddr != ::1")
    return f"""
table {f} {table} {{
  set bridges {{ type ifname; }}
  set internal {{ type ifname; }}
  set friends {{ type ifname . ifname; }}
  set strangers {{ type ifname . ifname; }}
  set within {{ type {kind} . {kind}; flags interval; }}
  set masked {{ type {kind}; flags interval; }}
  map anywhere {{ type inet_proto . inet_service : {kind} . inet_service; }}
  map bound {{ type {kind} . inet_proto . inet_service : {kind} . inet_service; }}

  chain publish {{
    dnat {f} to {f} daddr . meta l4proto . th dport map @bound
    dnat {f} to meta l4proto . th dport map @anywhere
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {here} jump publish
  }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname @bridges {f} daddr {loopback} drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    {f} saddr . {f} daddr @within ct status dnat masquerade
    {f} saddr . {f} daddr @within return
    {f} saddr {loopback} oifname @bridges masquerade
    {f} saddr @masked masquerade
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname != @bridges oifname != @bridges accept
    iifname . oifname @friends accept
    iifname . oifname @strangers ct status dnat accept
    iifname . oifname @strangers drop
    iifname @internal drop
    oifname @internal drop
    ct state established,related accept
    oifname @bridges ct status dnat accept
    oifname @bridges drop
  }}
}}
"""


def _version(port: PublishedPort) -> int:
    return ipaddress.ip_address(port.HostIp or "0.0.0.0").version


def _quoted(name: str) -> str:
    return '"' + name.replace('"', "") + '"'
