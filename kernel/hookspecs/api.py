"""Hooks of the API. The `api_server` plugin calls them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kernel.hookspecs._markers import hookspec

if TYPE_CHECKING:
    from kernel.contracts.api import Denial, RequestView, ResponseView, RouterSpec


@hookspec("sync")
def engine_api_routers() -> Iterable[RouterSpec]:
    """Contribute routes.

    Called when the server starts and again whenever a plugin came or went; the routes of a plugin that left answer
    404 from then on. Routes of plugins started earlier win over later ones with the same path. A plugin that raises
    has no routes, and its failure is logged. Make the specs once, in `start`, and give the same ones at every call:
    routes are prepared anew for a spec that is new, about 1 ms each, on the event loop.
    """
    raise NotImplementedError


@hookspec("first", deadline=180.0, fail_closed=True)
async def engine_authorize(request: RequestView) -> Denial | None:
    """May this request pass?

    Called for every request before its route, `/_ping` included. None means no objection; the first Denial refuses with
    403 and its message. An EngineError refuses with its own status; any other exception, or a missed deadline, refuses
    too: who is asked for leave and cannot answer has not given it. A plugin that implements this names `RequestGuard` among
    its `drivers`. `request.body()` reads the body; `request.judge_response()` asks for the next hook.
    """
    raise NotImplementedError


@hookspec("first", deadline=180.0, fail_closed=True)
async def engine_authorize_response(request: RequestView, response: ResponseView) -> Denial | None:
    """May this reply leave?

    Called before anything of the reply is sent, errors included, if somebody called `request.judge_response()` in
    `engine_authorize`; what the request did is done by then. Answers and exceptions mean what they mean there.
    """
    raise NotImplementedError
