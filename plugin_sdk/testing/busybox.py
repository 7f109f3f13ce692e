"""A root file system made of the host's busybox. Blocking."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

from kernel.errors import NotSupported

FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "var")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n"
_GROUP = "root:x:0:\ndaemon:x:1:\n"


def rootfs(folder: Path) -> Path:
    """Fill a new folder, and give it. Raises NotSupported where there is no busybox, or one that needs libraries."""
    program = shutil.which("busybox")
    if program is None:
        raise NotSupported("busybox is needed, linked statically: apt-get install busybox-static")
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    shutil.copy2(program, folder / "bin/busybox")
    listing = subprocess.run([program, "--list"], capture_output=True, text=True, check=True, timeout=20).stdout
    for applet in listing.split():
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text(_PASSWD)
    (folder / "etc/group").write_text(_GROUP)
    return folder


def archive(path: Path, scratch: Path) -> Path:
    """The same as a tar for `docker import`.

    Args:
        scratch: a folder that does not exist yet; removed afterwards.
    """
    try:
        rootfs(scratch)
        with tarfile.open(path, "w") as tar:
            tar.add(scratch, arcname=".", filter=_owned_by_root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return path


def _owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
