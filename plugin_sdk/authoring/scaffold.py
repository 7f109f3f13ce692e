"""New projects from the templates in `plugin_sdk/templates`."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from kernel.errors import Conflict, InvalidParameter

KINDS = {
    "volume": "A volume driver",
    "network": "A network driver",
    "ipam": "An IPAM driver",
    "log": "A log driver",
    "authz": "An authorization plugin",
    "metrics": "A metrics collector",
}
"""Kind to what a project of it is described as."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*\Z")
_TAKEN = ("kernel", "plugins", "plugin_sdk")


def create(name: str, kind: str, folder: Path, *, managed: bool) -> list[Path]:
    """Write a project; gives its files.

    Args:
        name: of the distribution and of the driver, for example "acme-volume"; its package is acme_volume.
        kind: of KINDS.
        folder: made if it is not there; must be empty.

    Raises:
        InvalidParameter: the name or the kind cannot be.
        Conflict: there is something in the folder.
    """
    package = re.sub("[-.]", "_", name)
    if not _NAME.match(name) or keyword.iskeyword(package) or package in _TAKEN:
        raise InvalidParameter(f"{name!r} cannot be a plugin's name: want for example acme-{kind}")
    if kind not in KINDS:
        raise InvalidParameter(f"unknown kind {kind!r}; there are: {', '.join(KINDS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not empty")
    form = "managed" if managed else "inprocess"
    values = {
        "name": name,
        "package": package,
        "class_name": "".join(word.capitalize() for word in package.split("_")),
        "description": KINDS[kind],
        "kind": kind,
        "driver": name,
    }
    values["use"] = _use(kind, form, values).rstrip("\n")
    sources = {
        "pyproject.toml": f"project/pyproject.{form}.toml",
        "README.md": f"project/README.{form}.md",
        f"{package}/__init__.py": "project/__init__.py",
        f"{package}/driver.py": f"{kind}/driver.py",
        "tests/test_driver.py": f"{kind}/test_driver.py",
    }
    if managed:
        sources |= {f"{package}/__main__.py": f"{kind}/main.py", "config.json": f"{kind}/config.json"}
    else:
        sources[f"{package}/plugin.py"] = f"{kind}/plugin.py"
    written = []
    for target, source in sources.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_fill(source, values))
        written.append(path)
    return written


def _use(kind: str, form: str, values: dict[str, str]) -> str:
    general = f"{kind}/use.md"
    return _fill(general if _template(general).is_file() else f"{kind}/use.{form}.md", values)


def _template(name: str) -> Path:
    return Path(str(files("plugin_sdk") / "templates" / f"{name}.tmpl"))


def _fill(name: str, values: dict[str, str]) -> str:
    return Template(_template(name).read_text()).substitute(values)
