"""The chain: all must allow, and whatever goes wrong denies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from kernel import graph
from plugin_sdk import EngineError, InvalidParameter, NotFound, PluginError, TooLarge, Unavailable, Wire
from plugin_sdk.api import RequestView, ResponseView
from plugins.api_server.plugin import ApiServerPlugin
from plugins.authz import chain as module
from plugins.authz.chain import Chain
from plugins.authz.plugin import AuthZPlugin, Settings

Answer = Callable[[str, Mapping[str, Any]], Any]


class Peer:
    """A plugin: `answer` gives a reply's document, or raises."""

    interfaces = ("docker.authz/1.0",)

    def __init__(self, name: str, answer: Answer) -> None:
        self.name, self.answer = name, answer
        self.calls: list[tuple[str, Mapping[str, Any]]] = []

    async def call(self, method: str, arguments: Mapping[str, Any], reply: type[Wire], *, deadline: float) -> Any:
        self.calls.append((method, dict(arguments)))
        told = self.answer(method, arguments)
        if asyncio.iscoroutine(told):
            told = await told
        try:
            return reply.model_validate(told)
        except ValidationError as error:
            raise PluginError(self.name, method, f"answered rubbish: {error}") from None


class Source:
    """What a RequestView asks of the API server."""

    def __init__(self, body: bytes) -> None:
        self.content = body
        self.judges = 0

    async def body(self, limit: int) -> bytes:
        if len(self.content) > limit:
            raise TooLarge("too large")
        return self.content

    def judge_response(self) -> None:
        self.judges += 1


def yes(method: str, arguments: Mapping[str, Any]) -> Any:
    return {"Allow": True}


def no(method: str, arguments: Mapping[str, Any]) -> Any:
    return {"Allow": False, "Msg": "not you"}


def view(method: str = "GET", path: str = "/info", body: bytes = b"", **more: Any) -> RequestView:
    headers = {"content-type": "application/json"} if body else {}
    return RequestView(method, path, "", headers, (1, 51), target=path, source=Source(body), **more)


def chain(*peers: Peer, missing: tuple[str, ...] = ()) -> Chain:
    known = {peer.name: peer for peer in peers}

    async def find(name: str) -> Any:
        if name not in known:
            raise NotFound(f'plugin "{name}" not found')
        return known[name]

    return Chain([*(peer.name for peer in peers), *missing], find)


async def test_all_are_asked_in_order_and_all_must_allow() -> None:
    first, second, third = Peer("a", yes), Peer("b", no), Peer("c", yes)
    denial = await chain(first, second, third).request(view())
    assert denial is not None
    assert denial.message == "authorization denied by plugin b: not you"
    assert [len(peer.calls) for peer in (first, second, third)] == [1, 1, 0]
    assert await chain(first, third).request(view()) is None


async def test_the_message_has_dockers_fields() -> None:
    peer = Peer("a", yes)
    asked = view("POST", "/containers/create", b'{"Image":"x"}', peer="alice", auth_method="TLS", certificates=("PEM",))
    await chain(peer).request(asked)
    expected = {
        "User": "alice",
        "UserAuthNMethod": "TLS",
        "RequestMethod": "POST",
        "RequestUri": "/containers/create",
        "RequestHeaders": {"Content-Type": "application/json"},
        "RequestPeerCertificates": [b"PEM"],
        "RequestBody": b'{"Image":"x"}',
    }
    assert peer.calls == [("AuthZPlugin.AuthZReq", expected)]
    await chain(peer).response(asked, ResponseView(201, {"content-type": "application/json"}, b'{"Id":"1"}'))
    reply = {
        "ResponseStatusCode": 201,
        "ResponseHeaders": {"Content-Type": "application/json"},
        "ResponseBody": b'{"Id":"1"}',
    }
    assert peer.calls[1] == ("AuthZPlugin.AuthZRes", expected | reply)


async def test_what_is_empty_is_left_out() -> None:
    peer = Peer("a", yes)
    await chain(peer).request(view())
    assert peer.calls[0][1] == {"RequestMethod": "GET", "RequestUri": "/info"}


async def test_of_auth_neither_body_is_shown() -> None:
    peer = Peer("a", yes)
    asked = view("POST", "/auth", b'{"password":"p"}')
    await chain(peer).request(asked)
    await chain(peer).response(asked, ResponseView(200, {"content-type": "application/json"}, b'{"IdentityToken":"t"}'))
    assert all("RequestBody" not in arguments and "ResponseBody" not in arguments for _, arguments in peer.calls)


@pytest.mark.parametrize(
    "reply",
    [{}, {"Allow": None}, {"allow": False}, {"Allow": "true"}, {"Allow": 1}, {"Allow": "yes"}, {"Allow": [True]}, []],
)
async def test_only_a_true_allows(reply: Any) -> None:
    """An absent Allow denies; one that is no boolean is rubbish, and denies too."""
    try:
        assert await chain(Peer("a", lambda *_: reply)).request(view()) is not None
    except EngineError as error:
        assert "plugin a failed with error" in str(error)


async def test_key_case_does_not_matter() -> None:
    assert await chain(Peer("a", lambda *_: {"allow": True})).request(view()) is None


@pytest.mark.parametrize(
    "error", [Unavailable("cannot be reached"), PluginError("a", "x", "rubbish"), NotFound("gone")]
)
async def test_a_plugin_that_fails_denies_and_is_named(error: Exception) -> None:
    def fail(*_: Any) -> Any:
        raise error

    with pytest.raises(EngineError, match="^plugin a failed with error: ") as caught:
        await chain(Peer("a", fail)).request(view())
    assert type(caught.value) is EngineError, "a failure is not the client's 404"
    for asked in (view("POST", "/plugins/a/enable"), view("GET", "/_ping")):
        with pytest.raises(EngineError):
            await chain(Peer("a", fail)).request(asked)


