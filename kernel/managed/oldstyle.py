"""Old-style plugins: a socket, a .spec or a .json file in a folder, activated at first use.

Source: Docker's "Plugin API", discovery: first hit wins. In each folder in turn sockets are looked for first, then
`.spec` (one URL) and `.json` (`{"Name", "Addr", "TLSConfig": {"InsecureSkipVerify", "CAFile", "CertFile", "KeyFile"}}`).
The file's name names the plugin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from kernel.contracts.common import Wire
from kernel.errors import InvalidParameter
from kernel.managed.interfaces import Interfaces
from kernel.managed.peer import Address, Peer, Places

ACTIVATE_SECONDS = 10.0
FILE_LIMIT = 64 << 10

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")

log = logging.getLogger("engine.managed")


class _Tls(Wire):
    InsecureSkipVerify: bool = False
    CAFile: str = ""
    CertFile: str = ""
    KeyFile: str = ""


class _Spec(Wire):
    Addr: str = ""
    TLSConfig: _Tls | None = None


class _Activation(Wire):
    Implements: list[str] = []


class OldStyle:
    """All old-style plugins of one engine.

    Args:
        folders: where to look, the first one first.
        shared: a folder under the exec root for FIFOs; these plugins see the host's files.
    """

    def __init__(self, folders: Sequence[Path], shared: Path, interfaces: Interfaces) -> None:
        self._folders, self._shared, self._interfaces = tuple(folders), shared, interfaces
        self._peers: dict[str, Peer] = {}
        self._activating: dict[str, asyncio.Task[Peer | None]] = {}

    async def activate(self, name: str) -> Peer | None:
        """The plugin of that name, connected; None when no folder has it. Several callers share one activation.

        Raises:
            EngineError: it is there and cannot be used, and this is why.
        """
        task = self._activating.get(name)
        if task is None:
            known = self._peers.get(name)
            if known is not None and self._interfaces.peer(name) is known:
                return known
            task = asyncio.create_task(self._activate(name), name=f"activate {name}")
            self._activating[name] = task
            task.add_done_callback(lambda _: self._activating.pop(name, None))
        return await asyncio.shield(task)

    async def names(self) -> list[str]:
        """All that lie in the folders, used or not."""
        return await asyncio.to_thread(self._names)

    def connected(self) -> Sequence[Peer]:
        """Those that were activated."""
        return [peer for name, peer in self._peers.items() if self._interfaces.peer(name) is peer]

    async def close(self) -> None:
        """Let go of all; they go on."""
        for name, peer in [*self._peers.items()]:
            await self._interfaces.disconnect(name)
            await peer.close()
        self._peers.clear()

    async def _activate(self, name: str) -> Peer | None:
        address = await asyncio.to_thread(self._find, name)
        if address is None:
            return None
        old = self._peers.get(name)
        if old is not None and old.address == address:
            peer = old
        else:
            peer = Peer(name, (), address, Places((self._shared, str(self._shared))))
            peer.relocate = lambda: self._find(name)
            self._peers[name] = peer
            if old is not None:
                await old.close()
        told = await peer.call("Plugin.Activate", None, _Activation, deadline=ACTIVATE_SECONDS)
        peer.interfaces = tuple(self._interfaces.of_legacy(told.Implements))
        log.info("old-style plugin %r on %s implements %s", name, address, ", ".join(told.Implements) or "nothing")
        await self._interfaces.connect(peer)
        return peer

    def _names(self) -> list[str]:
        found: set[str] = set()
        for folder in self._folders:
            for path in folder.glob("*") if folder.is_dir() else ():
                name = path.name if path.is_dir() else path.stem
                if _NAME.match(name) and self._find(name) is not None:
                    found.add(name)
        return sorted(found)

    def _find(self, name: str) -> Address | None:
        """Blocking. Raises InvalidParameter when a file says nothing usable."""
        if not _NAME.match(name):
            return None
        for folder in self._folders:
            for path in (folder / f"{name}.sock", folder / name / f"{name}.sock"):
                if _is_socket(path):
                    return Address(socket=path)
        for folder in self._folders:
            for kind, read in ((".spec", _read_spec), (".json", _read_json)):
                for path in (folder / f"{name}{kind}", folder / name / f"{name}{kind}"):
                    if path.is_file():
                        return read(path)
        return None


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT).decode(errors="replace").strip()
    except OSError as error:
        raise InvalidParameter(f"plugin file {path} cannot be read: {error.strerror}") from None


def _read_spec(path: Path) -> Address:
    return _address(path, _text(path), None)


def _read_json(path: Path) -> Address:
    try:
        spec = _Spec.model_validate(json.loads(_text(path)))
    except ValueError as error:
        raise InvalidParameter(f"plugin file {path} is not what it should be: {error}") from None
    try:
        tls = _context(spec.TLSConfig) if spec.TLSConfig is not None else None
    except (OSError, ssl.SSLError) as error:
        raise InvalidParameter(f"plugin file {path}: its TLSConfig cannot be used: {error}") from None
    return _address(path, spec.Addr, tls)


def _address(path: Path, text: str, tls: ssl.SSLContext | None) -> Address:
    parts = urlsplit(text)
    if parts.scheme == "unix" and (parts.path or parts.netloc):
        return Address(socket=Path(parts.netloc + parts.path))
    if not parts.scheme or not parts.hostname:
        raise InvalidParameter(f"plugin file {path}: {text!r} is no URL; want for example tcp://127.0.0.1:8080")
    # Anything but https is spoken as plain http, as Docker does; TLS settings mean https.
    secure = parts.scheme == "https" or tls is not None
    return Address(url=f"{'https' if secure else 'http'}://{parts.netloc}{parts.path.rstrip('/')}", tls=tls)


def _context(told: _Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=told.CAFile or None)
    if told.InsecureSkipVerify or not told.CAFile:
        # Without a CA there is nothing to verify against: Docker's rule.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if told.CertFile:
        context.load_cert_chain(told.CertFile, told.KeyFile or None)
    return context
