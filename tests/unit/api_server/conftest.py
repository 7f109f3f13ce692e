"""A server of its own for each test, on a loop in another thread, spoken to over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import uvloop
from fastapi import APIRouter, Query, Request, WebSocket
from fastapi.responses import Response, StreamingResponse
from harness.certificates import make_certificates

from plugin_sdk import NotFound, NotModified, Wire
from plugin_sdk.api import Denial, RequestView, ResponseView, RouterSpec
from plugin_sdk.http import Hijacked, abandon_with_client, body, hijack, progress, reply, spool
from plugins.api_server import listeners, tls
from plugins.api_server.app import Api
from plugins.api_server.leave import Guards
from plugins.api_server.plugin import common_headers
from plugins.api_server.routes import RouteTable
from plugins.api_server.server import Server

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Document(Wire):
    Name: str = ""
    Count: int = 0


class Running:
    """A server in a thread.

    Attributes:
        seen: what the routes noted.
        denial: what `engine_authorize` answers.
        inspect: what it awaits before.
        replies: what `engine_authorize_response` was shown.
        reply_denial: what it answers, or raises.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, certificates: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.certificates = certificates
        self.path = folder / "api.sock"
        self.tcp = 0
        self.tls = 0
        self.seen: list[str] = []
        self.views: list[RequestView] = []
        self.denial: Denial | None = None
        self.inspect: Callable[[RequestView], Any] | None = None
        self.replies: list[ResponseView] = []
        self.reply_denial: Denial | Exception | None = None
        self.late: APIRouter | None = None
        self.api: Api
        self.server: Server
        self._thread = threading.Thread(target=loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self.run(self._start)

    async def _start(self) -> None:
        async def authorize(view: RequestView) -> Denial | None:
            self.views.append(view)
            if self.inspect is not None:
                await self.inspect(view)
            return self.denial

        async def authorize_response(view: RequestView, response: ResponseView) -> Denial | None:
            self.replies.append(response)
            if isinstance(self.reply_denial, Exception):
                raise self.reply_denial
            return self.reply_denial

        self.api = Api(Guards(authorize, authorize_response), lambda: self.late is not None and self._grow())
        self.api.table = RouteTable([("test", RouterSpec(routes(self)))])
        self.api.starting = False
        self.server = Server(self.api, common_headers("9.9", experimental=False))
        context = tls.server_context(
            cert=str(self.certificates / "server.pem"),
            key=str(self.certificates / "server-key.pem"),
            ca=str(self.certificates / "ca.pem"),
        )
        unix = listeners.open_all([f"unix://{self.path}", "tcp://127.0.0.1:0"], tls=False, group="")
        secure = listeners.open_all(["tcp://127.0.0.1:0"], tls=True, group="")
        await self.server.serve([*unix, *secure], context)
        self.tcp, self.tls = (int(address.rpartition(":")[2]) for address in self.server.addresses()[1:])

    def _grow(self) -> bool:
        """A plugin with the routes of `late` has come."""
        late, self.late = self.late, None
        self.api.table = RouteTable([("test", RouterSpec(routes(self))), ("late", RouterSpec(late))])
        return True

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Await a coroutine function in the server's thread."""
        return asyncio.run_coroutine_threadsafe(function(*arguments), self.loop).result(20)

    def stop(self) -> None:
        self.run(self.server.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def connect(self, kind: str = "unix") -> socket.socket:
        if kind == "unix":
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.settimeout(10)
            client.connect(str(self.path))
            return client
        client = socket.create_connection(("127.0.0.1", self.tcp if kind == "tcp" else self.tls), timeout=10)
        return client if kind == "tcp" else self.client_context().wrap_socket(client, server_hostname="localhost")

    def client_context(self, *, certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.certificates / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.certificates / "client.pem", self.certificates / "client-key.pem")
        return context

    def ask(self, request: bytes, kind: str = "unix") -> bytes:
        """Everything that comes for one request on a connection of its own."""
        with self.connect(kind) as client:
            client.sendall(request)
            return read_all(client)

    def wait_for(self, note: str) -> None:
        """Until a route noted it."""
        for _ in range(200):
            if note in self.seen:
                return
            threading.Event().wait(0.02)
        pytest.fail(f"{note!r} was not noted; there is {self.seen}")


def read_all(client: socket.socket) -> bytes:
    """To the end."""
    parts = []
    while data := client.recv(65536):
        parts.append(data)
    return b"".join(parts)


def read_until(client: socket.socket, mark: bytes) -> bytes:
    """Up to what ends with `mark`."""
    got = b""
    while not got.endswith(mark):
        data = client.recv(1)
        assert data, f"the connection ended after {got!r}"
        got += data
    return got


def routes(running: Running) -> APIRouter:
    router = APIRouter()
    seen = running.seen

    @router.get("/small")
    async def small(request: Request) -> Response:
        return reply({"Version": ".".join(map(str, request.scope["engine.api_version"]))})

    @router.get("/named/{name:path}/json")
    async def named(request: Request, name: str, limit: Annotated[int, Query()] = 0) -> Response:
        return reply({"Name": name, "Limit": limit})

    @router.post("/document")
    async def document(request: Request) -> Response:
        return reply(await body(request, Document), 201)

    @router.post("/upload")
    async def upload(request: Request) -> Response:
        total = 0
        digest = hashlib.sha256()
        async for part in request.stream():
            total += len(part)
            digest.update(part)
        seen.append("uploaded")
        seen.append(digest.hexdigest())
        return reply({"Bytes": total})

    @router.post("/spooled")
    async def spooled(request: Request) -> Response:
        async with spool(request, running.folder) as file:
            return reply({"Bytes": len(file.read())})

    @router.get("/ticks")
    async def ticks(request: Request) -> Response:
        async def generate() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"tick\n"
                    await asyncio.sleep(0.05)
            finally:
                seen.append("ticks ended")

        return StreamingResponse(generate())

    @router.get("/silent")
    async def silent(request: Request) -> Response:
        async def generate() -> AsyncIterator[bytes]:
            try:
                await asyncio.sleep(60)
                yield b""
            finally:
                seen.append("silent ended")

        return StreamingResponse(generate())

    @router.post("/work")
    async def work(request: Request, abandon: bool = False) -> Response:
        if abandon:
            abandon_with_client(request)
        seen.append("work began")
        try:
            await asyncio.sleep(0.5)
            seen.append("work done")
        except asyncio.CancelledError:
            seen.append("work abandoned")
            raise
        return reply({})

    @router.post("/progress")
    async def report(request: Request, fail: str = "") -> Response:
        async def steps(tell: Any) -> None:
            if fail == "first":
                raise NotFound("nothing there")
            await tell({"status": "one"})
            if fail == "later":
                raise NotFound("gone meanwhile")

        return progress(steps)

    @router.get("/boom")
    async def boom(request: Request) -> Response:
        raise RuntimeError("a bug")

    @router.get("/file")
    async def file(request: Request) -> Response:
        raise FileNotFoundError("no such file")

    @router.get("/missing")
    async def missing(request: Request) -> Response:
        raise NotFound("No such thing: x")

    @router.get("/same")
    async def same(request: Request) -> Response:
        raise NotModified("nothing to do")

    @router.get("/broken")
    async def broken(request: Request) -> Response:
        async def generate() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("broke")

        return StreamingResponse(generate())

    @router.post("/echo")
    async def echo(request: Request) -> Response:
        stream = await hijack(request, "application/vnd.docker.multiplexed-stream")
        total = 0
        while data := await stream.read():
            total += len(data)
            await stream.write(data)
        await stream.write(b"bye %d" % total)
        await stream.end()
        return Hijacked()

    @router.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    @router.post("/flood")
    async def flood(request: Request, pieces: int = 100) -> Response:
        stream = await hijack(request)
        for _ in range(pieces):
            await stream.write(b"x" * 65536)
            seen.append("piece")
        await stream.end()
        return Hijacked()

    @router.post("/watch")
    async def watch(request: Request) -> Response:
        stream = await hijack(request)
        while await stream.read():
            pass
        seen.append("input ended")
        await stream.gone()
        seen.append("gone")
        return Hijacked()

    return router


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(params=list(LOOPS))
def running(request: pytest.FixtureRequest, tmp_path: Path, certificates: Path) -> Iterator[Running]:
    loop = LOOPS[request.param]()
    server = Running(loop, tmp_path, certificates)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def read() -> Callable[[socket.socket], bytes]:
    return read_all


@pytest.fixture
def until() -> Callable[[socket.socket, bytes], bytes]:
    return read_until
