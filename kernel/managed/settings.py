"""What an operator may set of a plugin: `plugin set NAME KEY=VALUE`, and what of it survives an upgrade.

Source: Docker's "plugin set": `NAME[.FIELD]=VALUE`; a field may be left out when there is one settable field. Environment
and arguments have the field `value`, mounts `source`, devices `path`. `args` is split at spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel.errors import InvalidParameter
from kernel.managed import schema

HIDDEN = "********"
"""What is shown in place of a secret."""

_FIELD_OF = {"env": "value", "args": "value", "mounts": "source", "devices": "path"}


@dataclass(frozen=True, slots=True)
class Changed:
    """The outcome of `apply`.

    Attributes:
        settings: `{"Env", "Args", "Mounts", "Devices"}`; secrets are not in it.
        secrets: by name, those that were set; None to forget one.
    """

    settings: dict[str, Any]
    secrets: dict[str, str | None] = field(default_factory=dict)


def default(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a config begins with."""
    return {
        "Args": list(config["Args"]["Value"]),
        "Devices": [dict(item) for item in config["Linux"]["Devices"]],
        "Env": [f"{item['Name']}={item['Value']}" for item in config["Env"] if item["Value"] is not None],
        "Mounts": [dict(item) for item in config["Mounts"]],
    }


def apply(config: Mapping[str, Any], settings: Mapping[str, Any], changes: Iterable[str]) -> Changed:
    """The settings with changes (`NAME[.FIELD]=VALUE` each), all or none.

    Raises:
        InvalidParameter: not of that form, no such setting, or not settable; in dockerd's words.
    """
    told = schema.model(dict(config))
    result = {key: list(settings.get(key) or ()) for key in ("Args", "Devices", "Env", "Mounts")}
    secrets: dict[str, str | None] = {}
    for change in changes:
        wanted, equals, value = change.partition("=")
        if not wanted:
            raise InvalidParameter(f"invalid format {change!r}, must be <name>[.<field>][=<value>]")
        if any(secret.Name == wanted for secret in told.Secrets):
            secrets[wanted] = value if equals else None
            continue
        kind, item, name = _find(told, wanted)
        _check_settable(kind, item, wanted, name)
        if kind == "env":
            if item.Secret:
                secrets[name] = value if equals else None
            else:
                others = [entry for entry in result["Env"] if entry.partition("=")[0] != name]
                result["Env"] = [*others, f"{name}={value}"] if equals else others
        elif kind == "args":
            result["Args"] = value.split(" ") if value else []
        else:
            key, field_name = ("Mounts", "Source") if kind == "mounts" else ("Devices", "Path")
            result[key] = [
                {**entry, field_name: value} if entry.get("Name") == name else entry for entry in result[key]
            ]
    return Changed(result, secrets)


def _find(told: schema.PluginConfig, wanted: str) -> tuple[str, Any, str]:
    """(kind, the config's entry, its name). A name may hold dots itself, so the whole is tried before name and field."""
    for name in (wanted, wanted.rpartition(".")[0]):
        groups: tuple[tuple[str, list[Any]], ...] = (
            ("env", list(told.Env)),
            ("mounts", list(told.Mounts)),
            ("devices", list(told.Linux.Devices)),
            ("args", [told.Args] if told.Args.Name else []),
        )
        for kind, items in groups:
            for item in items:
                if name and item.Name == name:
                    return kind, item, name
    raise InvalidParameter(f'setting "{wanted}" not found in the plugin configuration')


def _check_settable(kind: str, item: Any, wanted: str, name: str) -> None:
    asked = wanted[len(name) + 1 :] if len(wanted) > len(name) else ""
    settable = [each.lower() for each in item.Settable]
    if not asked and len(settable) > 1:
        raise InvalidParameter(f'"{wanted}": multiple fields are settable, one must be specified')
    field_name = asked or (settable[0] if settable else "")
    if field_name not in settable or field_name != _FIELD_OF[kind]:
        raise InvalidParameter(f'"{wanted}" is not settable')


def carry_over(old: Mapping[str, Any], settings: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for an upgrade: the new config's defaults, with what the operator had set and the new one still lets set."""
    result = default(new)
    told = schema.model(dict(new))
    before = default(old)
    was = dict(entry.partition("=")[::2] for entry in settings.get("Env") or ())
    for item in told.Env:
        known = {entry.partition("=")[0]: entry for entry in before["Env"]}
        if "value" in item.Settable and item.Name in was and f"{item.Name}={was[item.Name]}" != known.get(item.Name):
            result["Env"] = [entry for entry in result["Env"] if entry.partition("=")[0] != item.Name]
            result["Env"].append(f"{item.Name}={was[item.Name]}")
    if "value" in told.Args.Settable and list(settings.get("Args") or ()) != before["Args"]:
        result["Args"] = list(settings.get("Args") or ())
    for key, field_name, items in (("Mounts", "Source", told.Mounts), ("Devices", "Path", told.Linux.Devices)):
        changed = {
            entry["Name"]: entry.get(field_name)
            for entry in settings.get(key) or ()
            if entry.get("Name") and entry not in before[key]
        }
        settable = {item.Name for item in items if field_name.lower() in item.Settable}
        result[key] = [
            {**entry, field_name: changed[entry["Name"]]} if entry["Name"] in changed.keys() & settable else entry
            for entry in result[key]
        ]
    return result


def shown(config: Mapping[str, Any], settings: Mapping[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """Settings for inspect: secrets that are set appear as `HIDDEN`."""
    told = schema.model(dict(config))
    names = set(secrets)
    hidden = [f"{item.Name}={HIDDEN}" for item in told.Env if item.Secret and item.Name in names]
    return {
        **settings,
        "Env": [*(settings.get("Env") or ()), *hidden],
        **({"Secrets": [secret.Name for secret in told.Secrets if secret.Name in names]} if told.Secrets else {}),
    }
