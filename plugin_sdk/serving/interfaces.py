"""Which interfaces a driver class implements: found from the methods that it has."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.errors import InvalidParameter

if TYPE_CHECKING:
    from plugin_sdk.serving.dispatch import Interface


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of driver.

    Attributes:
        type: as in `interface.types` of config.json.
        contract: "module:class", imported when asked for.
        server: "module:class" of the interface.
        sign: a method that no other kind has: without it, nobody meant this kind. "": only by extending the class.
    """

    type: str
    contract: str
    server: str
    sign: str = ""


_SERVING = "plugin_sdk.serving"
KINDS = (
    Kind(
        "docker.volumedriver/1.0",
        "kernel.contracts.volumes:VolumeDriver",
        f"{_SERVING}.volume:VolumeInterface",
        "unmount",
    ),
    Kind(
        "docker.networkdriver/1.0",
        "kernel.contracts.network:NetworkDriver",
        f"{_SERVING}.network:NetworkInterface",
        "create_network",
    ),
    Kind(
        "docker.ipamdriver/1.0", "kernel.contracts.network:IpamDriver", f"{_SERVING}.ipam:IpamInterface", "request_pool"
    ),
    Kind("docker.logdriver/1.0", "kernel.contracts.logs:LogDriver", f"{_SERVING}.log:LogInterface", "log_path"),
    Kind("docker.authz/1.0", f"{_SERVING}.contracts:AuthorizationPlugin", f"{_SERVING}.authz:AuthorizationInterface"),
    Kind(
        "docker.metricscollector/1.0", f"{_SERVING}.contracts:MetricsCollector", f"{_SERVING}.metrics:MetricsInterface"
    ),
)


def interface_types(driver: type[Any]) -> list[str]:
    """`interface.types` for a class. Raises InvalidParameter, naming what is missing."""
    return [kind.type for kind in kinds_of(driver)]


def kinds_of(driver: type[Any]) -> list[Kind]:
    """The kinds that a class fulfils.

    A class fulfils a contract that it extends, and one of which it has all methods.

    Raises:
        InvalidParameter: it fulfils none, or one in part; names the methods that are missing or are not `async def`.
    """
    found: list[Kind] = []
    bases = {f"{base.__module__}:{base.__qualname__}" for base in driver.__mro__}
    for kind in KINDS:
        if kind.contract in bases or (kind.sign and hasattr(driver, kind.sign)):
            _check(driver, _load(kind.contract))
            found.append(kind)
    if not found:
        names = ", ".join(kind.contract.partition(":")[2] for kind in KINDS)
        raise InvalidParameter(f"{driver.__qualname__} implements no contract that can be served ({names})")
    return found


def _check(driver: type[Any], contract: type[Any]) -> None:
    wanted = {name: what for name, what in vars(contract).items() if inspect.isfunction(what) and name[0] != "_"}
    if missing := [name for name in wanted if not callable(getattr(driver, name, None))]:
        raise InvalidParameter(f"{driver.__qualname__} lacks of {contract.__name__}: {', '.join(missing)}")
    for name, what in wanted.items():
        if inspect.iscoroutinefunction(what) and not inspect.iscoroutinefunction(inspect.unwrap(getattr(driver, name))):
            raise InvalidParameter(f"{driver.__qualname__}.{name} must be `async def`, as {contract.__name__} says")


def interfaces(drivers: tuple[Any, ...], folder: Path) -> list[Interface]:
    """An interface for each kind that the drivers fulfil.

    Raises:
        InvalidParameter: no drivers; two of a kind; see `kinds_of`.
    """
    if not drivers:
        raise InvalidParameter("nothing to serve: give serve() a driver")
    served: dict[str, Interface] = {}
    for driver in drivers:
        if isinstance(driver, type):
            raise InvalidParameter(f"serve() wants an object: serve({driver.__qualname__}(...))")
        for kind in kinds_of(type(driver)):
            if kind.type in served:
                raise InvalidParameter(f"two drivers for {kind.type}; a plugin has one of each kind")
            served[kind.type] = _load(kind.server)(driver, folder)
    return list(served.values())


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
