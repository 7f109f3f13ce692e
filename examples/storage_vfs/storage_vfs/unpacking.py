"""An archive onto a tree. Blocking. Archives are hostile: nothing outside the tree is ever touched.

Every path is resolved by the kernel below the tree's root (`plugin_sdk.rootfs`), and its last part is used by name in the folder
that was found, never followed.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from decimal import Decimal
from pathlib import Path

from plugin_sdk import InvalidParameter
from plugin_sdk.rootfs import make_folders, open_in_root, open_parent

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
XATTR = "SCHILY.xattr."
_BLOCK = 512
_CHUNK = 1 << 20


def unpack(archive: Path, tree: Path) -> int:
    """Whiteouts first, for they hide what lies below and nothing of this layer; then all else. Gives the files' bytes.

    Raises InvalidParameter: no tar, or one with unsafe or impossible members.
    """
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tarfile.open(archive, "r:", encoding="utf-8", errors="surrogateescape") as tar:
            members = tar.getmembers()
            _check_end(archive, tar.offset)
            for member in members:
                _hide(root, member)
            folders: list[tarfile.TarInfo] = []
            size = 0
            for member in members:
                if not _is_whiteout(member):
                    _put(root, tar, member, folders)
                    size += member.size if member.isreg() else 0
            for folder in reversed(folders):
                _set_time(root, folder)
            return size
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InvalidParameter(f"the layer is no sound tar: {error}") from error
    except OSError as error:
        raise InvalidParameter(f"the layer cannot be unpacked: {error}") from error
    finally:
        os.close(root)


def _check_end(archive: Path, offset: int) -> None:
    # tarfile takes a damaged header for the archive's end.
    with archive.open("rb") as file:
        file.seek(offset)
        if file.read(_BLOCK).strip(b"\0"):
            raise InvalidParameter("the layer is no sound tar: it goes on with what is no member")


def _split(name: str) -> tuple[str, str]:
    """(folder, last part); refuses what climbs."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidParameter(f"the layer holds an unsafe path: {name!r}")
    return "/".join(parts[:-1]), parts[-1] if parts else ""


def _is_whiteout(member: tarfile.TarInfo) -> bool:
    return member.name.rstrip("/").rpartition("/")[2].startswith(WHITEOUT)


def _hide(root: int, member: tarfile.TarInfo) -> None:
    if not _is_whiteout(member):
        return
    folder, name = _split(member.name)
    hidden = name.removeprefix(WHITEOUT)
    if hidden in ("", ".", ".."):
        raise InvalidParameter(f"the layer holds an unsafe whiteout: {member.name!r}")
    if hidden.startswith(WHITEOUT) and name != OPAQUE:
        return  # aufs's own bookkeeping
    try:
        place = open_in_root(root, folder or "/", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        for each in os.listdir(place) if name == OPAQUE else [hidden]:
            _remove(place, each)
    finally:
        os.close(place)


def _remove(place: int, name: str) -> None:
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=place)
        else:
            os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        return


def _put(root: int, tar: tarfile.TarFile, member: tarfile.TarInfo, folders: list[tarfile.TarInfo]) -> None:
    folder, name = _split(member.name)
    if not name:
        if not member.isdir():
            raise InvalidParameter("the layer holds its root as something else than a folder")
        _dress(os.open(f"/proc/self/fd/{root}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), member)
        return
    place = make_folders(root, folder)
    try:
        if member.isdir():
            _make_folder(place, name)
            folders.append(member)
        else:
            _remove(place, name)
            _make_other(root, place, name, tar, member)
        if member.islnk():
            return
        if member.issym():
            os.chown(name, member.uid, member.gid, dir_fd=place, follow_symlinks=False)
            os.utime(name, ns=_times(member), dir_fd=place, follow_symlinks=False)
            return
        _dress(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place), member)
    finally:
        os.close(place)


def _make_folder(place: int, name: str) -> None:
    try:
        os.mkdir(name, dir_fd=place)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            _remove(place, name)
            os.mkdir(name, dir_fd=place)


def _make_other(root: int, place: int, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if member.isreg():
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=place), "wb") as file:
            content = tar.extractfile(member)
            assert content is not None
            shutil.copyfileobj(content, file, _CHUNK)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=place)
    elif member.islnk():
        _link(root, place, name, member)
    elif member.isfifo():
        os.mkfifo(name, dir_fd=place)
    elif member.isdev():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=place)
    else:
        raise InvalidParameter(f"the layer holds {member.name!r} of the unknown type {member.type!r}")


def _link(root: int, place: int, name: str, member: tarfile.TarInfo) -> None:
    _split(member.linkname)
    target, last = open_parent(root, member.linkname)
    try:
        if stat.S_ISDIR(os.stat(last, dir_fd=target, follow_symlinks=False).st_mode):
            raise InvalidParameter(f"the layer links {member.name!r} to a folder")
        os.link(last, name, src_dir_fd=target, dst_dir_fd=place, follow_symlinks=False)
    finally:
        os.close(target)


def _dress(descriptor: int, member: tarfile.TarInfo) -> None:
    """Owner, attributes, mode, times: in this order, since a new owner clears set-uid bits. Closes the descriptor."""
    path = f"/proc/self/fd/{descriptor}"
    try:
        os.chown(path, member.uid, member.gid)
        for key, value in member.pax_headers.items():
            if key.startswith(XATTR) and not key.startswith(f"{XATTR}trusted.overlay."):
                os.setxattr(path, key.removeprefix(XATTR), value.encode("utf-8", "surrogateescape"))
        os.chmod(path, stat.S_IMODE(member.mode))
        os.utime(path, ns=_times(member))
    finally:
        os.close(descriptor)


def _set_time(root: int, member: tarfile.TarInfo) -> None:
    """Again, now that nothing more is put into the folder; it may have been replaced since."""
    try:
        place, name = open_parent(root, member.name)
    except OSError:
        return
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            os.utime(name, ns=_times(member), dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return
    finally:
        os.close(place)


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    said = member.pax_headers.get("mtime")
    moment = int(Decimal(said) * 10**9) if said else int(member.mtime) * 10**9
    return moment, moment
