"""`GET /system/df`: what takes the disk's space."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any

from plugin_sdk import EngineError, PluginContext
from plugin_sdk.aio import blocking
from plugin_sdk.containers import ContainerRecord, Containers
from plugin_sdk.images import Image, ImageStore
from plugin_sdk.storage import Storage
from plugin_sdk.times import parse_ns
from plugin_sdk.volumes import VolumeDriver, VolumeRecord, Volumes

KINDS = ("container", "image", "volume", "build-cache")
DRIVER_SECONDS = 2.0
"""Seconds that a volume driver may take; all are asked at once."""


async def measure(ctx: PluginContext, kinds: set[str]) -> dict[str, Any]:
    """`SystemDataUsage` of the kinds asked for. An object that goes away meanwhile is left out."""
    containers, images = ctx.find(Containers), ctx.find(ImageStore)
    records = list(containers.list()) if containers is not None else []
    usage: dict[str, Any] = {}
    if "image" in kinds:
        stored = list(images.list()) if images is not None else []
        layers = _layers(ctx)
        usage["LayersSize"] = sum(layers.values())
        usage["Images"] = _images(stored, Counter(record.ImageID for record in records), layers)
    if "container" in kinds:
        sizes = {image.Id: image.Size for image in images.list()} if images is not None else {}
        usage["Containers"] = [await _container(ctx, record, sizes.get(record.ImageID, 0)) for record in records]
    if "volume" in kinds:
        volumes = ctx.find(Volumes)
        found = volumes.list() if volumes is not None else []
        places = await asyncio.gather(*(_mountpoint(ctx, volume) for volume in found))
        usage["Volumes"] = [await _volume(ctx, volume, where) for volume, where in zip(found, places, strict=True)]
    if "build-cache" in kinds:
        usage["BuildCache"] = []
    return usage


def _layers(ctx: PluginContext) -> dict[str, int]:
    storage = ctx.find(Storage)
    if storage is None:
        return {}
    return {layer.chain_id: layer.size for layer in storage.driver().layers()}


def _chain_ids(image: Image) -> list[str]:
    from hashlib import sha256

    chain: list[str] = []
    for diff_id in image.DiffIDs:
        chain.append("sha256:" + sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest() if chain else diff_id)
    return chain


def _images(images: list[Image], users: Counter[str], layers: dict[str, int]) -> list[dict[str, Any]]:
    chains = {image.Id: _chain_ids(image) for image in images}
    owners = Counter(chain_id for chain in chains.values() for chain_id in chain)
    return [
        {
            "Containers": users[image.Id],
            "Created": _seconds(image.Created),
            "Id": image.Id,
            "Labels": image.Config.Labels or None,
            "ParentId": image.Parent,
            "RepoDigests": image.Digests,
            "RepoTags": image.Tags,
            "SharedSize": sum(layers.get(chain_id, 0) for chain_id in chains[image.Id] if owners[chain_id] > 1),
            "Size": image.Size,
        }
        for image in images
    ]


async def _container(ctx: PluginContext, record: ContainerRecord, image_size: int) -> dict[str, Any]:
    storage = ctx.find(Storage)
    written = 0
    if storage is not None:
        try:
            written = await storage.driver(record.Driver).usage(record.Id)
        except EngineError as error:
            ctx.log.debug("the size of container %s is not known: %s", record.Name, error)
    return {
        "Id": record.Id,
        "Names": ["/" + record.Name.removeprefix("/")],
        "Image": record.ImageRef,
        "ImageID": record.ImageID,
        "Command": " ".join([record.Path, *record.Args]).strip(),
        "Created": _seconds(record.Created),
        "Ports": [],
        **({"SizeRw": written} if written else {}),
        "SizeRootFs": image_size + written,
        "Labels": record.Config.Labels,
        "State": str(record.State.Status),
        "Status": str(record.State.Status).capitalize(),
        "HostConfig": {"NetworkMode": record.HostConfig.NetworkMode},
        "NetworkSettings": {"Networks": {}},
        "Mounts": [
            {"Type": mount.Type, "Name": mount.Name, "Source": mount.Source, "Destination": mount.Destination}
            for mount in record.Mounts
        ],
    }


async def _mountpoint(ctx: PluginContext, volume: VolumeRecord) -> str:
    """What its driver says within `DRIVER_SECONDS`, or ""."""
    try:
        async with asyncio.timeout(DRIVER_SECONDS):
            return await (await ctx.drivers.find(VolumeDriver, volume.Driver)).path(volume.Name)
    except (EngineError, TimeoutError) as error:
        ctx.log.debug("the place of volume %s is not known: %r", volume.Name, error)
        return ""


async def _volume(ctx: PluginContext, volume: VolumeRecord, where: str) -> dict[str, Any]:
    size = await blocking(tree_size, where) if where and volume.Driver == "local" else -1
    holders = ctx.hooks.sync("engine_holders", kind="volume", key=volume.Name)
    return {
        "CreatedAt": volume.CreatedAt,
        "Driver": volume.Driver,
        "Labels": volume.Labels or None,
        "Mountpoint": where,
        "Name": volume.Name,
        "Options": volume.Options or None,
        "Scope": volume.Scope,
        "UsageData": {"RefCount": sum(len(list(given)) for _, given in holders), "Size": size},
    }


def tree_size(path: str) -> int:
    """Bytes of the files below `path`, hard links once; stays on its file system. Blocking."""
    seen: set[int] = set()
    total = 0
    try:
        device = os.lstat(path).st_dev
    except OSError:
        return 0
    waiting = [path]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if status.st_dev != device or status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            total += status.st_size
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return total


def _seconds(time: str) -> int:
    return parse_ns(time) // 10**9 if time else 0
