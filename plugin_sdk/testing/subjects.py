"""What kits are run against: drivers made by a factory, and the drivers and peers of a plugin that an engine runs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from kernel import guard
from kernel.contracts.plugin import DriverSpec
from kernel.drivers import Guarded
from kernel.errors import InvalidParameter
from plugin_sdk.testing.kit import Kit, Subject
from plugin_sdk.testing.kits import INTERFACES, KITS

UNDER_TEST = "under-test"
"""Name of the plugin in errors of a driver that no engine runs."""

Factory = Callable[..., Any]
"""Makes a driver. With a parameter that has no default, or is a `Path`, it gets a folder for what the driver keeps; called again
with the same folder, it makes the driver of a daemon that was started again. The result may be a driver, a `DriverSpec`, an awaitable of one, or an
async context manager that gives one."""


def load(text: str) -> Factory:
    """The factory that "package.module:name" names. Raises InvalidParameter."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise InvalidParameter(f"{text!r} names no factory: want package.module:factory")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise InvalidParameter(f"cannot load {text!r}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InvalidParameter(f"{text!r} is not callable: want a function or a class that gives a driver")
    return cast(Factory, found)


def kits_of(driver: Any) -> list[Kit]:
    """The kits of what an object fulfils. Raises InvalidParameter, naming what is missing for the nearest contract."""
    if isinstance(driver, DriverSpec):
        return [kit for contract, kit in KITS.items() if contract is driver.contract]
    if hasattr(driver, "interfaces") and callable(getattr(driver, "call", None)):
        return [kit for capability, kit in INTERFACES.items() if _speaks(driver.interfaces, capability)]
    missing = {contract: [name for name in _methods(contract) if not hasattr(driver, name)] for contract in KITS}
    found = [KITS[contract] for contract, names in missing.items() if not names]
    if not found:
        contract, names = min(missing.items(), key=lambda item: len(item[1]) / len(_methods(item[0])))
        raise InvalidParameter(
            f"{type(driver).__name__} fulfils no driver contract; of {contract.__name__} it lacks {', '.join(names)}"
        )
    return found


def _speaks(interfaces: Any, capability: str) -> bool:
    return any(text.lower().partition("/")[0] == f"docker.{capability}" for text in interfaces)


def _methods(contract: type[Any]) -> list[str]:
    return [name for name, value in vars(contract).items() if not name.startswith("_") and inspect.isfunction(value)]


def made_by(
    factory: Factory, kit: Kit | None = None, *, name: str = "", options: Mapping[str, str] | None = None
) -> Subject[Any]:
    """A subject whose drivers a factory makes, each behind the guard that an engine puts before drivers."""
    takes_folder = _takes_folder(factory)

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Any]:
        async with _entered(factory(folder) if takes_folder else factory()) as driver:
            yield driver if kit is None else _guarded(kit.contract, driver)

    return Subject(
        name or getattr(factory, "__name__", "driver"), opened, restartable=takes_folder, options=options or {}
    )


def _takes_folder(factory: Factory) -> bool:
    parameters = list(inspect.signature(factory).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return False
    first = parameters[0]
    return first.default is inspect.Parameter.empty or "Path" in str(first.annotation)


@asynccontextmanager
async def _entered(made: Any) -> AsyncIterator[Any]:
    if inspect.isasyncgen(made):
        made = asynccontextmanager(lambda: made)()
    if isinstance(made, AbstractAsyncContextManager):
        async with made as driver:
            yield driver
        return
    yield await made if inspect.isawaitable(made) else made


def _guarded(contract: type[Any], driver: Any) -> Any:
    if isinstance(driver, Guarded) or contract not in KITS:
        return driver
    spec = driver if isinstance(driver, DriverSpec) else DriverSpec(contract, UNDER_TEST, driver)
    return Guarded(UNDER_TEST, spec, guard.Threads(), lambda plugin, call, error: None, {})


def in_use(driver: Any, name: str, *, remote: bool = False, options: Mapping[str, str] | None = None) -> Subject[Any]:
    """A driver, or a peer, that an engine uses now. It is shared by all checks and never closed."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Any]:
        yield driver

    return Subject(name, opened, fresh=False, remote=remote, restartable=False, options=options or {})
