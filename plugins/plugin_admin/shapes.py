"""Plugins in the API's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from plugin_sdk import HookStats, InvalidParameter, PluginStatus
from plugin_sdk.managed import ManagedPlugin, ManagedStatus, OldStylePlugin, Privilege
from plugin_sdk.text import Filters


def managed(plugin: ManagedPlugin, settings: dict[str, Any], status: ManagedStatus) -> dict[str, Any]:
    """`Plugin` of the Engine API, and `Status`, which is the engine's own: what is known of its process."""
    return {
        "Config": plugin.Config,
        "Enabled": plugin.Enabled,
        "Id": plugin.Id,
        "Name": plugin.Name,
        "PluginReference": plugin.PluginReference or plugin.Name,
        "Settings": settings,
        "Status": {
            "State": str(status.state),
            "Pid": status.pid,
            "Restarts": status.restarts,
            "LastError": status.last_error,
            "Failures": status.failures,
            "Since": status.since,
        },
    }


def old_style(plugin: OldStylePlugin) -> dict[str, Any]:
    """An old-style plugin, for `GET /engine/plugins/old-style`."""
    return {
        "Name": plugin.name,
        "Address": plugin.address,
        "Interfaces": list(plugin.interfaces),
        "LastError": plugin.last_error,
    }


def in_process(status: PluginStatus, stats: Mapping[tuple[str, str], HookStats]) -> dict[str, Any]:
    """An in-process plugin, for `GET /engine/plugins`; `Calls` by hook or driver method, times in seconds."""
    return {
        "Name": status.name,
        "Description": status.description,
        "State": str(status.state),
        "Reason": status.reason,
        "Distribution": status.distribution,
        "Version": status.version,
        "Essential": status.essential,
        "Provides": list(status.provides),
        "Requires": list(status.requires),
        "Drivers": list(status.drivers),
        "Failures": status.failures,
        "LastError": status.last_error,
        "Restored": status.restored,
        "Calls": {call: asdict(counts) for (plugin, call), counts in sorted(stats.items()) if plugin == status.name},
    }


def select(plugins: Sequence[ManagedPlugin], filters: Filters) -> list[ManagedPlugin]:
    """Those that pass the filters `enabled` and `capability`. Raises InvalidParameter for a bad value."""
    wanted: bool | None = None
    if "enabled" in filters:
        values = {value.lower() for value in filters["enabled"]}
        if len(values) != 1 or not values <= {"true", "false", "1", "0"}:
            raise InvalidParameter(f"invalid filter 'enabled=[{' '.join(filters['enabled'])}]'")
        wanted = values <= {"true", "1"}
    capabilities = {value.lower() for value in filters.get("capability", ())}
    return [
        plugin
        for plugin in plugins
        if (wanted is None or plugin.Enabled == wanted) and (not capabilities or capabilities & _capabilities(plugin))
    ]


def _capabilities(plugin: ManagedPlugin) -> set[str]:
    """ "volumedriver" of "docker.volumedriver/1.0"."""
    interface = plugin.Config.get("Interface") or {}
    return {str(kind).partition("/")[0].rpartition(".")[2].lower() for kind in interface.get("Types") or ()}


def words(raw: bytes) -> list[str]:
    """A JSON list of strings. Raises InvalidParameter."""
    try:
        parsed = json.loads(raw or b"null")
    except ValueError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from None
    if not isinstance(parsed, list) or not all(isinstance(word, str) for word in parsed):
        raise InvalidParameter("invalid body: want a list of strings NAME=VALUE")
    return parsed


def privilege(asked: Privilege) -> dict[str, Any]:
    """`PluginPrivilege` of the Engine API."""
    return {"Name": asked.name, "Description": asked.description, "Value": list(asked.value)}


def privileges(raw: bytes) -> list[Privilege]:
    """What a client grants. Raises InvalidParameter."""
    try:
        parsed = json.loads(raw or b"null") or []
        folded = [{key.lower(): value for key, value in dict(item).items()} for item in parsed]
        return [
            Privilege(str(item["name"]), str(item.get("description") or ""), tuple(map(str, item.get("value") or ())))
            for item in folded
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidParameter(f"invalid privileges: want a list of Name, Description, Value: {error!r}") from None
