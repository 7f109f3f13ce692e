"""docs/compatibility.md tells of every name of the API's container and exec parts, once, and nothing that is not so."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from pydantic import BaseModel

import plugins.containers.api
from plugin_sdk import containers
from plugins.containers.api.exec import ExecCreate, ExecStart
from plugins.logging.api import make_router
from plugins.stats.api import router as stats_router

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "docs/compatibility.md"
HEADINGS = {"Endpoints": "endpoints", "Query parameters": "parameters"}

MODELS: dict[str, type[BaseModel]] = {
    "ContainerConfig": containers.ContainerConfig,
    "HostConfig": containers.HostConfig,
    "Resources": containers.HostConfig,
    "HealthConfig": containers.HealthConfig,
    "Mount": containers.Mount,
    "Mount.BindOptions": containers.BindMountOptions,
    "Mount.VolumeOptions": containers.VolumeMountOptions,
    "Mount.TmpfsOptions": containers.TmpfsMountOptions,
    "EndpointSettings": containers.EndpointConfig,
    "EndpointIPAMConfig": containers.EndpointIpam,
    "NetworkingConfig": containers.NetworkingConfig,
    "PortBinding": containers.PortBinding,
    "RestartPolicy": containers.RestartRule,
    "DeviceMapping": containers.DeviceMapping,
    "ThrottleDevice": containers.ThrottleDevice,
    "ExecCreate": ExecCreate,
    "ExecStart": ExecStart,
}

Rows = list[tuple[str, str, str]]


def _names() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "names-v1.51.txt").read_text().splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = names = []
        elif line and not line.startswith("#"):
            names.append(line)
    return found


def _table() -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    rows: Rows = []
    for line in TABLE.read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
            rows = found.setdefault(HEADINGS.get(title, title), [])
        elif match := re.fullmatch(r"\| `(.+?)` \| (.+?) \| ?(.*?) ?\|", line):
            rows.append((match[1], match[2], match[3]))
    return found


def _routes() -> dict[str, set[str]]:
    """`GET /containers/{id}/json` to the names of its query parameters, from the real routers."""
    modules = [
        importlib.import_module(f"{plugins.containers.api.__name__}.{module.name}")
        for module in pkgutil.iter_modules(plugins.containers.api.__path__)
    ]
    routers = [module.router(MagicMock()) for module in modules if hasattr(module, "router")]
    routers += [make_router(MagicMock(), MagicMock()), stats_router(MagicMock())]
    return {
        f"{method} {re.sub(r'{[^}]*}', '{id}', route.path)}": {p.alias for p in route.dependant.query_params}
        for router in routers
        for route in router.routes
        for method in getattr(route, "methods", None) or {"GET"}
    }


def _done(group: str) -> list[str]:
    return [name for name, status, _ in _table()[group] if status.startswith("**done**")]


@pytest.mark.parametrize("group", sorted(_names()))
def test_every_name_stands_in_the_table_once(group: str) -> None:
    assert [name for name, _, _ in _table().get(group, [])] == _names()[group]


def test_each_status_is_one_of_three_and_has_its_reason() -> None:
    for group in _names():
        for name, status, test in _table()[group]:
            assert re.fullmatch(r"\*\*done\*\*(: .+)?|\*\*(partly|refused)\*\*: .+", status), (group, name, status)
            if test:
                path = re.fullmatch(r"\[.+\]\(\.\./(.+)\)", test)
                assert path, (group, name, test)
                assert (ROOT / path[1]).is_file(), (group, name, test)


def test_endpoints_and_parameters_that_are_done_are_served() -> None:
    routes = _routes()
    assert [name for name in _done("endpoints") if name not in routes] == []
    wrong = []
    for name in _done("parameters"):
        endpoint, _, parameter = name.partition("?")
        if parameter not in routes.get(endpoint, ()):
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("group", sorted(_names().keys() - {"endpoints", "parameters"}))
def test_fields_that_are_done_are_in_the_models(group: str) -> None:
    done = _done(group)
    if done:
        assert [name for name in done if name not in MODELS[group].model_fields] == []
