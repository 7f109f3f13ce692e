"""Tars made member by member, sound ones and hostile ones."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

FOLDER, HARD_LINK, SYMBOLIC_LINK = b"5", b"1", b"2"
END = bytes(1024)


def member(name: str, content: bytes = b"", kind: bytes = b"0", **more: Any) -> bytes:
    """One member in pax format.

    Args:
        kind: tar's type flag.
        more: mode, uid, gid, mtime (seconds), link, xattrs (name to bytes).
    """
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    info.mode = more.get("mode", 0o755 if kind == FOLDER else 0o644)
    info.uid, info.gid, info.mtime = more.get("uid", 0), more.get("gid", 0), more.get("mtime", 0)
    info.linkname = more.get("link", "")
    info.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in more.get("xattrs", {}).items()
    }
    raw = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return raw + content + bytes(-len(content) % 512)


def whiteout(path: str) -> bytes:
    """The member that hides `path` of the layers below."""
    folder, slash, name = path.rpartition("/")
    return member(f"{folder}{slash}.wh.{name}")


def opaque(folder: str) -> bytes:
    """The member that hides all that the layers below hold in `folder`."""
    return member(f"{folder}/.wh..wh..opq" if folder else ".wh..wh..opq")


def archive(*members: bytes) -> bytes:
    """A whole tar."""
    return b"".join(members) + END


def digest(raw: bytes) -> str:
    """ "sha256:..."."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def names(raw: bytes) -> set[str]:
    """What a tar holds, without leading and final slashes."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {info.name.removeprefix("./").strip("/") for info in tar} - {"", "."}
