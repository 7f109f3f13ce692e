"""A plugin's project: pyproject.toml with the table `[tool.engine.plugin]`, and config.json beside it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.errors import InvalidParameter, NotFound, NotSupported

_OURS = ("main", "driver")
_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


@dataclass(frozen=True, slots=True)
class Project:
    """What is known before anything is built.

    Attributes:
        dependencies: requirements, as in pyproject.toml.
        main: "module:function" that serves until SIGTERM; "" when the drivers are to be made and served as they are.
        drivers: "module:class" of what is served.
        config: the fields of config.json that the author has written.
    """

    folder: Path
    name: str
    description: str
    dependencies: tuple[str, ...]
    main: str
    drivers: tuple[str, ...]
    config: Mapping[str, Any]


def read(folder: Path) -> Project:
    """Read a project.

    Raises:
        NotFound: there is none.
        NotSupported: it is none in Python.
        InvalidParameter: something in it cannot be; names file and field.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        if (folder / "config.json").is_file():
            raise NotSupported(
                f"{folder} has no pyproject.toml: only projects in Python are built. Of another, build an image, and use"
                " --from-image"
            )
        raise NotFound(f"{folder} has no pyproject.toml")
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{path}: {error}") from None
    project, table = document.get("project", {}), document.get("tool", {}).get("engine", {}).get("plugin", {})
    if not isinstance(project.get("name"), str):
        raise InvalidParameter(f"{path}: project.name is missing")
    drivers = table.get("driver", [])
    drivers = (drivers,) if isinstance(drivers, str) else tuple(drivers)
    main = table.get("main", "")
    for text in (*drivers, *([main] if main else ())):
        if not isinstance(text, str) or not _PLACE.match(text):
            raise InvalidParameter(f"{path}: tool.engine.plugin: {text!r} is not of the form package.module:name")
    config = read_config(folder)
    config |= {key: value for key, value in table.items() if key not in _OURS}
    if not drivers and not (main and field(field(config, "interface", {}), "types", [])):
        raise InvalidParameter(
            f'{path}: [tool.engine.plugin] must name the class to serve: driver = "package.module:Class" (or `main`, with'
            " interface.types in config.json)"
        )
    return Project(
        folder,
        project["name"],
        str(project.get("description", "")),
        tuple(project.get("dependencies", ())),
        main,
        drivers,
        config,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as it stands; {} without one. Raises InvalidParameter."""
    path = folder / "config.json"
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise InvalidParameter(f"{path}: want an object")
    return config


def field(document: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """A field, whatever the case of its key. null counts as missing."""
    for key, value in document.items():
        if key.lower() == name.lower() and value is not None:
            return value
    return otherwise


def with_field(document: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The document with a field set, in whatever case its key was."""
    kept = {key: old for key, old in document.items() if key.lower() != name.lower()}
    return {**kept, name: value}
