"""The DNS server of a sandbox: 127.0.0.11 inside it, served by the daemon's event loop.

The sockets are opened inside the sandbox's network namespace on free ports; an nftables rule there leads port 53 of
127.0.0.11 to them, so that a container can have a DNS server of its own on 0.0.0.0:53. After a restart of the daemon
new sockets are opened and the rule is replaced.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugin_sdk.netlink import inside
from plugin_sdk.nft import nft
from plugins.networks.hosts import EMBEDDED_DNS
from plugins.networks.names import NameTable, View

if TYPE_CHECKING:
    import dns.message

TTL = 30
"""Seconds for which an answer about a container may be kept."""
_TRY = 2.0
_ATTEMPTS = 2
_MAX_PENDING = 512
_MAX_UDP = 65535
_TCP_IDLE = 10.0

ResolveHook = Callable[[View, str], Awaitable[Sequence[str] | None]]
"""Asks other plugins about a name: addresses, [] for "no such name", None for "not mine"."""


class Resolver:
    """Answers questions for all sandboxes."""

    def __init__(self, names: NameTable, hook: ResolveHook) -> None:
        self._names, self._hook = names, hook

    async def answer(self, view: View, query: bytes, *, tcp: bool) -> bytes | None:
        """The reply to a query, None for what is not worth one."""
        import dns.exception
        import dns.flags
        import dns.message
        import dns.opcode
        import dns.rcode

        try:
            question = dns.message.from_wire(query, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return _error(query, 1) or None
        if question.flags & dns.flags.QR or len(question.question) != 1:
            return None
        if question.opcode() != dns.opcode.QUERY:
            return _error(query, 4)
        reply = await self._own(view, question)
        if reply is None:
            return await forward(query, view.upstreams, tcp=tcp) if view.upstreams else _error(query, 2)
        wire: bytes = reply.to_wire(max_size=_MAX_UDP)
        limit = max(512, question.payload if question.edns >= 0 else 512)
        if not tcp and len(wire) > limit:
            reply.answer = []
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire

    async def _own(self, view: View, question: dns.message.Message) -> dns.message.Message | None:
        import dns.rdatatype
        import dns.reversename

        asked = question.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        kind = asked.rdtype
        if kind == dns.rdatatype.PTR:
            try:
                address = dns.reversename.to_address(asked.name)
                known = self._names.name_of(view, address)
                foreign = self._names.foreign(view, address)
            except (ValueError, dns.exception.DNSException):
                return None
            if known is not None:
                return _reply(question, [known + "."])
            return _reply(question, [], missing=True) if foreign else None
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(kind, 0)
        addresses = self._names.addresses(view, name, version)
        if addresses is None:
            told = await self._hook(view, name)
            if told is None:
                return None
            if not told:
                return _reply(question, [], missing=True)
            addresses = [text for text in told if (":" in text) == (version == 6)] if version else []
        return _reply(question, addresses)


class SandboxDns:
    """The open sockets of one sandbox."""

    def __init__(self, resolver: Resolver, view: View, udp: socket.socket, tcp: socket.socket) -> None:
        self.view = view
        self._resolver, self._udp, self._tcp = resolver, udp, tcp
        self._server: asyncio.Server | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._pending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Serve from now on."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._received), sock=self._udp)
        self._server = await asyncio.start_server(self._stream, sock=self._tcp)

    def close(self) -> None:
        """Close the sockets: an open one keeps the namespace alive."""
        if self._transport is not None:
            self._transport.abort()
        if self._server is not None:
            self._server.close()
        for task in self._pending:
            task.cancel()

    def _received(self, data: bytes, source: tuple[Any, ...]) -> None:
        if len(self._pending) < _MAX_PENDING:
            task = asyncio.get_running_loop().create_task(self._reply(data, source))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _reply(self, data: bytes, source: tuple[Any, ...]) -> None:
        reply = await self._resolver.answer(self.view, data, tcp=False)
        if reply is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, source)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pending.add(task)
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    query = await reader.readexactly(length)
                reply = await self._resolver.answer(self.view, query, tcp=True)
                if reply is None:
                    break
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return  # the client is done, or gone
        finally:
            self._pending.discard(task)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, tuple[Any, ...]], None]) -> None:
        self._on_datagram = received

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._on_datagram(data, addr)


def load() -> None:
    """Import what answers questions. Blocking, 50 ms."""
    import dns.message
    import dns.rdtypes.ANY.PTR
    import dns.rdtypes.IN.A
    import dns.rdtypes.IN.AAAA
    import dns.reversename
    import dns.rrset  # noqa: F401


def open_sockets(sandbox: Path) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets of 127.0.0.11 inside the sandbox, with port 53 led to them. Blocking. Raises OSError, NftError."""
    with inside(sandbox):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            udp.bind((EMBEDDED_DNS, 0))
            tcp.bind((EMBEDDED_DNS, 0))
            tcp.listen(64)
            nft(_redirection(udp.getsockname()[1], tcp.getsockname()[1]))
        except BaseException:
            udp.close()
            tcp.close()
            raise
    return udp, tcp


def _redirection(udp: int, tcp: int) -> str:
    return f"""
table ip engine-dns
delete table ip engine-dns
table ip engine-dns {{
  chain output {{
    type nat hook output priority -101; policy accept;
    ip daddr {EMBEDDED_DNS} udp dport 53 dnat to {EMBEDDED_DNS}:{udp}
    ip daddr {EMBEDDED_DNS} tcp dport 53 dnat to {EMBEDDED_DNS}:{tcp}
  }}
}}
"""


async def forward(query: bytes, servers: Sequence[str], *, tcp: bool) -> bytes:
    """Ask the host's resolvers, from the daemon's namespace; SERVFAIL when none answers in time."""
    ask = _ask_tcp if tcp else _ask_udp
    for _ in range(_ATTEMPTS):
        for server in servers[:3]:
            try:
                async with asyncio.timeout(_TRY):
                    return await ask(query, server)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
    return _error(query, 2)


async def _ask_udp(query: bytes, server: str) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
            # A reply carries the query's ID; the socket is connected, so it comes from the server asked.
            if data[:2] == query[:2] and len(data) >= 12 and not answered.done():
                answered.set_result(data)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_exception(exc)

    transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=(server, 53))
    try:
        transport.sendto(query)
        return await answered
    finally:
        transport.close()


async def _ask_tcp(query: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, 53)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()


def _reply(question: dns.message.Message, values: Sequence[str], *, missing: bool = False) -> dns.message.Message:
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.rrset

    reply = dns.message.make_response(question, recursion_available=True)
    asked = question.question[0]
    if values:
        reply.answer.append(dns.rrset.from_text_list(asked.name, TTL, asked.rdclass, asked.rdtype, list(values)))
    elif missing:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    return reply


def _error(query: bytes, rcode: int) -> bytes:
    # ID and question come back; QR and RA set, RD kept. Made by hand because the query may not parse.
    if len(query) < 12:
        return b""
    flags = 0x8080 | (struct.unpack_from("!H", query, 2)[0] & 0x7900) | rcode
    counts = query[4:6] + bytes(6) if rcode != 1 else bytes(8)
    tail = _question_bytes(query) if rcode != 1 else b""
    return query[:2] + struct.pack("!H", flags) + counts + tail


def _question_bytes(query: bytes) -> bytes:
    offset = 12
    while offset < len(query) and query[offset]:
        offset += query[offset] + 1
    return query[12 : offset + 5]
