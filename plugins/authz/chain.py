"""The chain: every authorization plugin must allow a request, and its reply. Whatever goes wrong denies.

Source of the messages: AuthZPlugin.AuthZReq and AuthZRes of Docker's "Access authorization plugin"; the field names and
the texts of refusals are those that Docker sends.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import StrictBool

from plugin_sdk import EngineError, Wire
from plugin_sdk.api import Denial, RequestView, ResponseView
from plugin_sdk.managed import PluginPeer
from plugins.authz import form

CALL_SECONDS = 10.0
"""Seconds that a plugin has for one answer."""
FIND_SECONDS = 5.0
"""Seconds that a request waits for a plugin that is being started."""
AT_ONCE = 64
"""Calls that one plugin answers at a time."""
TURN_SECONDS = 1.0
"""Seconds that further ones wait for their turn. A plugin that calls the engine's API while it answers, and is asked about
that call too, is stopped by this: the innermost call is refused, and so the others get their answers."""
PARSE_IN_THREAD = 128 * 1024
"""Bytes of JSON from which on it is looked through in a thread."""

_OF_PLUGINS = re.compile(r"POST /plugins/(?P<name>.+)/(?P<action>enable|disable)|DELETE /plugins/(?P<gone>.+)")

Find = Callable[[str], Awaitable[PluginPeer]]

log = logging.getLogger("engine.authz")


class Verdict(Wire):
    """A plugin's answer. An absent `Allow` is a refusal, and so is one that is no boolean."""

    Allow: StrictBool = False
    Msg: str = ""


class _Missing(EngineError):
    """The plugin is not there to be asked."""


class Member:
    """One plugin of the chain."""

    def __init__(self, name: str, find: Find) -> None:
        self.name = name
        self._find = find
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(self, method: str, message: Mapping[str, Any]) -> Denial | None:
        """Its verdict.

        Raises:
            _Missing: it does not run.
            EngineError: it cannot be reached, hangs, or answers rubbish. The message names it.
        """
        peer = await self._peer()
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise self._failed(
                f"{method}: it owes {AT_ONCE} answers already. Does it call the engine's API while it answers? "
                "It is asked about that call too"
            ) from None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                verdict = await peer.call(method, message, Verdict, deadline=CALL_SECONDS)
        except TimeoutError:
            raise self._failed(f"{method}: no answer within {CALL_SECONDS:g} s") from None
        except EngineError as error:
            raise self._failed(str(error)) from error
        finally:
            self._turns.release()
        return None if verdict.Allow else Denial(f"authorization denied by plugin {self.name}: {verdict.Msg}")

    async def _peer(self) -> PluginPeer:
        try:
            async with asyncio.timeout(FIND_SECONDS):
                return await self._find(self.name)
        except TimeoutError:
            reason = f"it is not ready within {FIND_SECONDS:g} s"
        except EngineError as error:
            reason = str(error)
        raise _Missing(
            f"plugin {self.name} failed with error: {reason}. Nothing passes without its leave: start it, or enable it "
            f"(docker plugin enable {self.name}), or take it out of authorization-plugins and send the daemon a SIGHUP"
        )

    def _failed(self, reason: str) -> EngineError:
        return EngineError(f"plugin {self.name} failed with error: {reason}")

    def passed_by(self, view: RequestView, *, reply: bool) -> bool:
        """What may pass this plugin while it is missing: a request that enables it, and the ping before it. And the reply
        to one that ended it, which it had allowed."""
        if view.path == "/_ping":
            return view.method in ("GET", "HEAD")
        found = _OF_PLUGINS.fullmatch(f"{view.method} {view.path}")
        if found is None or plain(found["name"] or found["gone"]) != plain(self.name):
            return False
        return reply or found["action"] == "enable"


class Chain:
    """Plugins in the order of the setting. Never changed, only replaced.

    Attributes:
        members: in order.
    """

    def __init__(self, names: Sequence[str], find: Find, before: Chain | None = None) -> None:
        """Members that `before` has too are taken over."""
        known = {member.name: member for member in before.members} if before is not None else {}
        self.members: list[Member] = [known.get(name) or Member(name, find) for name in dict.fromkeys(names)]

    @property
    def names(self) -> list[str]:
        """Of the members."""
        return [member.name for member in self.members]

    async def request(self, view: RequestView) -> Denial | None:
        """May it pass? Raises EngineError when that cannot be found out."""
        message, seen = await _described(view)
        denial = await self._all("AuthZPlugin.AuthZReq", message, view, reply=False)
        if denial is not None:
            log.info("%s %s of %r: %s", view.method, seen, view.peer, denial.message)
        return denial

    async def response(self, view: RequestView, response: ResponseView) -> Denial | None:
        """May its reply leave? Raises EngineError when that cannot be found out."""
        message, seen = await _described(view)
        message["ResponseStatusCode"] = response.status
        message["ResponseHeaders"] = form.flat(response.headers, ())
        if response.body and view.path != "/auth" and form.declares_json(response.headers):
            message["ResponseBody"] = response.body
        denial = await self._all("AuthZPlugin.AuthZRes", message, view, reply=True)
        if denial is not None:
            log.info("reply to %s %s of %r: %s", view.method, seen, view.peer, denial.message)
        return denial

    async def _all(self, method: str, message: Mapping[str, Any], view: RequestView, *, reply: bool) -> Denial | None:
        for member in self.members:
            try:
                denial = await member.ask(method, message)
            except _Missing:
                if not member.passed_by(view, reply=reply):
                    raise
                log.warning("%s %s passes without plugin %s, which is missing", view.method, view.path, member.name)
                continue
            if denial is not None:
                return denial
        return None


async def _described(view: RequestView) -> tuple[dict[str, Any], str]:
    """The message of AuthZReq, without the fields that Docker leaves out when they are empty; and the address."""
    uri = form.address(view)
    message: dict[str, Any] = {
        "User": view.peer,
        "UserAuthNMethod": view.auth_method,
        "RequestMethod": view.method,
        "RequestUri": uri,
        "RequestHeaders": form.flat(view.headers),
        "RequestPeerCertificates": [pem.encode() for pem in view.certificates],
    }
    if form.shows_body(view) and (body := await view.body()):
        if len(body) >= PARSE_IN_THREAD:
            await asyncio.to_thread(form.check_json, body)
        else:
            form.check_json(body)
        message["RequestBody"] = body
    return {name: value for name, value in message.items() if value}, uri


def plain(name: str) -> str:
    """The name without the tag that goes without saying."""
    return name.removesuffix(":latest")
