"""The kit of the interface `docker.authz/1.0`: there is no driver, the plugin is asked over its peer.

Source: Docker's "Access authorization plugin", and the fields that its daemon really sends.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from kernel.contracts.common import Wire
from kernel.contracts.managed import PluginPeer
from kernel.errors import EngineError
from plugin_sdk.testing.kit import Bench, Kit

ANSWER_SECONDS = 10.0
_REQ, _RES = "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"


class AuthzAnswer(Wire):
    """What an authz plugin answers. `Allow` None: it was not said."""

    Allow: bool | None = None
    Msg: str = ""


class AuthzBench(Bench[PluginPeer]):
    """Asks."""

    async def ask(self, method: str, **fields: Any) -> AuthzAnswer:
        """One question about a harmless request, with `fields` laid over it."""
        question: dict[str, Any] = {
            "RequestMethod": "GET",
            "RequestUri": "/v1.45/version",
            "RequestHeaders": {"User-Agent": "engine-verify"},
        }
        if method == _RES:
            question |= {
                "ResponseStatusCode": 200,
                "ResponseHeaders": {"Content-Type": "application/json"},
                "ResponseBody": b'{"Version":"0"}',
            }
        answer = await self.driver.call(method, question | fields, AuthzAnswer, deadline=ANSWER_SECONDS)
        self.expect(answer.Allow is not None, f"{method} to say Allow true or false", "an answer without Allow")
        self.expect(answer.Allow or answer.Msg, f"{method} to say in Msg why it denies", "Allow false without Msg")
        return answer


KIT = Kit("authz", PluginPeer, AuthzBench)

_SAID_REQ = "AuthZPlugin.AuthZReq: Allow says whether the request may pass, Msg why not."
_SAID_RES = "AuthZPlugin.AuthZRes: Allow says whether the answer may pass, Msg why not."


@KIT.check("a request is allowed, or denied with a message", says=_SAID_REQ)
async def request(bench: AuthzBench) -> None:
    await bench.ask(_REQ)


@KIT.check("an answer is allowed, or denied with a message", says=_SAID_RES)
async def response(bench: AuthzBench) -> None:
    await bench.ask(_RES)


@KIT.check("the same question has the same answer", says=_SAID_REQ)
async def same_answer(bench: AuthzBench) -> None:
    for method in (_REQ, _RES):
        first, second = await bench.ask(method), await bench.ask(method)
        bench.equal(second.Allow, first.Allow, f"Allow of the second {method}")


@KIT.check("a user with certificates can be asked about", says=_SAID_REQ)
async def user(bench: AuthzBench) -> None:
    await bench.ask(
        _REQ,
        User="alice",
        UserAuthNMethod="TLS",
        RequestMethod="DELETE",
        RequestUri="/v1.45/containers/no-such-container?force=1",
        RequestPeerCertificates=[b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"],
    )


@KIT.check("bodies are taken, small ones and ones of a megabyte", says=_SAID_REQ)
async def bodies(bench: AuthzBench) -> None:
    headers = {"Content-Type": "application/json"}
    for filler in (0, 1 << 20):
        body = json.dumps({"Image": "busybox", "Labels": {"filler": "x" * filler}}).encode()[: 1 << 20]
        uri = "/v1.45/containers/create"
        await bench.ask(_REQ, RequestMethod="POST", RequestUri=uri, RequestHeaders=headers, RequestBody=body)


@KIT.check("eight questions at once are all answered", says=_SAID_REQ)
async def at_once(bench: AuthzBench) -> None:
    answers = await asyncio.gather(*(bench.ask(_REQ) for _ in range(8)), return_exceptions=True)
    failed = [error for error in answers if isinstance(error, BaseException)]
    bench.expect(not failed, "eight answers", [str(error) for error in failed[:2]])


@KIT.check("a question with unknown fields, or hardly any, does not break it", says=_SAID_REQ)
async def odd_questions(bench: AuthzBench) -> None:
    await bench.ask(_REQ, FieldOfALaterVersion={"a": 1}, RequestHeaders=None, RequestBody=None)
    with suppress(EngineError):  # a refusal is a fair answer to an empty question; that it lives on is the claim
        await bench.driver.call(_REQ, {}, AuthzAnswer, deadline=ANSWER_SECONDS)
    await bench.ask(_REQ)
