"""Where the API listens: `-H unix://`, `tcp://` and `fd://`."""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from plugin_sdk import Conflict, EngineError, InvalidParameter

DEFAULT_HOST = "unix:///var/run/docker.sock"
PORT, TLS_PORT = 2375, 2376
FIRST_PASSED = 3
"""First descriptor that systemd passes (sd_listen_fds(3))."""

_PATH_LIMIT = 107

log = logging.getLogger("engine.api_server")


@dataclass(slots=True)
class Listener:
    """One bound and listening socket.

    Attributes:
        address: as `ApiServer.addresses` shows it.
        tls: serve TLS here.
        path: of a Unix socket that we made.
        inode: of that file, which another daemon may have replaced meanwhile.
    """

    sock: socket.socket
    address: str
    tls: bool = False
    path: Path | None = None
    inode: int = 0

    def close(self) -> None:
        """Stop listening; a socket file goes, if it is still ours."""
        self.sock.close()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                if self.path.lstat().st_ino == self.inode:
                    self.path.unlink()


def open_all(hosts: list[str], *, tls: bool, group: str) -> list[Listener]:
    """Bind every `-H`, all or none.

    Raises:
        InvalidParameter: an address that cannot be.
        Conflict: another daemon listens there.
        EngineError: the system refuses.
    """
    opened: list[Listener] = []
    try:
        for host in hosts or [DEFAULT_HOST]:
            opened += _open(host, tls=tls, group=group)
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def _open(host: str, *, tls: bool, group: str) -> list[Listener]:
    scheme, separator, rest = host.strip().partition("://")
    if not separator:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "unix":
        return [_unix(Path(rest or DEFAULT_HOST.removeprefix("unix://")), group)]
    if scheme == "tcp":
        return [_tcp(rest, tls=tls)]
    if scheme == "fd":
        return _passed(rest, tls=tls)
    raise InvalidParameter(f"invalid -H {host!r}: want unix://PATH, tcp://HOST:PORT or fd://")


def _unix(path: Path, group: str) -> Listener:
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise InvalidParameter(f"invalid -H unix://{path}: a socket's path has at most {_PATH_LIMIT} bytes")
    if not path.is_absolute():
        raise InvalidParameter(f"invalid -H unix://{path}: want an absolute path")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # The mode of the unbound socket is that of the file to be: nobody can connect before its group is set.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        if (gid := _group(group)) is not None:
            os.chown(path, 0 if os.geteuid() == 0 else -1, gid)
        path.chmod(0o660)
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        sock.close()
        raise EngineError(f"cannot listen on unix://{path}: {error.strerror or error}") from None
    return Listener(sock, f"unix://{path}", path=path, inode=path.lstat().st_ino)


def _clear(path: Path) -> None:
    """Remove a socket file that a dead daemon left."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise Conflict(f"cannot listen on unix://{path}: it exists and is no socket; remove it, or give another -H")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise Conflict(f"cannot listen on unix://{path}: {error}") from None
    raise Conflict(f"cannot listen on unix://{path}: another daemon answers there; stop it, or give another -H")


def _group(name: str) -> int | None:
    if not name:
        return None
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        if name != "docker":
            raise InvalidParameter(f"--group {name}: there is no such group; make it with `groupadd {name}`") from None
        log.info("there is no group docker: the API's socket belongs to root alone")
        return None


def _tcp(rest: str, *, tls: bool) -> Listener:
    try:
        parts = urlsplit("//" + rest)
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError as error:
        raise InvalidParameter(f"invalid -H tcp://{rest}: {error}") from None
    if parts.path not in ("", "/") or parts.username is not None:
        raise InvalidParameter(f"invalid -H tcp://{rest}: want tcp://HOST:PORT")
    if port is None:
        port = TLS_PORT if tls else PORT
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise InvalidParameter(f"invalid -H tcp://{rest}: {error.strerror}") from None
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A client that vanishes while nothing is sent to it must be found out; Go's figures, which dockerd has.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.bind(where)
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"cannot listen on tcp://{rest}: the address is in use") from None
        raise EngineError(f"cannot listen on tcp://{rest}: {error.strerror or error}") from None
    name = sock.getsockname()
    shown = f"[{name[0]}]" if family == socket.AF_INET6 else name[0]
    if not tls:
        log.warning(
            "the API listens on tcp://%s:%d without TLS: whoever reaches it is root on this machine; use --tlsverify",
            shown,
            name[1],
        )
    return Listener(sock, f"tcp://{shown}:{name[1]}", tls=tls)


def _passed(rest: str, *, tls: bool) -> list[Listener]:
    """Sockets that systemd passed: all of them, or the descriptor that `rest` names."""
    count = os.environ.get("LISTEN_FDS", "0") if os.environ.get("LISTEN_PID") == str(os.getpid()) else "0"
    numbers = list(range(FIRST_PASSED, FIRST_PASSED + (int(count) if count.isdecimal() else 0)))
    if rest not in ("", "*"):
        if not rest.isdecimal() or int(rest) not in numbers:
            raise InvalidParameter(f"invalid -H fd://{rest}: systemd passed the descriptors {numbers or 'none'}")
        numbers = [int(rest)]
    if not numbers:
        raise InvalidParameter("no sockets found via socket activation: make sure the service was started by systemd")
    listeners = []
    for number in numbers:
        sock = socket.socket(fileno=os.dup(number))
        sock.setblocking(False)
        sock.set_inheritable(False)
        over_tcp = sock.family in (socket.AF_INET, socket.AF_INET6)
        listeners.append(Listener(sock, f"fd://{number}", tls=tls and over_tcp))
    return listeners
