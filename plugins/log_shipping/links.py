"""Where records go: what all ways to a receiver have in common.

A link is connected when it is first used and anew after each failure. It never waits without a bound, and it tells how many
records the receiver has when it cannot go on, so that none is sent twice and none is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from plugin_sdk import InvalidParameter

CONNECT_DEADLINE = 5.0
"""Seconds for looking up the name, connecting, and TLS."""
STALL_DEADLINE = 10.0
"""Seconds without progress after which a receiver counts as gone."""


@dataclass(slots=True)
class Progress:
    """How many records of one `send` the receiver has, also when it fails. Each call has its own."""

    sent: int = 0


class Link(Protocol):
    """A way to one receiver. Calls come one after the other."""

    async def connect(self) -> None:
        """Be connected. Raises Unavailable, or InvalidParameter for what waiting does not mend."""

    async def send(self, records: Sequence[bytes], progress: Progress) -> None:
        """Connect if need be, and send, and tell of the progress. Raises Unavailable, and what `connect` raises."""

    async def close(self) -> None:
        """Let go; a later call connects anew."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a receiver is: a host and port, or the path of a socket.

    Attributes:
        scheme: udp, tcp, tls, unix or unixgram.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{self.scheme}://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def split(address: str) -> SplitResult:
    """The parts of an address. Raises InvalidParameter in the words of Go, which dockerd passes on."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise InvalidParameter(f'parse "{address}": {error}') from None
    port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    if (port and not port.isascii()) or (port and not port.isdigit()):
        raise InvalidParameter(f'parse "{address}": invalid port ":{port}" after host')
    if port and int(port) > 65535:
        raise InvalidParameter(f'parse "{address}": port {port} is out of range')
    return parts


def host_and_port(parts: SplitResult, default_port: int) -> tuple[str, int]:
    """Host (this machine if there is none) and port."""
    return parts.hostname or "localhost", parts.port if parts.port is not None else default_port
