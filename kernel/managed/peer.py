"""The other end of a plugin's socket: Docker's plugin protocol over HTTP; fulfils `contracts.managed.PluginPeer`.

Source of the protocol facts: Docker's "Plugin API" and the behaviour of plugins in use. Requests carry `Accept` and no
`Content-Type`; answers may be chunked, lack a content type, or be empty.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import ValidationError

from kernel.contracts.common import Wire
from kernel.contracts.managed import REPLY_LIMIT
from kernel.errors import DeadlineExceeded, EngineError, NotSupported, PluginError, PluginRefusal, Unavailable

if TYPE_CHECKING:
    import ssl

    import aiohttp

W = TypeVar("W", bound=Wire)

ACCEPT = "application/vnd.docker.plugins.v1.2+json"
UNIX_HOST = "plugin.moby.localhost"
CONNECT_DEADLINE = 2.0
"""Seconds within which a socket takes a connection."""
REFUSALS = 3
"""Calls in a row that could not reach the plugin, or got no answer in time, after which it is cut off."""
CUT_OFF = 5.0
"""Seconds for which a plugin is cut off; then one call tries again."""
BACKLOG_PAUSE = 0.002
"""Seconds until a plugin whose queue of connections is full is tried again; they double, a few times."""
AWAY_PATIENCE = 10.0
"""Seconds that a call waits for a plugin that is being restarted."""
ERROR_TEXT = 4096

log = logging.getLogger("engine.managed")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a plugin listens.

    Attributes:
        socket: path of a unix socket; None: `url`.
        url: "http://HOST:PORT" or "https://HOST:PORT".
        tls: for https.
    """

    socket: Path | None = None
    url: str = ""
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"unix://{self.socket}" if self.socket else self.url


@dataclass(frozen=True, slots=True)
class Places:
    """Where a plugin's files lie on the host.

    Attributes:
        rootfs: None for a plugin that sees the host's files.
        propagated: (path inside, folder on the host) of its propagated mount.
        shared: folder that both see, and the plugin's path of it.
    """

    shared: tuple[Path, str]
    rootfs: Path | None = None
    propagated: tuple[str, Path] | None = None


