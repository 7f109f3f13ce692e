"""An image's file system as a plugin's: for plugins in any language, built with whatever builds images."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from kernel.errors import InvalidParameter
from plugin_sdk.authoring.build import furnish, settle, staged, write_config
from plugin_sdk.authoring.project import field, read_config, with_field

_OF_IMAGES = ("manifest.json", "index.json", "oci-layout")


def build(folder: Path, out: Path, archive: IO[bytes], image: Mapping[str, Any]) -> list[str]:
    """Build a plugin from `folder`/config.json and an exported file system; gives the interface types.

    Args:
        archive: a tar as of `docker export`.
        image: the `Config` of the image, {} if it is not known: gives entrypoint, working folder and environment where
            config.json has none.

    Raises:
        InvalidParameter: config.json cannot be, or is missing; the archive is no file system, or leads out of itself.
        Conflict: `out` holds something else than a plugin.
    """
    if not (folder / "config.json").is_file():
        raise InvalidParameter(f"{folder} has no config.json: it says what the plugin is; an image cannot")
    config = _completed(read_config(folder), image)
    if not field(config, "entrypoint", []):
        raise InvalidParameter("config.json has no entrypoint, and none is known of the image")
    with staged(out) as stage:
        rootfs = stage / "rootfs"
        rootfs.mkdir()
        write_config(stage, config)
        _extract(archive, rootfs)
        furnish(rootfs, config)
        settle(stage, modes=False)
    return list(field(field(config, "interface", {}), "types", []))


def _completed(config: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    done = dict(config)
    words = [*(image.get("Entrypoint") or ()), *(image.get("Cmd") or ())]
    if words and not field(config, "entrypoint", []):
        done = with_field(done, "entrypoint", words)
    if image.get("WorkingDir") and not field(config, "workdir", ""):
        done = with_field(done, "workdir", image["WorkingDir"])
    have = field(config, "env", [])
    names = {field(entry, "name", "") for entry in have}
    pairs = [text.partition("=") for text in image.get("Env") or ()]
    more = [{"name": name, "value": value} for name, _, value in pairs if name not in names and name != "PATH"]
    return with_field(done, "env", [*have, *more]) if more else done


def _extract(archive: IO[bytes], rootfs: Path) -> None:
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as tar:
            for member in tar:
                if member.name in _OF_IMAGES:
                    raise InvalidParameter(
                        "this is an image's archive (docker save); want a file system (docker export)"
                    )
                if member.ischr() or member.isblk():
                    # The engine makes its own in /dev.
                    continue
                tar.extract(member, rootfs, filter=_within)
    except (tarfile.TarError, EOFError) as error:
        raise InvalidParameter(f"the archive cannot be read: {error}") from None


def _within(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Refuses what would be written or linked outside; keeps modes and owners, as root."""
    kept = tarfile.tar_filter(member, folder)
    if member.islnk():
        target = os.path.realpath(os.path.join(folder, member.linkname.lstrip("/")))
        if os.path.commonpath((target, os.path.realpath(folder))) != os.path.realpath(folder):
            raise tarfile.OutsideDestinationError(member, target)
    return kept.replace(mode=member.mode, deep=False)
