"""Records over sockets: byte for byte, and what is known when the other side goes away."""

from __future__ import annotations

import array
import asyncio
import mmap
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from harness.certificates import make_certificates

from plugin_sdk import InvalidParameter, Unavailable
from plugins.log_shipping import datagrams, streams
from plugins.log_shipping.datagrams import DatagramLink
from plugins.log_shipping.links import Address, Progress, split
from plugins.log_shipping.streams import StreamLink
from plugins.log_shipping.tls import client_context

RECORDS = [b"%d " % number + bytes(range(256)) + b"x" * (number % 700) + b"\n" for number in range(3000)]


class Server:
    """Takes `limit` bytes (None: all) of each connection, not one more, then closes it or, with `hang`, reads no more."""

    def __init__(self, kind: str, folder: Path, context: ssl.SSLContext | None) -> None:
        self.limit: int | None = None
        self.hang = False
        self.received: list[bytearray] = []
        self._context = context
        if kind == "unix":
            self.address = Address("unix", path=str(folder / "s"))
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.address.path)
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = Address(kind, "127.0.0.1", self._listener.getsockname()[1])
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                made, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(made,), daemon=True).start()

    def _serve(self, made: socket.socket) -> None:
        try:
            if self._context is not None:
                made = self._context.wrap_socket(made, server_side=True)
            taken = bytearray()
            self.received.append(taken)
            limit = self.limit
            while limit is None or len(taken) < limit:
                data = made.recv(4096 if limit is None else min(4096, limit - len(taken)))
                if not data:
                    break
                taken += data
            if limit is not None and self.hang:
                self._held.append(made)
                return
        except OSError:
            pass
        made.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for made in self._held:
            made.close()
        self._thread.join(5)


