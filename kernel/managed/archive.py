"""The tar that `plugin create` sends: `config.json` and `rootfs/`, and, from `plugin save`, `plugin.json`.

Nothing is unpacked here: `rootfs/` becomes a layer's tar, and the storage driver writes that as it writes any layer.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from kernel.errors import InvalidParameter
from kernel.managed.schema import MAX_BYTES

CONFIG = "config.json"
ROOTFS = "rootfs"
LABEL = "plugin.json"

_OWN_HEADERS = ("path", "linkpath", "size")
"""What tarfile writes anew from the member; left in place, the old values would win."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The small files of an archive; `label` is b"" without a `plugin.json`."""

    config: bytes
    label: bytes = b""


def split(archive: BinaryIO, layer: BinaryIO) -> Contents:
    """Write what lies below `rootfs/` to `layer`, as a tar of a root file system. Blocking.

    Raises:
        InvalidParameter: no tar, an unsafe member, or `config.json` or `rootfs` is missing.
    """
    small: dict[str, bytes] = {}
    rooted = False
    try:
        with (
            tarfile.open(fileobj=archive, mode="r|*") as tar,
            tarfile.open(fileobj=layer, mode="w|", format=tarfile.PAX_FORMAT) as out,
        ):
            for member in tar:
                name = _safe(member.name)
                if name in (CONFIG, LABEL):
                    small[name] = _document(tar, member, name)
                elif name == ROOTFS:
                    if not member.isdir():
                        raise InvalidParameter(
                            f"the plugin archive holds {ROOTFS!r} as something other than a directory"
                        )
                    rooted = True
                elif name.startswith(f"{ROOTFS}/"):
                    rooted = True
                    _copy(tar, member, name, out)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidParameter(f"the plugin archive is no tar: {error}") from error
    if CONFIG not in small:
        raise InvalidParameter(f"the plugin archive has no {CONFIG}")
    if not rooted:
        raise InvalidParameter(f"the plugin archive has no {ROOTFS} directory")
    return Contents(small[CONFIG], small.get(LABEL, b""))


def _safe(name: str) -> str:
    parts = PurePosixPath(name.lstrip("/")).parts
    if ".." in parts:
        raise InvalidParameter(f"the plugin archive holds an unsafe path: {name!r}")
    return "/".join(parts)


def _document(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    file = tar.extractfile(member) if member.isreg() and member.size <= MAX_BYTES else None
    if file is None:
        raise InvalidParameter(f"{name} must be a regular file of at most {MAX_BYTES} bytes")
    return file.read()


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, out: tarfile.TarFile) -> None:
    member.name = name.removeprefix(f"{ROOTFS}/")
    if member.islnk():
        target = _safe(member.linkname)
        if not target.startswith(f"{ROOTFS}/"):
            raise InvalidParameter(
                f"the plugin archive links {name!r} to {member.linkname!r}, which is not in {ROOTFS}"
            )
        member.linkname = target.removeprefix(f"{ROOTFS}/")
    member.pax_headers = {key: value for key, value in member.pax_headers.items() if key not in _OWN_HEADERS}
    out.addfile(member, tar.extractfile(member) if member.isreg() else None)


def join(contents: Contents, layers: list[BinaryIO], out: BinaryIO) -> None:
    """The inverse of `split`: one archive out of the small files and the layers' tars, the lowest first. Blocking.

    A later layer's member stands behind an earlier one's of the same name, and wins when it is unpacked.
    """
    import io

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, raw in ((LABEL, contents.label), (CONFIG, contents.config)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(raw), 0o644
            tar.addfile(info, io.BytesIO(raw))
        root = tarfile.TarInfo(ROOTFS)
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(root)
        for layer in layers:
            with tarfile.open(fileobj=layer, mode="r|") as source:
                for member in source:
                    name = _safe(member.name)
                    if not name:
                        continue
                    member.name = f"{ROOTFS}/{name}"
                    if member.islnk():
                        member.linkname = f"{ROOTFS}/{_safe(member.linkname)}"
                    member.pax_headers = {
                        key: value for key, value in member.pax_headers.items() if key not in _OWN_HEADERS
                    }
                    tar.addfile(member, source.extractfile(member) if member.isreg() else None)