class Peer:
    """See the module.

    Attributes:
        last_error: of the last call that failed, for people.
        failures: calls that failed since the peer was made.
        relocate: where it listens now, asked when it cannot be reached; None when nowhere. Blocking.
    """

    def __init__(self, name: str, interfaces: Sequence[str], address: Address, places: Places) -> None:
        self.name = name
        self.interfaces: Sequence[str] = tuple(interfaces)
        self.address = address
        self.last_error = ""
        self.failures = 0
        self.relocate: Callable[[], Address | None] | None = None
        self._places = places
        self._session: aiohttp.ClientSession | None = None
        self._starts = 0
        self._missed = 0
        self._cut_off_until = 0.0
        self._away = ""
        self._here = asyncio.Event()
        self._here.set()

    def leave(self, why: str) -> None:
        """The plugin's process is gone, for a while at least: calls wait for its return, `AWAY_PATIENCE` at most."""
        self._away = why
        self._here.clear()

    def come_back(self) -> None:
        """It answers again, and is another process."""
        self._away, self._missed = "", 0
        self._starts += 1
        self._here.set()

    # Calls

    async def call(self, method: str, arguments: Mapping[str, Any] | None, reply: type[W], *, deadline: float) -> W:
        """See `PluginPeer.call`."""
        async with self._answer(method, arguments, deadline, whole=True) as response:
            raw = await self._read(response, method)
        document = self._decoded(raw, method)
        if problem := _told_error(document):
            raise self._refused(method, problem)
        try:
            return reply.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the reply"
            raise self._failed(PluginError(self.name, method, f"answered rubbish: {where}: {first['msg']}")) from None

    @asynccontextmanager
    async def stream(
        self, method: str, arguments: Mapping[str, Any] | None, *, deadline: float
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """See `PluginPeer.stream`."""
        async with self._answer(method, arguments, deadline, whole=False) as response:
            yield self._pieces(response, method)

    async def ping(self, deadline: float) -> None:
        """Whether anybody takes connections. Raises Unavailable or DeadlineExceeded; does not count as a call."""
        path = self.address.socket
        try:
            async with asyncio.timeout(deadline):
                if path is not None:
                    _, writer = await asyncio.open_unix_connection(str(path))
                else:
                    from yarl import URL

                    url = URL(self.address.url)
                    _, writer = await asyncio.open_connection(url.host, url.port, ssl=self.address.tls)
        except TimeoutError:
            raise DeadlineExceeded(f"plugin {self.name!r} takes no connection on {self.address}") from None
        except OSError as error:
            raise Unavailable(
                f"plugin {self.name!r} cannot be reached on {self.address}: {error.strerror or error}"
            ) from None
        writer.close()

    async def close(self) -> None:
        """Let go of the connections; calls under way fail."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def _answer(
        self, method: str, arguments: Mapping[str, Any] | None, deadline: float, *, whole: bool
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """A response with status 200; `deadline` is for its body too when `whole`."""
        import aiohttp

        await self._ready(method, deadline)
        body = b"" if arguments is None else orjson.dumps(arguments, default=_encode)
        timeout = aiohttp.ClientTimeout(
            total=deadline if whole else None, sock_connect=min(CONNECT_DEADLINE, deadline), sock_read=deadline
        )
        try:
            async with asyncio.timeout(deadline) as timer:
                response = await self._post(method, body, timeout)
                if not whole:
                    timer.reschedule(None)
                async with response:
                    if response.status != 200:
                        await self._refuse(response, method)
                    self._missed = 0
                    yield response
        except TimeoutError:
            raise self._missing(DeadlineExceeded(self._say(method, f"no answer within {deadline:g} s"))) from None
        except aiohttp.ClientConnectorError as error:
            reason = getattr(error.os_error, "strerror", None) or error
            raise self._missing(
                Unavailable(self._say(method, f"cannot be reached on {self.address}: {reason}"))
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            said = str(error) or type(error).__name__
            raise self._missing(Unavailable(self._say(method, f"broke off the connection: {said}"))) from None

    async def _post(self, method: str, body: bytes, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """The response, whatever its status. Whoever calls sets the deadline."""
        import aiohttp

        moved, pause = False, BACKLOG_PAUSE
        while True:
            base = self.address.url or f"http://{UNIX_HOST}"
            try:
                return await self._connected().post(
                    f"{base}/{method}", data=body, timeout=timeout, allow_redirects=False
                )
            except aiohttp.ClientConnectorError as error:
                if error.os_error.errno == errno.EAGAIN:
                    # Not gone, but busy: the queue of connections that it has not yet taken is full (unix(7)).
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 100 * BACKLOG_PAUSE)
                elif not moved and self.relocate is not None and await self._moved(self.relocate):
                    moved = True
                else:
                    raise

    async def _moved(self, relocate: Callable[[], Address | None]) -> bool:
        """It listens elsewhere now: it was installed anew."""
        address = await asyncio.to_thread(relocate)
        if address is None or address == self.address:
            return False
        await self.close()
        self.address = address
        return True

    async def _ready(self, method: str, deadline: float) -> None:
        if self._away:
            try:
                async with asyncio.timeout(min(deadline, AWAY_PATIENCE)):
                    await self._here.wait()
            except TimeoutError:
                raise self._failed(Unavailable(self._say(method, self._away))) from None
        self._check_cut_off(method)

    def _connected(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            # A connection a call: a plugin that was restarted in between never meets a stale one.
            if self.address.socket is not None:
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                    str(self.address.socket), force_close=True, limit=0
                )
            else:
                connector = aiohttp.TCPConnector(ssl=self.address.tls or True, force_close=True, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"Accept": ACCEPT},
                skip_auto_headers=("Content-Type", "User-Agent"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse, method: str, limit: int = REPLY_LIMIT) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > limit:
                raise self._failed(PluginError(self.name, method, f"answered with more than {limit} bytes"))
            parts.append(part)
        return b"".join(parts)

    async def _pieces(self, response: aiohttp.ClientResponse, method: str) -> AsyncIterator[bytes]:
        import aiohttp

        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._missing(Unavailable(self._say(method, f"broke off its answer: {error}"))) from None

    def _decoded(self, raw: bytes, method: str) -> dict[str, Any]:
        if not raw.strip():
            return {}
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise self._failed(PluginError(self.name, method, f"answered rubbish: no JSON: {raw[:80]!r}")) from None
        if document is None:
            return {}
        if not isinstance(document, dict):
            raise self._failed(PluginError(self.name, method, f"answered rubbish: want an object, got {raw[:80]!r}"))
        return document

    async def _refuse(self, response: aiohttp.ClientResponse, method: str) -> None:
        if response.status == 404:
            raise NotSupported(self._say(method, "not implemented by the plugin"))
        raw = await self._read(response, method)
        text = ""
        try:
            document = orjson.loads(raw)
            text = _told_error(document) if isinstance(document, dict) else ""
        except orjson.JSONDecodeError:
            text = ""
        text = text or raw[:ERROR_TEXT].decode(errors="replace").strip() or f"status {response.status}"
        self._missed = 0
        raise self._refused(method, text)

    # What went wrong

    def _say(self, method: str, what: str) -> str:
        return f"plugin {self.name!r}: {method}: {what}"

    def _failed(self, error: EngineError) -> EngineError:
        self.failures += 1
        self.last_error = str(error)
        return error

    def _refused(self, method: str, text: str) -> EngineError:
        return PluginRefusal(self.name, method, text[:ERROR_TEXT])

    def _missing(self, error: EngineError) -> EngineError:
        self._missed += 1
        if self._missed >= REFUSALS:
            self._cut_off_until = time.monotonic() + CUT_OFF
        return self._failed(error)

    def _check_cut_off(self, method: str) -> None:
        if self._missed < REFUSALS:
            return
        left = self._cut_off_until - time.monotonic()
        if left > 0:
            raise Unavailable(self._say(method, f"cut off for {left:.0f} s more, since: {self.last_error}"))
        # One call tries; the others wait for what becomes of it.
        self._cut_off_until = time.monotonic() + CUT_OFF

    # Files

    async def host_path(self, path: str) -> str:
        """See `PluginPeer.host_path`."""
        if not path.startswith("/") or "\0" in path:
            raise self._failed(
                PluginError(self.name, "a path", f"answered {path!r:.200}, where an absolute path was due")
            )
        rootfs = self._places.rootfs
        return path if rootfs is None else await asyncio.to_thread(self._host_path, rootfs, path)

    def _host_path(self, root: Path, path: str) -> str:
        from kernel.rootfs import resolve_in_root

        places, rest = self._places, path
        if places.propagated is not None:
            inside, folder = places.propagated
            if path == inside or path.startswith(inside.rstrip("/") + "/"):
                root, rest = folder, path[len(inside.rstrip("/")) :] or "/"
        try:
            resolved = resolve_in_root(root, rest)
        except OSError as error:
            raise self._failed(
                PluginError(self.name, "a path", f"answered {path!r:.200}, which cannot be used: {error.strerror}")
            ) from None
        return str(root) if resolved in ("", "/") else f"{root}/{resolved.lstrip('/')}"

    def incarnation(self) -> str:
        """See `PluginPeer.incarnation`."""
        if self._places.rootfs is not None:
            return str(self._starts)
        try:
            status = os.stat(self.address.socket) if self.address.socket is not None else None
        except OSError:
            return ""
        return f"{status.st_ino}:{status.st_ctime_ns}" if status is not None else ""

    def endpoint(self) -> str:
        """See `PluginPeer.endpoint`."""
        return str(self.address)

    def shared_folder(self) -> tuple[Path, str]:
        """See `PluginPeer.shared_folder`."""
        return self._places.shared


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Wire):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


def _told_error(document: dict[str, Any]) -> str:
    """The text of `Err`, or of the IPAM protocol's `Error`."""
    for key, value in document.items():
        if key.lower() in ("err", "error") and isinstance(value, str) and value.strip():
            return value.strip()
    return ""
