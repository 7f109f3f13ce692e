"""The init program of `--init`."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable

from plugin_sdk import NotSupported

CANDIDATES = ("docker-init", "tini-static", "catatonit", "tini")
_PT_INTERP = 3


def find_init(configured: str, candidates: Iterable[str] = CANDIDATES) -> str:
    """Path on the host of a program that runs in any root file system. Blocking.

    Raises:
        NotSupported: there is none, or only one that needs libraries; with the mend.
    """
    dynamic = ""
    for name in (configured,) if configured else candidates:
        path = shutil.which(name) or shutil.which(
            name, path="/usr/libexec/docker:/usr/local/libexec/docker:/usr/libexec/podman"
        )
        if path is None:
            continue
        if is_static(path):
            return path
        dynamic = path
    mend = "install the package tini or catatonit, or name one with --init-path"
    if dynamic:
        raise NotSupported(f"the init program {dynamic} needs shared libraries, which a container may lack: {mend}")
    if configured:
        raise NotSupported(f"the init program {configured!r} of --init-path is not there: {mend}")
    raise NotSupported(f"no init program found for --init (looked for {', '.join(candidates)}): {mend}")


def is_static(path: str) -> bool:
    """An ELF program without an interpreter. Source: elf(5)."""
    try:
        with open(path, "rb") as file:
            header = file.read(64)
            if header[:4] != b"\x7fELF" or header[4] != 2:
                return False
            order = "<" if header[5] == 1 else ">"
            (offset,) = struct.unpack_from(f"{order}Q", header, 0x20)
            size, count = struct.unpack_from(f"{order}HH", header, 0x36)
            file.seek(offset)
            table = file.read(size * count)
    except OSError:
        return False
    return all(struct.unpack_from(f"{order}I", table, index * size)[0] != _PT_INTERP for index in range(count))
