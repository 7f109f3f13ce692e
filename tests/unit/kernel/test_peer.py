"""Plugins on a socket: the protocol, what goes wrong, and old-style discovery."""

import asyncio
import json
import socketserver
import threading
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import uvloop
from harness import OldStylePlugin, Raw, Refusal

from kernel.managed.peer import Address, Peer, Places
from plugin_sdk import DeadlineExceeded, EngineError, NotSupported, PluginError, PluginRefusal, Unavailable, Wire


class Reply(Wire):
    Mountpoint: str = ""
    Names: list[str] = []


@pytest.fixture
def plugin(tmp_path: Path) -> Any:
    with OldStylePlugin(tmp_path, "p", ["VolumeDriver"], {}) as served:
        yield served


@pytest.fixture
async def peer(plugin: OldStylePlugin, tmp_path: Path) -> AsyncIterator[Peer]:
    made = Peer("p", ["docker.volumedriver/1.0"], Address(plugin.socket), Places((tmp_path, "/shared")))
    yield made
    await made.close()


async def test_keys_are_folded_and_nulls_are_zero_values(plugin: OldStylePlugin, peer: Peer) -> None:
    plugin.answers["V.Path"] = lambda told: {"mountPOINT": f"/{told['Name']}", "names": None, "Err": "", "extra": 1}
    assert await peer.call("V.Path", {"Name": "x"}, Reply, deadline=5) == Reply(Mountpoint="/x")


async def test_no_arguments_is_an_empty_body_and_bytes_are_base64(plugin: OldStylePlugin, peer: Peer) -> None:
    plugin.answers["V.List"] = lambda told: Raw(b"")
    assert await peer.call("V.List", None, Reply, deadline=5) == Reply()
    await peer.call("V.List", {"Body": b"\0\1"}, Reply, deadline=5)
    assert plugin.called("V.List") == [{}, {"Body": "AAE="}]


def refuse(_: Any) -> Any:
    raise Refusal("disk full")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (refuse, PluginRefusal, "disk full"),
        (lambda _: {"err": "no such volume"}, PluginRefusal, "no such volume"),
        (lambda _: {"Error": "pool is gone"}, PluginRefusal, "pool is gone"),
        (lambda _: Raw(b"plain words\n", 500), PluginRefusal, "plain words"),
        (lambda _: Raw(b"", 404), NotSupported, "not implemented"),
        (lambda _: Raw(b"\x00\xff rubbish"), PluginError, "rubbish"),
        (lambda _: [1, 2], PluginError, "want an object"),
        (lambda _: {"Mountpoint": {"a": 1}}, PluginError, "Mountpoint"),
        (lambda _: Raw(json.dumps({"Mountpoint": "x" * (10 << 20)}).encode()), PluginError, "more than"),
        (lambda _: Raw(b"", 301), PluginRefusal, "301"),
    ],
)
async def test_what_goes_wrong_names_plugin_and_call(
    plugin: OldStylePlugin, peer: Peer, answer: Any, kind: type[EngineError], words: str
) -> None:
    plugin.answers["V.Mount"] = answer
    with pytest.raises(kind, match=words) as caught:
        await peer.call("V.Mount", {}, Reply, deadline=5)
    assert "'p'" in str(caught.value) and "V.Mount" in str(caught.value)


async def test_a_deadline_is_kept_and_repeated_misses_cut_the_plugin_off(plugin: OldStylePlugin, peer: Peer) -> None:
    plugin.answers["V.Mount"] = lambda _: time.sleep(3)
    for _ in range(3):
        with pytest.raises(DeadlineExceeded, match=r"V\.Mount: no answer within 0\.2 s"):
            await peer.call("V.Mount", {}, Reply, deadline=0.2)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="cut off"):
        await peer.call("V.Path", {}, Reply, deadline=5)
    assert time.monotonic() - began < 0.1
    peer.come_back()
    plugin.answers["V.Path"] = lambda _: {"Mountpoint": "/m"}
    assert (await peer.call("V.Path", {}, Reply, deadline=5)).Mountpoint == "/m"


async def test_a_plugin_that_is_gone(plugin: OldStylePlugin, peer: Peer) -> None:
    plugin.close()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await peer.call("V.Path", {}, Reply, deadline=5)


async def test_a_plugin_that_dies_in_the_middle(peer: Peer, tmp_path: Path) -> None:
    async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"Mount')
        writer.close()

    server = await asyncio.start_unix_server(die, tmp_path / "d.sock")
    peer.address = Address(tmp_path / "d.sock")
    with pytest.raises(Unavailable, match=r"V\.Mount: broke off"):
        await peer.call("V.Mount", {}, Reply, deadline=5)
    server.close()


async def test_calls_wait_for_a_plugin_that_is_being_restarted(plugin: OldStylePlugin, peer: Peer) -> None:
    plugin.answers["V.Path"] = lambda _: {"Mountpoint": "/m"}
    peer.leave("it is being restarted")
    asyncio.get_running_loop().call_later(0.2, peer.come_back)
    assert (await peer.call("V.Path", {}, Reply, deadline=5)).Mountpoint == "/m"
    peer.leave("it ended with 137 and is being restarted")
    with pytest.raises(Unavailable, match="ended with 137"):
        await peer.call("V.Path", {}, Reply, deadline=0.1)


async def test_streams(plugin: OldStylePlugin, peer: Peer) -> None:
    plugin.answers["L.Read"] = lambda _: Raw(b"abc" * 100_000)
    async with peer.stream("L.Read", {}, deadline=5) as pieces:
        assert b"".join([piece async for piece in pieces]) == b"abc" * 100_000


async def test_paths_stay_inside_the_plugin(tmp_path: Path) -> None:
    root, mounts = tmp_path / "rootfs", tmp_path / "mounts"
    (root / "data/v").mkdir(parents=True)
    (mounts / "v").mkdir(parents=True)
    (root / "out").symlink_to("/etc")
    (mounts / "up").symlink_to("../../../../etc")
    peer = Peer("p", (), Address(tmp_path / "s"), Places((tmp_path, "/s"), root, ("/mnt/state", mounts)))
    assert await peer.host_path("/data/v") == str(root / "data/v")
    assert await peer.host_path("/mnt/state/v") == str(mounts / "v")
    assert await peer.host_path("/mnt/state") == str(mounts)
    for bad in ("relative", "/no/such", "/out/passwd", "/mnt/state/up/passwd", "a\0b", ""):
        with pytest.raises(PluginError):
            await peer.host_path(bad)
    assert await peer.host_path("/data/../../../data/v") == str(root / "data/v")


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    """On the daemon's own event loop: asyncio's takes such a socket for connected."""

    class Narrow(socketserver.UnixStreamServer):
        request_queue_size = 1

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(0.02)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        def log_request(self, *_: Any) -> None:
            return

    with Narrow(str(tmp_path / "n.sock"), Slow) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

        async def ask() -> list[Reply]:
            narrow = Peer("n", (), Address(tmp_path / "n.sock"), Places((tmp_path, "/s")))
            answers = await asyncio.gather(*(narrow.call("V.Get", {}, Reply, deadline=20) for _ in range(12)))
            await narrow.close()
            return answers

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(ask()) == [Reply()] * 12
        server.shutdown()
