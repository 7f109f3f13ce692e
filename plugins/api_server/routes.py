"""Finds a request's route: literal paths by dictionary, the others by method and first segment.

Starlette tries every route in turn, and FastAPI's included routers make that a quarter of a millisecond for a hundred
routes; this table needs a few microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fastapi.routing
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute

from plugin_sdk.api import RouterSpec, RouteTimes

WEBSOCKET = "WEBSOCKET"
"""The method under which websocket routes are kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One route.

    Attributes:
        app: its ASGI application; None for what only leads to routes, such as a mount.
        plugin: who contributed it.
        matches: gives the path's parameters, or None.
        extra: what else the route wants in the scope.
        times: of its requests.
    """

    app: Any
    plugin: str
    matches: Callable[[str], dict[str, Any] | None]
    since: tuple[int, int]
    until: tuple[int, int]
    extra: dict[str, Any]
    times: RouteTimes = field(default_factory=RouteTimes)


class RouteTable:
    """All routes at one moment; never changed, only replaced."""

    def __init__(self, specs: Iterable[tuple[str, RouterSpec]], *, before: RouteTable | None = None) -> None:
        """`specs` in the order of precedence, each with its plugin's name; what `before` knows is not made again."""
        self._literal: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._by_segment: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._opaque: list[tuple[str, RouterSpec, BaseRoute]] = []
        self._known: list[tuple[RouterSpec, list[tuple[Entry, Any]]]] = []
        for plugin, spec in specs:
            made = before._made_of(spec) if before is not None else None
            if made is None:
                made = [self._entry(plugin, spec, *route) for route in _flat(spec.router.routes)]
            self._known.append((spec, made))
            for entry, route in made:
                if entry.app is None:
                    self._opaque.append((plugin, spec, route))
                else:
                    self._place(entry, route)

    def _made_of(self, spec: RouterSpec) -> list[tuple[Entry, Any]] | None:
        for known, made in self._known:
            if known.router is spec.router and (known.since, known.until) == (spec.since, spec.until):
                return made
        return None

    @staticmethod
    def _entry(plugin: str, spec: RouterSpec, route: Any, original: BaseRoute) -> tuple[Entry, Any]:
        if not isinstance(original, Route | WebSocketRoute):
            return Entry(None, plugin, lambda _: None, spec.since, spec.until, {}), original
        extra = {"endpoint": route.endpoint, "route": route}
        app = AsyncExitStackMiddleware(route.app)
        return Entry(app, plugin, _matcher(route), spec.since, spec.until, extra), route

    def _place(self, entry: Entry, route: Any) -> None:
        literal, _, _ = route.path_format.partition("{")
        for method in getattr(route, "methods", None) or {WEBSOCKET}:
            if "{" not in route.path_format:
                self._literal[method, route.path].append(entry)
            else:
                # "/{name}/x" has no first segment of its own, and is found under "".
                segment = literal.split("/", 2)[1] if literal.count("/") > 1 else ""
                self._by_segment[method, segment].append(entry)

    def find(self, method: str, path: str, version: tuple[int, int]) -> tuple[Entry, dict[str, Any]] | None:
        """The route and the path's parameters; None: no such page."""
        for entry in self._literal.get((method, path), ()):
            if entry.since <= version <= entry.until:
                return entry, {}
        segment = path.split("/", 2)[1] if path.startswith("/") else ""
        for key in (segment, "") if segment else ("",):
            for entry in self._by_segment.get((method, key), ()):
                if entry.since <= version <= entry.until and (params := entry.matches(path)) is not None:
                    return entry, params
        return self._find_opaque(method, path, version) if self._opaque else None

    def times(self) -> dict[tuple[str, str], RouteTimes]:
        """(method, path) to the times of each route that was asked for."""
        found: dict[tuple[str, str], RouteTimes] = {}
        for _, made in self._known:
            for entry, route in made:
                if entry.times.done or entry.times.failed:
                    method = min(getattr(route, "methods", None) or {WEBSOCKET})
                    found[method, route.path_format] = entry.times
        return found

    def _find_opaque(self, method: str, path: str, version: tuple[int, int]) -> tuple[Entry, dict[str, Any]] | None:
        """What is no route but leads to some: mounted applications."""
        for plugin, spec, route in self._opaque:
            if not spec.since <= version <= spec.until:
                continue
            kind = "websocket" if method == WEBSOCKET else "http"
            scope = {"type": kind, "method": method, "path": path, "root_path": "", "headers": []}
            match, child = route.matches(scope)
            if match is Match.FULL:
                extra = {key: value for key, value in child.items() if key != "path_params"}
                app = AsyncExitStackMiddleware(route.handle)
                entry = Entry(app, plugin, lambda _: None, spec.since, spec.until, extra)
                return entry, child.get("path_params", {})
        return None


def _flat(routes: Iterable[BaseRoute]) -> Iterator[tuple[Any, BaseRoute]]:
    """Each route as it is reached, and as it was declared; newer FastAPIs keep included routers apart."""
    contexts = getattr(fastapi.routing, "iter_route_contexts", None)
    if contexts is None:
        yield from ((route, route) for route in routes)
    else:
        yield from ((context, context.original_route) for context in contexts(list(routes)))


def _matcher(route: Any) -> Callable[[str], dict[str, Any] | None]:
    match = route.path_regex.match
    convert = {name: convertor.convert for name, convertor in route.param_convertors.items()}

    def matches(path: str) -> dict[str, Any] | None:
        found = match(path)
        if found is None:
            return None
        return {name: convert[name](value) for name, value in found.groupdict().items()}

    return matches
