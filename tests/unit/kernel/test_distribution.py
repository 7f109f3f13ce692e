"""What a registry offers is checked before anything is fetched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kernel.context import Services
from kernel.contracts import registry as wire
from kernel.contracts.registry import Credentials, Manifest
from kernel.managed.distribution import Distribution
from kernel.managed.platforms import host_platform
from plugin_sdk import InvalidParameter, NotSupported, Unavailable

CONFIG = {"interface": {"types": [], "socket": ""}, "entrypoint": ["/p"]}


def digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


class Shelf:
    """A repository, and the registry that has nothing else."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, Manifest] = {}

    def add(self, tag: str, document: Any, media_type: str = wire.MANIFEST) -> str:
        raw = json.dumps(document).encode()
        manifest = Manifest(digest(raw), media_type, raw)
        self.manifests[tag] = self.manifests[manifest.digest] = manifest
        return manifest.digest

    def plugin(self, tag: str, config: Any = CONFIG, kind: str = wire.PLUGIN_CONFIG) -> str:
        raw = json.dumps(config).encode()
        self.blobs[digest(raw)] = raw
        layers = [{"digest": "sha256:" + "0" * 64, "size": 1}]
        return self.add(tag, {"config": {"digest": digest(raw), "mediaType": kind}, "layers": layers})

    def repository(self, *_: Any, **__: Any) -> Shelf:
        return self

    async def login(self, credentials: Credentials) -> str:
        return ""

    async def manifest(self, reference: str, accept: Any = ()) -> Manifest:
        return self.manifests[reference]

    @asynccontextmanager
    async def blob(self, name: str, size: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield self.blobs[name]

        yield pieces()

    async def close(self) -> None:
        return


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def distribution(shelf: Shelf, tmp_path: Path) -> Distribution:
    services = Services()
    services.provide("test", wire.Registry, shelf)
    return Distribution(services, None, None)  # type: ignore[arg-type]


def index(*entries: tuple[str, str]) -> dict[str, Any]:
    platforms = [(name, dict(zip(("os", "architecture"), where.split("/"), strict=True))) for name, where in entries]
    return {"manifests": [{"digest": name, "platform": platform} for name, platform in platforms]}


@pytest.mark.parametrize("kind", [wire.MANIFEST_LIST, wire.OCI_INDEX])
async def test_of_several_platforms_this_machines_is_taken(shelf: Shelf, distribution: Distribution, kind: str) -> None:
    other, ours = shelf.plugin("a", {**CONFIG, "description": "other"}), shelf.plugin("b")
    top = shelf.add("latest", index((other, "linux/s390x"), (ours, host_platform())), kind)
    offer = await distribution.look("me/p", Credentials())
    assert offer.config["Description"] == ""
    assert offer.digest == top


async def test_a_wrong_platform_is_refused_with_both_named(shelf: Shelf, distribution: Distribution) -> None:
    shelf.add("latest", index((shelf.plugin("a"), "linux/s390x")), wire.OCI_INDEX)
    with pytest.raises(NotSupported, match=rf"not for {host_platform()}.*it is for linux/s390x"):
        await distribution.look("me/p", Credentials())
    shelf.plugin("2", {**CONFIG, "architecture": "s390x", "os": "linux"})
    with pytest.raises(NotSupported, match=rf"me/p:2 is for linux/s390x, and this machine is {host_platform()}"):
        await distribution.look("me/p:2", Credentials())


@pytest.mark.parametrize(
    ("kind", "words"),
    [("application/vnd.docker.container.image.v1+json", r"\(image\) when fetching"), ("text/plain", r"\(unknown\)")],
)
async def test_what_is_no_plugin(shelf: Shelf, distribution: Distribution, kind: str, words: str) -> None:
    shelf.plugin("latest", kind=kind)
    with pytest.raises(InvalidParameter, match=words):
        await distribution.look("me/p", Credentials())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": 1, "layers": []},
        {"config": {}, "layers": []},
        {"config": {}, "layers": [{}] * 200},
        {"layers": {}},
    ],
)
async def test_a_hostile_manifest(shelf: Shelf, distribution: Distribution, document: Any) -> None:
    shelf.add("latest", document)
    with pytest.raises(InvalidParameter, match="not that of a plugin"):
        await distribution.look("me/p", Credentials())


async def test_without_a_registry_plugin() -> None:
    with pytest.raises(Unavailable, match="no enabled plugin provides it"):
        await Distribution(Services(), None, None).look("me/p", Credentials())  # type: ignore[arg-type]
