"""How a hook is specified and implemented.

Modes (`kernel/dispatch.py` gives them their meaning):
    sync    plain functions; contribute things, no I/O
    all     awaited one after the other, the first failure stops
    first   awaited until one answers something other than None
    notify  awaited apart from each other, failures are only logged
    around  each gives an async context manager; all are entered, and left in reverse

pluggy's own `firstresult` and wrappers are not used: they do not work on coroutines (a coroutine is never None).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

import pluggy

PROJECT = "engine"
PREFIX = "engine_"

SPEC_VERSION = 1
"""Generation of the hook specifications. Parameters may be appended without raising it; removing or renaming raises it."""

DEFAULT_ORDER = 50
"""Place of an implementation that names none."""

Mode = Literal["sync", "all", "first", "notify", "around"]
F = TypeVar("F", bound=Callable[..., Any])

_spec = pluggy.HookspecMarker(PROJECT)
_impl = pluggy.HookimplMarker(PROJECT)


def hookspec(mode: Mode, *, deadline: float = 30.0, fail_closed: bool = False) -> Callable[[F], F]:
    """Mark a function as a hook specification.

    Args:
        mode: how the dispatcher calls it, see the module's docstring.
        deadline: seconds that one implementation may take; meaningless for `sync`.
        fail_closed: a plugin that fails here is never switched off for it: what it guards must stay guarded.
    """

    def mark(function: F) -> F:
        function.engine_mode = mode  # type: ignore[attr-defined]
        function.engine_deadline = deadline  # type: ignore[attr-defined]
        function.engine_fail_closed = fail_closed  # type: ignore[attr-defined]
        return _spec(function)

    return mark


@overload
def hookimpl(function: F) -> F: ...
@overload
def hookimpl(*, order: int = DEFAULT_ORDER) -> Callable[[F], F]: ...
def hookimpl(function: F | None = None, *, order: int = DEFAULT_ORDER) -> F | Callable[[F], F]:
    """Mark a plugin's method as the implementation of the hook of the same name.

    Args:
        order: implementations are called from the lowest to the highest; equal ones in the plugins' start order.
            Each hook's docstring names the places that the built-in plugins take.
    """

    def mark(target: F) -> F:
        target.engine_order = order  # type: ignore[attr-defined]
        return _impl(target)

    return mark if function is None else mark(function)
