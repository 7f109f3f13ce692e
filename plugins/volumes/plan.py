"""What a container's options ask to be mounted: read, checked, and in one list. Nothing is touched here."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plugin_sdk import InvalidParameter
from plugin_sdk.containers import (
    BindMountOptions,
    ContainerConfig,
    ContainerRecord,
    HostConfig,
    Mount,
    MountPoint,
    TmpfsMountOptions,
    VolumeMountOptions,
)

from .modes import PROPAGATIONS, check_mode, tmpfs_options, tmpfs_words, valid_mode


@dataclass(frozen=True, slots=True)
class Planned:
    """One mount to be.

    Attributes:
        source: a path on the host, or a volume's name, "" for an anonymous one.
        must_exist: a bind's source is not made when it is missing.
        inherited: of `--volumes-from`.
    """

    type: str
    source: str
    target: str
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
    must_exist: bool = False
    nocopy: bool = False
    subpath: str = ""
    driver: str = ""
    driver_options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    inherited: MountPoint | None = None


Lookup = Callable[[str], ContainerRecord]


def plan(config: ContainerConfig, host: HostConfig, api_version: tuple[int, int], lookup: Lookup) -> list[Planned]:
    """All mounts but those of `HostConfig.Tmpfs`, which are checked here and mounted at the start.

    Args:
        lookup: gives the container of `--volumes-from`; raises NotFound.

    Raises:
        InvalidParameter: with dockerd's message.
    """
    found: dict[str, Planned] = {}
    for text in host.VolumesFrom:
        for mount in _volumes_from(text, lookup):
            found[mount.target] = mount
    named: set[str] = set()
    for target, options in host.Tmpfs.items():
        named.add(_check_target(target))
        tmpfs_options(options.split(","))
    asked = [_bind(text, host.VolumeDriver) for text in host.Binds]
    asked += [_mount(mount, host.VolumeDriver, api_version) for mount in host.Mounts]
    for mount in asked:
        if mount.target in named:
            raise InvalidParameter(f"Duplicate mount point: {mount.target}")
        named.add(mount.target)
        found[mount.target] = mount
    for text in config.Volumes:
        target = _clean(text if text.startswith("/") else f"/{text}")
        if target == "/":
            raise InvalidParameter("invalid specification: destination can't be '/'")
        if target not in found and target not in named:
            found[target] = Planned("volume", "", target, driver=host.VolumeDriver)
    return list(found.values())


def tmpfs_mounts(host: HostConfig) -> list[tuple[str, tuple[str, ...]]]:
    """(destination, options) of `HostConfig.Tmpfs`."""
    return [(_clean(target), tmpfs_options(options.split(","))) for target, options in host.Tmpfs.items()]


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def _check_target(path: str) -> str:
    if not path:
        raise InvalidParameter("field Target must not be empty")
    # normpath keeps "//"; the root is refused before relative paths, as dockerd does.
    if path.startswith("/") and _clean(path) == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    _check_absolute(path)
    return _clean(path)


def _check_absolute(path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")


def _volumes_from(text: str, lookup: Lookup) -> Sequence[Planned]:
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    name, _, mode = text.partition(":")
    words = check_mode(mode)
    if words - {"rw", "ro", "z", "Z"}:
        raise InvalidParameter(f"invalid mode: {mode}")
    return [
        Planned(
            mount.Type,
            mount.Name or mount.Source,
            mount.Destination,
            read_only="ro" in words or not mount.RW,
            propagation=mount.Propagation,
            nocopy=True,
            subpath=mount.Subpath,
            driver=mount.Driver,
            options=mount.Options,
            inherited=mount,
        )
        for mount in lookup(name).Mounts
        if mount.Type in ("bind", "volume")
    ]


def _bind(text: str, driver: str) -> Planned:
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and valid_mode(parts[1])):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        source, target, mode = "", parts[0], ""
    else:
        source, target, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    words = check_mode(mode)
    kind = "bind" if source.startswith("/") else "volume"
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    try:
        if kind == "bind" and "nocopy" in words:
            raise InvalidParameter("field VolumeOptions must not be specified")
        if kind == "volume" and propagation:
            raise InvalidParameter("field BindOptions must not be specified")
        target = _check_target(target)
    except InvalidParameter as error:
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": {error}"
        ) from None
    planned = Planned(kind, source, target, mode=mode, read_only="ro" in words)
    if kind == "bind":
        return replace(planned, source=_clean(source), propagation=propagation or "rprivate")
    return replace(planned, mode=mode or "z", nocopy="nocopy" in words, driver=driver)


def _mount(mount: Mount, driver: str, api_version: tuple[int, int]) -> Planned:
    try:
        target = _check_target(mount.Target)
        match mount.Type:
            case "bind":
                return _bind_mount(mount, target, api_version)
            case "volume":
                return _volume_mount(mount, target, driver)
            case "tmpfs":
                return _tmpfs_mount(mount, target)
            case "image":
                return _image_mount(mount, target)
            case _:
                raise InvalidParameter("mount type unknown")
    except InvalidParameter as error:
        raise InvalidParameter(f'invalid mount config for type "{mount.Type}": {error}') from None


def _refuse(**fields: object) -> None:
    for name, value in fields.items():
        if value is not None:
            raise InvalidParameter(f"field {name} must not be specified")


def _bind_mount(mount: Mount, target: str, api_version: tuple[int, int]) -> Planned:
    if not mount.Source:
        raise InvalidParameter("field Source must not be empty")
    _check_absolute(mount.Source)
    _refuse(VolumeOptions=mount.VolumeOptions, TmpfsOptions=mount.TmpfsOptions, ImageOptions=mount.ImageOptions)
    options = mount.BindOptions or BindMountOptions()
    if options.Propagation and options.Propagation not in PROPAGATIONS:
        raise InvalidParameter(f"invalid propagation mode: {options.Propagation}")
    if options.ReadOnlyForceRecursive and not mount.ReadOnly:
        raise InvalidParameter("BindOptions.ReadOnlyForceRecursive needs ReadOnly")
    if options.ReadOnlyForceRecursive and (options.ReadOnlyNonRecursive or options.NonRecursive):
        raise InvalidParameter("BindOptions.ReadOnlyForceRecursive conflicts with the non-recursive options")
    facts: dict[str, Any] = {}
    if options.NonRecursive:
        facts["NonRecursive"] = True
    if options.ReadOnlyNonRecursive or api_version < (1, 44):
        facts["ReadOnlyNonRecursive"] = True
    if options.ReadOnlyForceRecursive:
        facts["ReadOnlyForceRecursive"] = True
    return Planned(
        "bind",
        _clean(mount.Source),
        target,
        read_only=mount.ReadOnly,
        propagation=options.Propagation or "rprivate",
        must_exist=not options.CreateMountpoint,
        options=facts,
    )


def _volume_mount(mount: Mount, target: str, driver: str) -> Planned:
    _refuse(BindOptions=mount.BindOptions, TmpfsOptions=mount.TmpfsOptions, ImageOptions=mount.ImageOptions)
    options = mount.VolumeOptions or VolumeMountOptions()
    if not mount.Source:
        if options.Subpath:
            raise InvalidParameter("must not set Subpath when using anonymous volumes")
        if mount.ReadOnly:
            raise InvalidParameter("must not set ReadOnly mode when using anonymous volumes")
    if options.Subpath and (options.Subpath.startswith("/") or ".." in options.Subpath.split("/")):
        raise InvalidParameter("subpath must be a relative path within the volume")
    choice = options.DriverConfig
    return Planned(
        "volume",
        mount.Source,
        target,
        mode="z",
        read_only=mount.ReadOnly,
        nocopy=options.NoCopy,
        subpath=options.Subpath,
        driver=(choice.Name if choice else "") or driver,
        driver_options=dict(choice.Options) if choice else {},
        labels=dict(options.Labels),
    )


def _image_mount(mount: Mount, target: str) -> Planned:
    """Checked here for its place alone: the images' plugin mounts it."""
    if not mount.Source:
        raise InvalidParameter("field Source must not be empty")
    _refuse(BindOptions=mount.BindOptions, VolumeOptions=mount.VolumeOptions, TmpfsOptions=mount.TmpfsOptions)
    return Planned("image", mount.Source, target, read_only=True)


def _tmpfs_mount(mount: Mount, target: str) -> Planned:
    if mount.Source:
        raise InvalidParameter("field Source must not be specified")
    _refuse(BindOptions=mount.BindOptions, VolumeOptions=mount.VolumeOptions, ImageOptions=mount.ImageOptions)
    words = tmpfs_words(mount.TmpfsOptions or TmpfsMountOptions(), read_only=mount.ReadOnly)
    tmpfs_options(words)
    return Planned("tmpfs", "", target, read_only=mount.ReadOnly, options={"Words": words})