async def test_a_plugin_that_hangs_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.1)
    with pytest.raises(EngineError, match=r"plugin a failed with error: AuthZPlugin.AuthZReq: no answer within 0.1 s"):
        await chain(Peer("a", lambda *_: asyncio.sleep(30))).request(view())


async def test_a_plugin_that_asks_the_engine_while_it_answers_cannot_run_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.2)
    running = most = 0
    refusals: list[str] = []

    async def recurse() -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await links.request(view())
        except EngineError as error:
            refusals.append(str(error))
        finally:
            running -= 1
        return {"Allow": True}

    links = chain(Peer("a", lambda *_: recurse()))
    assert await asyncio.wait_for(links.request(view()), 5) is None
    assert most == module.AT_ONCE
    (refusal,) = refusals
    assert "plugin a failed with error" in refusal
    assert f"owes {module.AT_ONCE} answers" in refusal


async def test_many_at_once_only_wait() -> None:
    async def slow() -> Any:
        await asyncio.sleep(0.01)
        return {"Allow": True}

    links = chain(Peer("a", lambda *_: slow()))
    assert await asyncio.gather(*(links.request(view()) for _ in range(300))) == [None] * 300


async def test_a_missing_plugin_lets_pass_what_enables_it_and_nothing_else() -> None:
    other = Peer("other", yes)
    links = chain(other, missing=("me/guard:latest",))
    for asked in (
        view("POST", "/plugins/me/guard/enable"),
        view("POST", "/plugins/me/guard:latest/enable"),
        view("GET", "/_ping"),
        view("HEAD", "/_ping"),
    ):
        assert await links.request(asked) is None
    for asked in (
        view(),
        view("GET", "/plugins/me/guard/enable"),
        view("POST", "/plugins/me/other/enable"),
        view("POST", "/plugins/me/guard/disable"),
        view("DELETE", "/plugins/me/guard"),
        view("POST", "/plugins/me/guard/upgrade"),
        view("POST", "/plugins/x/me/guard/enable"),
        view("POST", "/_ping"),
    ):
        with pytest.raises(EngineError, match="plugin me/guard:latest failed with error: .*SIGHUP"):
            await links.request(asked)
    # It had allowed what ended it; that reply cannot wait for it.
    for ended in (view("POST", "/plugins/me/guard/disable"), view("DELETE", "/plugins/me/guard")):
        assert await links.response(ended, ResponseView(200, {}, b"")) is None
    for other_reply in (view(), view("DELETE", "/plugins/me/other"), view("POST", "/plugins/me/guard/upgrade")):
        with pytest.raises(EngineError, match="failed with error"):
            await links.response(other_reply, ResponseView(200, {}, b""))
    strict = chain(Peer("other", no), missing=("me/guard:latest",))
    assert await strict.request(view("POST", "/plugins/me/guard/enable")) is not None, "the others are asked as ever"


async def test_a_plugin_that_does_not_get_ready_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIND_SECONDS", 0.1)

    async def find(name: str) -> Any:
        await asyncio.sleep(30)

    with pytest.raises(EngineError, match=r"not ready within 0.1 s"):
        await Chain(["a"], find).request(view())


async def test_oversize_and_ambiguous_bodies_reach_no_plugin() -> None:
    peer = Peer("a", yes)
    with pytest.raises(TooLarge):
        await chain(peer).request(view("POST", "/containers/create", b"x" * ((4 << 20) + 1)))
    for size in (0, module.PARSE_IN_THREAD):
        body = b'{"a":1,"A":"' + b"x" * size + b'"}'
        with pytest.raises(InvalidParameter):
            await chain(peer).request(view("POST", "/containers/create", body))
    assert peer.calls == []


# The plugin


class Context:
    def __init__(self, peers: Mapping[str, Peer]) -> None:
        self.peers = peers
        self.settings = Settings()

    def require(self, contract: Any) -> Any:
        return self

    async def peer(self, name: str, capability: str) -> Any:
        assert capability == "authz"
        return self.peers[name]


async def test_the_setting_can_change_and_holds_its_plugins() -> None:
    deny, allow = Peer("deny", no), Peer("me/allow:latest", yes)
    plugin = AuthZPlugin()
    await plugin.start(Context({"deny": deny, "me/allow": allow}))  # type: ignore[arg-type]
    asked = view()
    assert await plugin.engine_authorize(asked) is None
    assert asked.source.judges == 0, "nobody is configured: replies are not held back"  # type: ignore[union-attr]
    assert await plugin.engine_authorize_response(asked, ResponseView(200, {})) is None

    await plugin.reload(Settings(authorization_plugins=["me/allow", "deny", "deny"]))
    asked = view()
    assert await plugin.engine_authorize(asked) is not None
    assert asked.source.judges == 1  # type: ignore[union-attr]
    assert len(deny.calls) == 1
    assert plugin.engine_info() == {"Plugins": {"Authorization": ["me/allow", "deny"]}}
    (holder,) = plugin.engine_holders("plugin", "me/allow:latest")
    assert str(holder) == "setting authorization-plugins"
    assert not [*plugin.engine_holders("plugin", "me/allow:2")]
    assert not [*plugin.engine_holders("volume", "deny")]

    await plugin.reload(Settings())
    assert await plugin.engine_authorize(view()) is None


def test_names_are_checked() -> None:
    for bad in ("", " x"):
        with pytest.raises(ValidationError):
            Settings(authorization_plugins=[bad])


def test_the_api_opens_after_those_who_guard_it() -> None:
    metas = {"api_server": ApiServerPlugin.meta, "authz": AuthZPlugin.meta}
    assert graph.order(metas) == ["authz", "api_server"]
