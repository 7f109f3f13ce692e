"""Forgets UDP flows to a published port: the kernel keeps their address translation as long as packets come, right or
wrong. Blocking. Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection

from plugin_sdk.netlink import attributes

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
_TUPLE_ORIG, _TUPLE_PROTO = 1, 2
_PROTO_NUM, _PROTO_DST = 1, 3
_DONE, _ERROR = 3, 2
_UDP = 17


def forget_udp(ports: Collection[int]) -> int:
    """Delete the tracked flows to these ports of any address of this host; gives how many. Raises OSError."""
    gone = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(5.0)
        for family in (socket.AF_INET, socket.AF_INET6):
            netlink.send(_message(_GET, 0x301, family, b""))
            for original in _tuples(netlink, ports):
                raw = struct.pack("HH", 4 + len(original), _TUPLE_ORIG | 0x8000) + original
                netlink.send(_message(_DELETE, 0x005, family, raw + bytes(-len(raw) % 4)))
                netlink.recv(4096)
                gone += 1
    return gone


def _message(kind: int, flags: int, family: int, body: bytes) -> bytes:
    return struct.pack("IHHII", 20 + len(body), kind, flags, 1, 0) + struct.pack("BBH", family, 0, 0) + body


def _tuples(netlink: socket.socket, ports: Collection[int]) -> list[bytes]:
    found: list[bytes] = []
    while True:
        data = netlink.recv(1 << 17)
        offset = 0
        while offset + 16 <= len(data):
            length, kind = struct.unpack_from("IH", data, offset)
            if kind in (_DONE, _ERROR) or length < 20:
                return found
            original = attributes(data[offset : offset + length], 20).get(_TUPLE_ORIG, b"")
            proto = attributes(attributes(original).get(_TUPLE_PROTO, b""))
            if proto.get(_PROTO_NUM) == bytes([_UDP]) and int.from_bytes(proto.get(_PROTO_DST, b""), "big") in ports:
                found.append(original)
            offset += (length + 3) & ~3
