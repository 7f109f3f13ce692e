"""Authorization plugins judge what real clients ask of a real engine."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, OldStylePlugin, Raw, eventually
from harness.answering import make_answering
from harness.certificates import make_certificates

pytestmark = pytest.mark.real

PORT = 23761
REQUEST, RESPONSE = "AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"

Rule = Callable[[dict[str, Any]], Any]


def allow(arguments: dict[str, Any]) -> Any:
    return {"Allow": True}


class Guards:
    """Old-style authz plugins of one engine. Whatever a test made of them, they allow all at its end, so that the engine
    can be cleared up."""

    def __init__(self) -> None:
        self.engine: Engine
        self.plugins: dict[str, OldStylePlugin] = {}

    def add(self, name: str, request: Rule = allow, response: Rule = allow) -> OldStylePlugin:
        answers: Mapping[str, Rule] = {REQUEST: request, RESPONSE: response}
        self.plugins[name] = OldStylePlugin(self.engine.plugin_dir, name, ["authz"], answers)
        return self.plugins[name]

    def release(self) -> None:
        for name, plugin in self.plugins.items():
            plugin.close()
            self.add(name)
        if self.engine.running:
            # A plugin that could not be reached is tried again after some seconds.
            eventually(lambda: self.engine.http("GET", "/info").status == 200, timeout=15)


@pytest.fixture
def guards(own_engine: Callable[..., Engine]) -> Iterator[Guards]:
    made = Guards()
    yield made
    made.release()
    (made.engine.root / "daemon.json").write_text("{}")
    made.engine.signal(signal.SIGHUP)
    eventually(lambda: made.engine.http("GET", "/info").json()["Plugins"]["Authorization"] == [])
    for plugin in made.plugins.values():
        plugin.close()


@pytest.fixture
def guarded(own_engine: Callable[..., Engine], guards: Guards) -> Callable[..., Engine]:
    """Makes the engine of a test, with these plugins in its `authorization-plugins`; they come later."""

    def make(*names: str, flags: tuple[str, ...] = (), image: bool = False) -> Engine:
        engine = guards.engine = own_engine(start=False)
        config = engine.root / "daemon.json"
        config.write_text(json.dumps({"authorization-plugins": list(names)}))
        engine.flags += ["--config-file", str(config), *flags]
        for name in names:
            if ":" not in name:
                guards.add(name)
        engine.start()
        return engine

    return make


def shown(plugin: OldStylePlugin, method: str, uri: str) -> list[dict[str, Any]]:
    """What the plugin was told of requests whose address contains `uri`."""
    return [arguments for arguments in plugin.called(method) if uri in arguments["RequestUri"]]


def body(arguments: dict[str, Any], field: str = "RequestBody") -> Any:
    return json.loads(base64.b64decode(arguments[field]))


def client(folder: Path, who: str, *arguments: str) -> list[str]:
    """A command line of the docker CLI over mutual TLS."""
    files = [f"--tlscacert={folder}/ca.pem", f"--tlscert={folder}/{who}.pem", f"--tlskey={folder}/{who}-key.pem"]
    return ["docker", "--host", f"tcp://127.0.0.1:{PORT}", "--tlsverify", *files, *arguments]


def test_one_users_delete_is_denied_with_the_plugins_words(
    guarded: Callable[..., Engine], guards: Guards, tmp_path: Path
) -> None:
    make_certificates(tmp_path, ("alice", "bob"))
    files = [
        f"--tlscacert={tmp_path}/ca.pem",
        f"--tlscert={tmp_path}/server.pem",
        f"--tlskey={tmp_path}/server-key.pem",
    ]
    engine = guarded("guard", flags=("-H", f"tcp://127.0.0.1:{PORT}", "--tlsverify", *files))
    guard = guards.plugins["guard"]

    def no_delete_for_bob(told: dict[str, Any]) -> Any:
        refused = told.get("User") == "test bob" and told["RequestMethod"] == "DELETE"
        return {"Allow": not refused, "Msg": "bob may not delete volumes"}

    guard.answers[REQUEST] = no_delete_for_bob

    def docker(who: str, *arguments: str) -> Any:
        return engine.nsenter(client(tmp_path, who, *arguments), check=False)

    assert docker("bob", "volume", "create", "v1").returncode == 0
    refused = docker("bob", "volume", "rm", "v1")
    assert refused.returncode == 1
    assert "authorization denied by plugin guard: bob may not delete volumes" in refused.stderr
    assert docker("bob", "volume", "inspect", "v1").returncode == 0
    assert docker("alice", "volume", "rm", "v1").returncode == 0
    engine.docker("volume", "create", "v2")
    engine.docker("volume", "rm", "v2")

    by_bob, by_alice, by_nobody = [
        told for told in shown(guard, REQUEST, "/volumes/") if told["RequestMethod"] == "DELETE"
    ]
    assert (by_bob["User"], by_bob["UserAuthNMethod"]) == ("test bob", "TLS")
    assert by_alice["User"] == "test alice"
    assert "User" not in by_nobody and "UserAuthNMethod" not in by_nobody and "RequestPeerCertificates" not in by_nobody
    pem = base64.b64decode(by_bob["RequestPeerCertificates"][0]).decode()
    own = (tmp_path / "bob.pem").read_text()
    assert pem.split() == own[own.index("-----BEGIN") :].split()


def test_the_body_of_create_is_seen_and_can_be_denied(
    guarded: Callable[..., Engine], guards: Guards, busybox_tar: Path
) -> None:
    engine = guarded("guard")
    guard = guards.plugins["guard"]
    engine.docker("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox:latest", timeout=60)
    assert "RequestBody" not in shown(guard, REQUEST, "/images/create")[0], "uploads are not shown"

    def no_privileged(told: dict[str, Any]) -> Any:
        privileged = "/containers/create" in told["RequestUri"] and body(told)["HostConfig"]["Privileged"]
        return {"Allow": not privileged, "Msg": "no privileged containers"}

    guard.answers[REQUEST] = no_privileged
    refused = engine.docker("create", "--privileged", "busybox", check=False)
    assert "authorization denied by plugin guard: no privileged containers" in refused.stderr
    assert engine.docker("ps", "-aq").stdout == ""
    done = engine.docker("run", "--rm", "--label", "seen=yes", "--network", "none", "busybox", "echo", "hi")
    assert done.stdout == "hi\n"
    (told,) = [told for told in shown(guard, REQUEST, "/containers/create") if "seen" in body(told)["Labels"]]
    assert body(told)["Cmd"] == ["echo", "hi"]
    (reply,) = [reply for reply in shown(guard, RESPONSE, "/containers/create") if reply["ResponseStatusCode"] == 201]
    assert len(body(reply, "ResponseBody")["Id"]) == 64
    streams = [reply for reply in shown(guard, RESPONSE, "/attach") if reply["ResponseStatusCode"] == 101]
    assert streams and "ResponseBody" not in streams[0]


def test_a_body_that_cannot_be_shown_is_denied(guarded: Callable[..., Engine], guards: Guards) -> None:
    """CVE-2024-41110 and CVE-2026-34040: such a request must not reach the route as if it had no body."""
    engine = guarded("guard")
    guard = guards.plugins["guard"]
    fill = "x" * (4 << 20)
    document = json.dumps({"Name": "big", "Labels": {"fill": fill}})
    headers = {"Content-Type": "application/json"}
    answer = engine.http("POST", "/volumes/create", document, headers)
    assert answer.status == 413
    assert "does not pass unseen" in answer.message
    pieces = f"{len(document):x}\r\n{document}\r\n0\r\n\r\n"
    answer = engine.http("POST", "/volumes/create", pieces, headers | {"Transfer-Encoding": "chunked"})
    assert answer.status == 413
    assert shown(guard, REQUEST, "/volumes/create") == []
    assert engine.http("GET", "/volumes/big").status == 404

    small = json.dumps({"Name": "small", "name": "other"})
    answer = engine.http("POST", "/volumes/create", small, headers)
    assert answer.status == 400
    assert "twice" in answer.message

    lied = engine.http("POST", "/volumes/create", json.dumps({"Name": "lied"}), {"Content-Type": "text/plain"})
    assert lied.status == 400
    assert body(shown(guard, REQUEST, "/volumes/create")[0]) == {"Name": "lied"}

    answer = engine.http("DELETE", "/volumes/x?force=0&force=1")
    assert answer.status == 400
    assert "more than once" in answer.message


def test_a_reply_can_be_denied(guarded: Callable[..., Engine], guards: Guards) -> None:
    engine = guarded("guard")
    guard = guards.plugins["guard"]
    engine.docker("volume", "create", "--label", "secret=1", "hidden")
    engine.docker("volume", "create", "open")

    def hide(told: dict[str, Any]) -> Any:
        hidden = "ResponseBody" in told and b"secret" in base64.b64decode(told["ResponseBody"])
        return {"Allow": not hidden, "Msg": "it is hidden"}

    guard.answers[RESPONSE] = hide
    refused = engine.http("GET", "/volumes/hidden")
    assert (refused.status, refused.message) == (403, "authorization denied by plugin guard: it is hidden")
    assert engine.http("GET", "/volumes/open").status == 200
    guard.answers[RESPONSE] = lambda told: {"Allow": told.get("ResponseStatusCode") != 404, "Msg": "no such answer"}
    assert engine.http("GET", "/volumes/none").message == "authorization denied by plugin guard: no such answer"
    guard.answers[RESPONSE] = lambda told: {"Allow": "/events" not in told["RequestUri"], "Msg": "no events"}
    assert engine.http("GET", "/events").status == 403
    guard.answers[RESPONSE] = allow


def test_a_connection_that_is_taken_over_is_denied_before_it_begins(
    guarded: Callable[..., Engine], guards: Guards, busybox_tar: Path
) -> None:
    engine = guarded("guard")
    guard = guards.plugins["guard"]
    engine.docker("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox:latest", timeout=60)
    engine.docker("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "60")
    guard.answers[RESPONSE] = lambda told: {"Allow": not told["RequestUri"].endswith("/start"), "Msg": "no exec"}
    refused = engine.docker("exec", "one", "touch", "/ran", check=False)
    assert refused.returncode != 0
    assert "received 403" in refused.stderr
    guard.answers[RESPONSE] = lambda told: {"Allow": "/logs" not in told["RequestUri"], "Msg": "no logs"}
    assert "no logs" in engine.docker("logs", "-f", "one", check=False).stderr
    guard.answers[RESPONSE] = allow
    assert engine.docker("exec", "one", "ls", "/ran", check=False).returncode != 0, "it never ran"
    assert engine.docker("exec", "one", "echo", "ok").stdout == "ok\n"


def test_a_chain_asks_in_order_and_all_must_allow(guarded: Callable[..., Engine], guards: Guards) -> None:
    engine = guarded("one", "two")
    one, two = guards.plugins["one"], guards.plugins["two"]
    assert engine.docker("info", "--format", "{{.Plugins.Authorization}}").stdout == "[one two]\n"
    two.answers[REQUEST] = lambda told: {"Allow": "x=2" not in told["RequestUri"], "Msg": "two says no"}
    one.answers[REQUEST] = lambda told: {"Allow": "x=1" not in told["RequestUri"], "Msg": "one says no"}
    assert engine.http("GET", "/info?x=1").message == "authorization denied by plugin one: one says no"
    assert engine.http("GET", "/info?x=2").message == "authorization denied by plugin two: two says no"
    assert engine.http("GET", "/info?x=3").status == 200
    assert len(shown(one, REQUEST, "x=2")) == 1
    assert shown(two, REQUEST, "x=1") == []
    assert engine.http("GET", "/_ping?x=2").status == 403, "as with dockerd, the ping needs leave too"


def test_a_plugin_that_is_dead_or_broken_denies(guarded: Callable[..., Engine], guards: Guards) -> None:
    engine = guarded("guard")
    guard = guards.plugins["guard"]
    for answer in (Raw(b"rubbish"), Raw(b'{"Allow": "perhaps"}'), Raw(b"[]"), Raw(b"no", 500)):
        guard.answers[REQUEST] = lambda told, answer=answer: answer
        denied = engine.http("GET", "/volumes")
        assert denied.status == 500
        assert denied.message.startswith("plugin guard failed with error: ")
    guard.answers[REQUEST] = lambda told: Raw(b'{"Allow": true, "Err": "on fire"}')
    assert "on fire" in engine.http("GET", "/volumes").message
    guard.close()
    denied = engine.http("GET", "/volumes")
    assert denied.status == 500
    assert denied.message.startswith("plugin guard failed with error: ")
    assert "cannot be reached" in denied.message
    guards.add("guard")
    eventually(lambda: engine.http("GET", "/volumes").status == 200, timeout=15)


def test_a_plugin_that_hangs_denies_in_time(guarded: Callable[..., Engine], guards: Guards) -> None:
    engine = guarded("guard")
    guard = guards.plugins["guard"]
    guard.answers[REQUEST] = lambda told: time.sleep(13) or {"Allow": True}
    began = time.monotonic()
    denied = engine.http("GET", "/volumes", timeout=30)
    assert time.monotonic() - began < 12
    assert denied.status == 500
    assert "no answer within 10 s" in denied.message
    guard.answers[REQUEST] = allow


def test_a_plugin_that_asks_the_engine_while_it_answers(guarded: Callable[..., Engine], guards: Guards) -> None:
    engine = guarded("guard")
    guard = guards.plugins["guard"]

    def curious(told: dict[str, Any]) -> Any:
        status = engine.http("GET", "/version", timeout=20).status
        return {"Allow": status == 200, "Msg": f"the engine answered {status}"}

    guard.answers[REQUEST] = curious
    began = time.monotonic()
    assert engine.http("GET", "/info", timeout=20).status == 403
    assert time.monotonic() - began < 9
    guard.answers[REQUEST] = allow
    assert engine.http("GET", "/info").status == 200


def test_sighup_changes_the_chain(guarded: Callable[..., Engine], guards: Guards) -> None:
    engine = guarded()
    config = engine.root / "daemon.json"
    assert engine.http("GET", "/volumes").status == 200
    config.write_text('{"authorization-plugins": ["late"]}')
    engine.signal(signal.SIGHUP)
    denied = eventually(lambda: (answer := engine.http("GET", "/volumes")).status == 500 and answer)
    assert 'plugin late failed with error: plugin "late" not found' in denied.message
    assert "SIGHUP" in denied.message
    # What could mend it gets as far as its route; all else does not.
    assert engine.http("POST", "/plugins/late/enable").status == 404
    assert engine.http("GET", "/_ping").status == 200
    assert engine.http("POST", "/plugins/late/disable").status == 500
    late = guards.add("late")
    assert engine.http("GET", "/volumes").status == 200
    assert shown(late, REQUEST, "/volumes")


def test_not_even_the_first_request_passes_unseen(guarded: Callable[..., Engine], guards: Guards) -> None:
    """The API opens early, and answers the ping before other plugins have started; the chain stands by then."""
    engine = guarded("guard")
    for _ in range(2):
        guards.plugins["guard"].answers[REQUEST] = lambda told: {"Allow": False, "Msg": "closed"}
        engine.kill9()
        engine.spawn()
        answers = []
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline and len(answers) < 30:
            try:
                answers.append(engine.http("GET", "/_ping", timeout=5))
            except OSError:
                time.sleep(0.001)
        assert len(answers) == 30
        assert {answer.status for answer in answers} == {403}
        guards.plugins["guard"].answers[REQUEST] = allow


def test_a_managed_plugin_guards_and_is_held_by_the_setting(
    guarded: Callable[..., Engine], guards: Guards, tmp_path: Path
) -> None:
    name = "me/guard:1.0"
    folder = make_answering(tmp_path / "plugin", "docker.authz/1.0")
    engine = guarded()
    config = engine.root / "daemon.json"

    def configure(*names: str) -> None:
        config.write_text(json.dumps({"authorization-plugins": list(names)}))
        mark = engine.mark()
        engine.signal(signal.SIGHUP)
        eventually(lambda: "'authz' took new settings" in engine.log(mark))

    engine.docker("plugin", "create", name, folder)
    configure(name)
    denied = engine.http("GET", "/volumes")
    assert denied.status == 500
    assert "disabled" in denied.message
    assert f"docker plugin enable {name}" in denied.message
    engine.docker("plugin", "enable", name)
    assert engine.http("GET", "/volumes").status == 200
    denied = engine.http("GET", "/volumes?filters=denyme")
    assert denied.message == f"authorization denied by plugin {name}: the managed plugin objects"

    held = engine.docker("plugin", "disable", name, check=False)
    assert "setting authorization-plugins" in held.stderr
    assert engine.http("GET", "/volumes").status == 200
    engine.docker("plugin", "disable", "-f", name)
    assert engine.http("GET", "/volumes").status == 500, "what the operator configured is not switched off by a client"
    engine.docker("plugin", "enable", name)
    assert engine.http("GET", "/volumes").status == 200

    engine.restart()
    eventually(lambda: engine.http("GET", "/volumes").status == 200)
    assert engine.http("GET", "/volumes?filters=denyme").status == 403
    configure()
    engine.docker("plugin", "disable", name)
    engine.docker("plugin", "rm", name)
