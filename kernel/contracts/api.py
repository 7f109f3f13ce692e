"""What plugins and the API server exchange. No web framework is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

API_VERSION = (1, 51)
"""Newest version of the Docker Engine API that is served."""
MIN_API_VERSION = (1, 24)
"""Oldest."""

HIJACK = "engine.hijack"
"""Key of the ASGI scope's `extensions` under which a route finds its `Hijack`."""

ABANDON = "engine.abandon"
"""Key of the extension by which a route asks to be cancelled when its client goes away, even before the response has
started: a function without arguments. (A response that has started is always cancelled.)"""


@dataclass(frozen=True, slots=True, eq=False)
class RouterSpec:
    """Routes of one plugin. Compared by identity: give the same spec again for routes that have not changed.

    Attributes:
        router: a `fastapi.APIRouter` whose paths carry no version; the API server serves them bare and versioned.
        since, until: versions of the API in which they exist.
    """

    router: Any
    since: tuple[int, int] = MIN_API_VERSION
    until: tuple[int, int] = API_VERSION


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request, for those who decide whether it may pass.

    Attributes:
        path: without the version.
        query: as sent.
        headers: lower-case names.
        peer: the client certificate's common name, or "".
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    api_version: tuple[int, int]
    peer: str = ""


class RawStream(Protocol):
    """A connection taken over from HTTP. Either direction can end before the other, over TLS too."""

    async def read(self) -> bytes:
        """What has come; b"" when the client has ended its side or is gone."""

    async def write(self, data: bytes) -> None:
        """Send; waits while the client reads too slowly. Raises ConnectionError when it is gone."""

    async def end(self) -> None:
        """Flush and close."""

    async def gone(self) -> None:
        """Returns when the connection is broken or closed, as opposed to half-closed by the client."""


class Hijack(Protocol):
    """Takes the connection over. The status line is 101 UPGRADED for clients that sent `Upgrade`, else 200 OK."""

    async def __call__(self, content_type: str = "application/vnd.docker.raw-stream") -> RawStream: ...


@dataclass(frozen=True, slots=True)
class Denial:
    """Answer of `engine_authorize` that refuses; `message` is shown to the client."""

    message: str


class ApiServer(Protocol):
    """Service: the API server."""

    def addresses(self) -> list[str]:
        """Where it listens: "unix:///run/docker.sock", "tcp://127.0.0.1:2375", ..."""
