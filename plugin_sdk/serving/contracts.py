"""What authors of authorization and metrics plugins implement.

The other kinds have their contracts in `plugin_sdk.volumes`, `.network` and `.logs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kernel.contracts.api import Denial, RequestView


@dataclass(frozen=True, slots=True)
class AuthorizationView(RequestView):
    """A request as an authorization plugin sees it. `peer` is the user's name.

    Attributes:
        method_of_authentication: "TLS", or "" for a client without a certificate.
        payload: the request's body; b"" when there is none or it is not shown (it is for `application/json` only).
    """

    method_of_authentication: str = ""
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class ResponseView:
    """An answer of the engine, before the client gets it.

    Attributes:
        payload: the body; b"" when it is not shown: streams, and what is larger than the engine's buffer.
    """

    status: int
    headers: Mapping[str, str]
    payload: bytes


class AuthorizationPlugin:
    """Decides which requests pass. Extend it.

    In process, hand the hook's own view on: `engine_authorize(self, request)` returns `await policy.request(request)`.
    """

    async def request(self, view: RequestView) -> Denial | None:
        """May it pass? None: no objection. An exception refuses, too.

        `view` is an `AuthorizationView` when served; in the daemon it may be a plain `RequestView`.
        """
        return None

    async def response(self, view: RequestView, response: ResponseView) -> Denial | None:
        """May the client see the answer? The work is done by then. Only asked when served."""
        return None


class MetricsSource(Protocol):
    """Where the engine's metrics are read."""

    async def read(self) -> str:
        """The present values in Prometheus' text format. Raises Unavailable."""


class MetricsCollector:
    """Takes the engine's metrics somewhere. Extend it."""

    async def start(self, source: MetricsSource) -> None:
        """Begin to collect, in the background. May be called again without a `stop` between: the engine was killed."""
        raise NotImplementedError

    async def stop(self) -> None:
        """No more; idempotent."""
        raise NotImplementedError
