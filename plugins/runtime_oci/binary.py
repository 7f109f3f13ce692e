"""A runtime's program: how to call it, what it is, and a sealed copy of it that starts faster.

crun and runc copy themselves at each start, lest a container overwrite the host's program through /proc/self/exe
(CVE-2019-5736), and execute the copy. They skip that when they already run from a sealed memfd, so the engine keeps one
such copy: it cannot be written by anybody. Where SELinux chooses domains by the program's label, the file itself runs.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plugin_sdk import NotSupported
from plugin_sdk.aio import Finished, blocking, run_blocking
from plugins.runtime_oci.security import selinux_enabled

log = logging.getLogger("engine.runtime_oci")

F_ADD_SEALS = 1033
ALL_SEALS = 0x0F  # no shrinking, growing, writing, nor further seals
MFD_EXEC = 0x10

CRUN, RUNC, OTHER = "crun", "runc", "other"

ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")}
"""All that monitors and runtimes inherit: nothing of the daemon's own environment belongs to them."""

VERSION_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Identification:
    """What `PROGRAM --version` says: `kind` is CRUN, RUNC or OTHER."""

    kind: str = OTHER
    version: str = ""
    commit: str = ""


class Binary:
    """One runtime's program.

    Attributes:
        path: as configured.
        arguments: put before the command, from `runtimeArgs`.
        root: folder for its state; one per engine.
    """

    def __init__(self, path: str, root: Path, arguments: Sequence[str] = ()) -> None:
        self.path = path
        self.root = root
        self.arguments = tuple(arguments)
        self.known = Identification()
        self._probe: asyncio.Task[Identification] | None = None
        self._sealed = -1
        self._sealed_of: tuple[int, ...] = ()
        self._sealing = threading.Lock()

    @property
    def present(self) -> bool:
        """The program exists."""
        return shutil.which(self.path) is not None

    async def identify(self) -> Identification:
        """What it is; asks the program once, and again only if it could not be asked."""
        if self._probe is None or (self._probe.done() and (self._probe.cancelled() or self._probe.exception())):
            self._probe = asyncio.create_task(blocking(self._identify), name=f"probe {self.path}")
        return await asyncio.shield(self._probe)

    def _identify(self) -> Identification:
        done = run_blocking([self.path, "--version"], env=ENVIRONMENT, timeout=VERSION_TIMEOUT)
        self.known = parse_version(done.stdout.decode(errors="replace"))
        self.program()
        return self.known

    def program(self) -> str:
        """What to execute: the sealed copy if there can be one, made anew when the file was replaced.

        Blocking for a moment when it makes one. Callable from any thread.

        Raises:
            NotSupported: it is not installed.
        """
        found = shutil.which(self.path)
        if found is None:
            raise NotSupported(f"the runtime program {self.path!r} is not installed")
        if self.known.kind == OTHER or selinux_enabled():
            return found
        status = os.stat(found)
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        with self._sealing:
            if identity != self._sealed_of:
                self._replace(_seal(found), identity)
        return f"/proc/{os.getpid()}/fd/{self._sealed}" if self._sealed >= 0 else found

    def _replace(self, descriptor: int, identity: tuple[int, ...]) -> None:
        old, self._sealed, self._sealed_of = self._sealed, descriptor, identity
        if old >= 0:
            os.close(old)

    def options(self, *, systemd: bool = False) -> list[str]:
        """Global options that come before the command."""
        return [*self.arguments, "--root", str(self.root), *(["--systemd-cgroup"] if systemd else [])]

    def run(
        self, command: Sequence[str], *, input: bytes | None = None, systemd: bool = False, timeout: float = 30.0
    ) -> Finished:
        """Run a command of the runtime to its end. Blocking."""
        argv = [self.program(), *self.options(systemd=systemd), *command]
        return run_blocking(argv, input=input, env=ENVIRONMENT, timeout=timeout)

    def close(self) -> None:
        """Let go of the copy; programs that run from it go on."""
        self._replace(-1, ())


def parse_version(text: str) -> Identification:
    """The output of `--version`: `crun version 1.8.1`, `commit: ...`; the same for runc."""
    found = re.match(r"(\S+) version (\S+)", text)
    if not found:
        return Identification(OTHER, text.strip().partition("\n")[0][:80])
    commit = re.search(r"^commit: (\S+)", text, re.MULTILINE)
    kind = found[1] if found[1] in (CRUN, RUNC) else OTHER
    return Identification(kind, found[2], commit[1] if commit else "")


def _seal(path: str) -> int:
    """A sealed copy in memory; -1 where the kernel or the program does not allow one."""
    with open(path, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return -1
        try:
            descriptor = _memfd(os.path.basename(path))
        except OSError as error:
            log.info("no sealed copy of %s, which then starts slower: %s", path, error)
            return -1
        try:
            size, offset = os.fstat(file.fileno()).st_size, 0
            while offset < size:
                offset += os.sendfile(descriptor, file.fileno(), offset, size - offset)
            fcntl.fcntl(descriptor, F_ADD_SEALS, ALL_SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)  # before Linux 6.3 all of them are executable
