"""The daemon's settings: those of the kernel and of every plugin, from flags and from `daemon.json`.

Nothing here knows what a setting means. Each plugin's settings model says which flag and which key of the file set
its fields (`contracts.plugin.setting`).
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kernel.contracts.plugin import PluginMeta, setting
from kernel.errors import EngineError, InvalidParameter

KERNEL = "kernel"
PLUGINS_KEY = "plugins"
"""Key of `daemon.json` with a table for each plugin: {"plugins": {"net_bridge": {"bip": "10.9.0.1/16"}}}."""

Values = dict[str, dict[str, Any]]
"""Owner ("kernel" or a plugin's name) to field to raw value."""


class KernelSettings(BaseModel):
    """What the kernel itself is told."""

    model_config = ConfigDict(extra="forbid")

    data_root: Path = setting(Path("/var/lib/engine"), "Root directory of persistent state", flag="--data-root")
    exec_root: Path = setting(Path("/run/engine"), "Root directory for what ends with a boot", flag="--exec-root")
    pidfile: Path = setting(Path("/run/engine.pid"), "Path of the daemon's PID file", flag="--pidfile", short="-p")
    debug: bool = setting(False, "Log debug messages", flag="--debug", short="-D", reloadable=True)
    log_level: str = setting(
        "info", "Log level: debug, info, warn, error, fatal", flag="--log-level", short="-l", reloadable=True
    )
    log_format: str = setting("text", "Log format: text or json", flag="--log-format")
    plugin_dirs: list[str] = setting(
        ["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"],
        "Folder with sockets and .spec and .json files of old-style plugins (repeatable)",
        flag="--plugin-dir",
        key="plugin-dirs",
    )
    blocked_plugins: list[str] = setting(
        [], "In-process plugin not to load (repeatable)", flag="--block-plugin", key="blocked-plugins"
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One setting that can be said outside the plugin's own table.

    Attributes:
        repeatable: a list, or with `mapping` KEY=VALUE pairs.
    """

    owner: str
    field: str
    flag: str
    short: str | None
    key: str
    help: str
    metavar: str | None
    boolean: bool
    repeatable: bool
    mapping: bool
    ignored: str | None


@dataclass(slots=True)
class Config:
    """Everything said, not yet checked by the models.

    Attributes:
        file: the `daemon.json` that was read, if there was one.
        warnings: for the log, about options that are accepted and ignored.
    """

    kernel: KernelSettings
    values: Values
    file: Path | None = None
    warnings: list[str] = field(default_factory=list)

    def settings(self, meta: PluginMeta) -> Any:
        """A plugin's settings. Raises InvalidParameter, naming field and value."""
        if meta.settings is None:
            return None
        return _validated(meta.settings, self.values.get(meta.name, {}), meta.name)


def options(models: Mapping[str, type[BaseModel]]) -> list[Option]:
    """All options of these models. Raises EngineError when two claim one flag or key; names both."""
    found: list[Option] = []
    taken: dict[str, str] = {}
    for owner, model in models.items():
        for name, info in model.model_fields.items():
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            told = typing.cast(dict[str, Any], extra.get("engine", {}))
            if not told.get("flag"):
                continue
            option = _option(owner, name, info.annotation, info.description or "", told)
            for claim in (option.flag, option.short, f"key {option.key}"):
                if claim is None:
                    continue
                other = taken.setdefault(claim, owner)
                if other != owner:
                    raise EngineError(
                        f"plugins {other!r} and {owner!r} both claim the option {claim}; block one of them"
                    )
            found.append(option)
    return found


def _option(owner: str, name: str, annotation: Any, help: str, told: dict[str, Any]) -> Option:
    kinds = [typing.get_origin(part) or part for part in (*typing.get_args(annotation), annotation)]
    mapping = (typing.get_origin(annotation) or annotation) is dict
    repeatable = mapping or (typing.get_origin(annotation) or annotation) in (list, set, tuple)
    return Option(
        owner=owner,
        field=name,
        flag=told["flag"],
        short=told.get("short"),
        key=told.get("key") or told["flag"].lstrip("-"),
        help=help,
        metavar=told.get("metavar"),
        boolean=bool in kinds and not repeatable,
        repeatable=repeatable,
        mapping=mapping,
        ignored=told.get("ignored"),
    )


def read_file(path: Path, known: Iterable[Option], plugins: Iterable[str]) -> tuple[Values, set[str]]:
    """What a `daemon.json` says: values, and the keys used (of the kind that flags can say too).

    Raises:
        InvalidParameter: unreadable, not JSON, or with unknown keys; dockerd's words.
    """
    where = f"unable to configure the Docker daemon with file {path}"
    try:
        document = json.loads(path.read_text() or "{}")
    except OSError as error:
        raise InvalidParameter(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidParameter(f"{where}: invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter(f"{where}: want an object")
    by_key = {option.key: option for option in known}
    tables = document.pop(PLUGINS_KEY, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InvalidParameter(f"{where}: {PLUGINS_KEY!r} wants an object of one object per plugin")
    unknown = sorted(document.keys() - by_key.keys())
    if unknown:
        raise InvalidParameter(
            f"{where}: the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    if strangers := sorted(tables.keys() - set(plugins)):
        raise InvalidParameter(f"{where}: {PLUGINS_KEY}: no such plugin: {', '.join(strangers)}")
    values: Values = {name: dict(table) for name, table in tables.items()}
    for key, value in document.items():
        option = by_key[key]
        values.setdefault(option.owner, {})[option.field] = value
    return values, set(document)


def combine(flags: Mapping[Option, Any], file: Path | None, known: Iterable[Option], plugins: Iterable[str]) -> Config:
    """Flags and file together. Raises InvalidParameter when both say the same, as dockerd does."""
    values, keys = read_file(file, known, plugins) if file else ({}, set())
    twice = sorted(option.key for option in flags if option.key in keys)
    if twice:
        raise InvalidParameter(
            f"unable to configure the Docker daemon with file {file}: the following directives are specified both as a"
            f" flag and in the configuration file: {', '.join(twice)}"
        )
    for option, value in flags.items():
        values.setdefault(option.owner, {})[option.field] = value
    said = {(owner, name) for owner, table in values.items() for name in table}
    warnings = [
        f"{option.flag} is accepted and ignored: {option.ignored}"
        for option in known
        if option.ignored and (option.owner, option.field) in said
    ]
    kernel = _validated(KernelSettings, values.get(KERNEL, {}), KERNEL)
    return Config(kernel, values, file, warnings)


def _validated(model: type[BaseModel], values: Mapping[str, Any], owner: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        info = model.model_fields.get(name)
        extra = info.json_schema_extra if info is not None else None
        told = extra.get("engine") if isinstance(extra, dict) else None
        flag = told.get("flag") if isinstance(told, dict) else None
        raise InvalidParameter(
            f"invalid value for {flag or name or 'the settings'} ({owner}): {first['msg']}, got {first['input']!r:.100}"
        ) from None
