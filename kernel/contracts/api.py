"""What plugins and the API server exchange. No web framework is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

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


BODY_SHOWN = 4 << 20
"""Bytes of a request's body that those who guard are shown; as much as JSON routes accept."""
RESPONSE_SHOWN = 1 << 20
"""Bytes of a reply's body that those who guard are shown."""


class RequestSource(Protocol):
    """Where a RequestView has from what is not there for nothing. The API server implements it."""

    async def body(self, limit: int) -> bytes:
        """See `RequestView.body`."""

    def judge_response(self) -> None:
        """See `RequestView.judge_response`."""


@dataclass(frozen=True, slots=True)
class RequestView:
    """A request, for those who decide whether it may pass.

    Attributes:
        path: decoded, without the version: what chooses the route.
        query: as sent.
        headers: lower-case names.
        peer: common name of the verified client certificate, or "".
        auth_method: how the client proved who it is: "TLS", or "".
        certificates: the client's certificate and, where the TLS library tells, those it sent along; PEM.
        target: path and query as sent, with the version.
        source: for the methods.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    api_version: tuple[int, int]
    peer: str = ""
    auth_method: str = ""
    certificates: Sequence[str] = ()
    target: str = ""
    source: RequestSource | None = None

    async def body(self, limit: int = BODY_SHOWN) -> bytes:
        """The whole body; the route gets the same bytes afterwards. Empty for websockets.

        Ask only for bodies that are meant to be small: an upload is held in memory too.

        Raises:
            TooLarge: more than `limit` bytes. The request is then refused, even if the caller goes on.
            DeadlineExceeded, Unavailable: it did not come in time; the client is gone. Refused too.
        """
        return await self.source.body(limit) if self.source is not None else b""

    def judge_response(self) -> None:
        """Have `engine_authorize_response` called for this request's reply, which is held back until then."""
        if self.source is not None:
            self.source.judge_response()


@dataclass(frozen=True, slots=True)
class ResponseView:
    """A reply that waits for leave.

    Attributes:
        headers: lower-case names; those that every reply carries (Server, Date) are missing.
        body: None: not shown, because it is a stream, a connection that is taken over (status 101 or 200), or longer
            than RESPONSE_SHOWN.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None = None


class RequestGuard(Protocol):
    """A contract without methods: plugins that implement `engine_authorize` name it among their `drivers`.

    The API server starts after them, so that not even the first request passes unseen.
    """


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
    """Answer of `engine_authorize` and `engine_authorize_response` that refuses; `message` is shown to the client."""

    message: str


@dataclass(slots=True)
class RouteTimes:
    """How long the requests of one route took, since the start. Seconds; a stream's end when it ends.

    Attributes:
        done: requests that were answered, `seconds` together; those that were refused or failed are `failed`.
        buckets: of `done`, how many took no longer than each of `BOUNDS`, and longer than the one before; one more for
            the rest.
    """

    BOUNDS: ClassVar[tuple[float, ...]] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(RouteTimes.BOUNDS) + 1))


@dataclass(slots=True)
class Stalls:
    """Standstills of the event loop since the start. Seconds; `where` is the innermost frame of the longest, if it was caught."""

    count: int = 0
    longest: float = 0.0
    where: str = ""


class ApiServer(Protocol):
    """Service: the API server."""

    def route_times(self) -> Mapping[tuple[str, str], RouteTimes]:
        """(method, path as in "/containers/{ref}/start") to its times, for routes that were asked for."""

    def stalls(self) -> Stalls:
        """Of the event loop."""

    def addresses(self) -> list[str]:
        """Where it listens: "unix:///run/docker.sock", "tcp://127.0.0.1:2375", ..."""
