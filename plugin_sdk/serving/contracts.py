"""What authors of authorization and metrics plugins implement.

The other kinds have their contracts in `plugin_sdk.volumes`, `.network` and `.logs`.
"""

from __future__ import annotations

from typing import Protocol

from kernel.contracts.api import Denial, RequestView, ResponseView


class AuthorizationPlugin:
    """Decides which requests pass. Extend it.

    The methods are the hooks of the same meaning, so a plugin in the daemon hands them on: `engine_authorize(self, request)`
    returns `await policy.request(request)`.
    """

    async def request(self, request: RequestView) -> Denial | None:
        """May it pass? None: no objection; an exception refuses, too.

        When served, `request.peer` is the user, and `request.body()` gives what the engine shows: bodies that are
        `application/json`.
        """
        return None

    async def response(self, request: RequestView, response: ResponseView) -> Denial | None:
        """May the client see the answer? What the request did is done by then.

        Asked for every request when served; in the daemon, for those of which `judge_response` was called.
        """
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
