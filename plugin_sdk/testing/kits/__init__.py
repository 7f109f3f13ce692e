"""The conformance kits: one for every driver contract, and for interfaces of plugins that are called rather than chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugin_sdk.testing.kit import Kit
from plugin_sdk.testing.kits import authz, ipam, log, metrics, network, runtime, storage, storage_safety, volume

KITS: Mapping[type[Any], Kit] = {
    kit.contract: kit for kit in (volume.KIT, network.KIT, ipam.KIT, log.KIT, storage.KIT, runtime.KIT)
}
"""By driver contract."""

INTERFACES: Mapping[str, Kit] = {"authz": authz.KIT, "metricscollector": metrics.KIT}
"""By capability ("authz" of "docker.authz/1.0"): what is tried over a `PluginPeer`, since there is no driver."""

__all__ = ["INTERFACES", "KITS", "storage_safety"]