@asynccontextmanager
async def serving(kind: str, folder: Path, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(kind, folder, context)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_streams_byte_for_byte(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as server:
        link, progress = StreamLink(server.address), Progress()
        await link.send(RECORDS, progress)
        await link.send(RECORDS, Progress())
        await link.close()
        await asyncio.sleep(0.05)
        assert progress.sent == len(RECORDS)
        assert [bytes(data) for data in server.received] == [b"".join(RECORDS) * 2]


async def test_tls_byte_for_byte_and_names(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server-key.pem")
    async with serving("tls", tmp_path, context) as server:
        link = StreamLink(server.address, lambda: client_context(ca=str(tmp_path / "ca.pem")))
        await link.send(RECORDS, Progress())
        await link.close()
        await asyncio.sleep(0.05)
        assert bytes(server.received[-1]) == b"".join(RECORDS)
        for security, name in (
            (lambda: client_context(ca=str(tmp_path / "other.pem")), ""),
            (lambda: client_context(ca=str(tmp_path / "ca.pem")), "elsewhere"),
        ):
            with pytest.raises(InvalidParameter, match="dial tls://127.0.0.1:.*: tls: "):
                await StreamLink(server.address, security, name).connect()
        await StreamLink(server.address, lambda: client_context(skip_verify=True)).connect()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_receiver_that_goes_away_in_the_middle(kind: str, tmp_path: Path) -> None:
    async with serving(kind, tmp_path) as server:
        server.limit = 100_000
        link, progress = StreamLink(server.address), Progress()
        with pytest.raises(Unavailable, match="write "):
            await link.send(RECORDS, progress)
        server.limit = None
        await link.send(RECORDS[progress.sent :], Progress())
        await link.close()
        await asyncio.sleep(0.05)
        first, second = map(bytes, server.received)
        # Nothing is missing between what the first connection took and what the second brought.
        everything = b"".join(RECORDS)
        assert everything.startswith(first)
        assert everything.endswith(second)
        assert len(first) + len(second) >= len(everything)


async def test_a_receiver_that_takes_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALL_DEADLINE", 0.3)
    async with serving("unix", tmp_path) as server:
        server.limit, server.hang = 1000, True
        link, progress = StreamLink(server.address), Progress()
        begun = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match="took nothing|timed out"):
            await link.send(RECORDS, progress)
        assert asyncio.get_running_loop().time() - begun < 3
        assert progress.sent < len(RECORDS)


async def test_a_receiver_that_has_read_all_is_sent_nothing_twice(tmp_path: Path) -> None:
    async with serving("tcp", tmp_path) as server:
        link, progress = StreamLink(server.address), Progress()
        await link.send(RECORDS[:10], progress)
        server.limit = len(b"".join(RECORDS[:20]))
        await link.send(RECORDS[10:20], Progress())
        await link.close()
        # It closed the connection; the next record goes over another.
        server.limit = None
        await link.send(RECORDS[20:30], Progress())
        await link.close()
        await asyncio.sleep(0.05)
        assert b"".join(map(bytes, server.received)) == b"".join(RECORDS[:30])


async def test_a_cancelled_send_tells_how_far_it_came(tmp_path: Path) -> None:
    async with serving("tcp", tmp_path) as server:
        server.limit, server.hang = 50_000, True
        link, progress = StreamLink(server.address), Progress()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await link.send(RECORDS * 20, progress)
        assert 0 < progress.sent < len(RECORDS) * 20
        server.limit = None
        await link.send([b"again"], Progress())
        await link.close()


async def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match=f"dial tcp://127.0.0.1:{port}: connect: connection refused"):
        await StreamLink(Address("tcp", "127.0.0.1", port)).connect()
    with pytest.raises(Unavailable, match="dial unix:///nowhere: connect: no such file or directory"):
        await StreamLink(Address("unix", path="/nowhere")).connect()
    with pytest.raises(Unavailable, match=r"dial tcp://nowhere\.invalid:1: connect: "):
        await StreamLink(Address("tcp", "nowhere.invalid", 1)).connect()
    with pytest.raises(Unavailable, match=r"dial udp://nowhere\.invalid:1: connect: "):
        await DatagramLink(Address("udp", "nowhere.invalid", 1)).connect()


async def test_local_datagrams_wait_for_a_slow_reader(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.setblocking(False)
        link, progress = DatagramLink(Address("unixgram", path=path)), Progress()
        sending = asyncio.create_task(link.send(RECORDS, progress))
        await asyncio.sleep(0.2)
        # The queue of such a socket is short: the sender waits, and the loop goes on.
        assert not sending.done()
        assert 0 < progress.sent < len(RECORDS)
        loop = asyncio.get_running_loop()
        received = [await loop.sock_recv(server, 1 << 16) for _ in RECORDS]
        await sending
        assert received == RECORDS
        await link.close()


async def test_a_datagram_socket_that_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "STALL_DEADLINE", 0.3)
    path = tmp_path / "s"
    link = DatagramLink(Address("unixgram", path=str(path)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        await link.send(RECORDS[:1], Progress())
        with pytest.raises(Unavailable, match="took nothing"):
            await link.send(RECORDS, Progress())
        await link.connect()
    with pytest.raises(Unavailable, match="write unixgram:"):
        await link.send(RECORDS[:1], Progress())
    with pytest.raises(Unavailable, match="dial unixgram:"):
        await link.send(RECORDS[:1], Progress())
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        await link.send([b"again"], Progress())
        assert server.recv(100) == b"again"
    await link.close()


async def test_a_datagram_that_is_too_large_goes_by_memory(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    big = os.urandom(20 << 20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        link = DatagramLink(Address("unixgram", path=path), by_memory=True)
        await link.send([big], Progress())
        data, ancillary, _, _ = server.recvmsg(100, 100)
        assert data == b""
        [descriptor] = array.array("i", ancillary[0][2])
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as memory:
            assert memory[:] == big
        # Sealed: nobody can change what the reader looks at.
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 1)
        os.close(descriptor)
        await link.close()
        with pytest.raises(Unavailable, match="[Mm]essage too long"):
            await DatagramLink(Address("unixgram", path=path)).send([big], Progress())


async def test_udp_notices_that_nobody_listens() -> None:
    loop = asyncio.get_running_loop()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    address = Address("udp", "127.0.0.1", server.getsockname()[1])
    link = DatagramLink(address)
    await link.send([b"one", b"two"], Progress())
    server.close()
    progress = Progress()
    with pytest.raises(Unavailable, match="write udp:.*refused"):
        await link.send(RECORDS, progress)
    assert progress.sent == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setblocking(False)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        server.bind((address.host, address.port))
        taking = asyncio.gather(*[_take(loop, server, 500)])
        await link.send(RECORDS[:500], Progress())
        [received] = await taking
        assert received == RECORDS[:500]
    await link.close()


async def test_udp_tries_the_other_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

        async def both(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(loop, "getaddrinfo", both)
        link = DatagramLink(Address("udp", "both", port))
        with pytest.raises(Unavailable, match="refused"):
            await link.send([b"one"], Progress())
        await link.send([b"one"], Progress())
        assert server.recv(100) == b"one"
        await link.close()


async def _take(loop: asyncio.AbstractEventLoop, server: socket.socket, count: int) -> list[bytes]:
    return [await loop.sock_recv(server, 1 << 16) for _ in range(count)]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("udp://a:b:c", "invalid port"),
        ("tcp://x:y", 'parse "tcp://x:y": invalid port ":y" after host'),
        ("tcp://x:99999", "port 99999 is out of range"),
        ("tcp://[::1", 'parse "tcp://\\[::1": '),
    ],
)
def test_addresses_that_are_none(address: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        split(address)


def test_files_of_tls(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    with pytest.raises(InvalidParameter, match="Could not read CA certificate"):
        client_context(ca=str(bad))
    with pytest.raises(InvalidParameter, match="Could not read CA certificate '/nowhere': No such file"):
        client_context(ca="/nowhere")
    with pytest.raises(InvalidParameter, match="Could not load X509 key pair"):
        client_context(certificate=str(bad), key=str(bad))
