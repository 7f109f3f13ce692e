"""Options of bridge networks (`docker network create -o`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from plugin_sdk import InvalidParameter, NotSupported
from plugin_sdk.network import NetworkRecord

PREFIX = "com.docker.network.bridge."
NAME = PREFIX + "name"
ICC = PREFIX + "enable_icc"
MASQUERADE = PREFIX + "enable_ip_masquerade"
HOST_BINDING = PREFIX + "host_binding_ipv4"
DEFAULT_BRIDGE = PREFIX + "default_bridge"
MTU = "com.docker.network.driver.mtu"
GATEWAY_MODES = (PREFIX + "gateway_mode_ipv4", PREFIX + "gateway_mode_ipv6")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What a network asks of its bridge. `mtu` 0: the kernel's default. `host_ip`: where ports are published that name
    no address; "": everywhere."""

    name: str
    icc: bool
    masquerade: bool
    host_ip: str
    mtu: int


def parse_options(network: NetworkRecord) -> BridgeOptions:
    """Options nobody knows are for others, and ignored, as dockerd does. Raises InvalidParameter, NotSupported."""
    options = network.Options
    for key in GATEWAY_MODES:
        if options.get(key, "nat") != "nat":
            raise NotSupported(f"{key}={options[key]}: this engine knows only nat")
    name = options.get(NAME) or f"br-{network.Id[:12]}"
    if len(name.encode()) > 15 or "/" in name or any(letter.isspace() for letter in name) or name in (".", ".."):
        raise InvalidParameter(
            f"invalid interface name {name!r} in {NAME}: want 1 to 15 bytes without spaces or slashes"
        )
    host_ip = options.get(HOST_BINDING, "")
    if host_ip:
        try:
            ipaddress.IPv4Address(host_ip)
        except ValueError:
            raise InvalidParameter(f"failed to parse {HOST_BINDING} value: {host_ip}: want an IPv4 address") from None
    return BridgeOptions(
        name=name,
        icc=_flag(options, ICC),
        masquerade=_flag(options, MASQUERADE),
        host_ip="" if host_ip == "0.0.0.0" else host_ip,
        mtu=_mtu(options),
    )


def _flag(options: Mapping[str, str], key: str) -> bool:
    text = options.get(key, "true")
    if text not in (*_TRUE, *_FALSE):
        raise InvalidParameter(
            f'failed to parse {key} value: {text} (strconv.ParseBool: parsing "{text}": invalid syntax)'
        )
    return text in _TRUE


def _mtu(options: Mapping[str, str]) -> int:
    text = options.get(MTU, "0")
    if not text.isdecimal():
        raise InvalidParameter(f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)')
    if int(text) and not 68 <= int(text) <= 65535:
        raise InvalidParameter(f"invalid {MTU} value: {text}: want 68 to 65535")
    return int(text)
