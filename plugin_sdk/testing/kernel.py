"""A kernel in the test's own process, with chosen plugins: no daemon, no root, no network.

async with running(MyPlugin, folder=tmp_path, settings={"mine": {"colour": "red"}}) as kernel:
    driver = kernel.drivers.get(VolumeDriver, "mine")
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kernel.boot import Kernel
from kernel.config import Config, KernelSettings
from kernel.contracts.plugin import Plugin, PluginState
from kernel.discovery import Found
from kernel.errors import EngineError


@asynccontextmanager
async def running(
    *plugins: type[Plugin], folder: Path, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> AsyncIterator[Kernel]:
    """Start the plugins and restore; stop them at the end. The same folder again is a restart.

    Args:
        folder: data root and exec root lie in it.
        settings: plugin's name to its settings.

    Raises:
        EngineError: a plugin does not run; says why.
    """
    own = KernelSettings(
        data_root=folder / "data",
        exec_root=folder / "run",
        pidfile=folder / "pid",
        plugin_dirs=[str(folder / "plugins")],
    )
    values = {name: dict(table) for name, table in (settings or {}).items()}
    found = [Found(plugin.meta.name, "under-test", "0", plugin) for plugin in plugins]
    thresholds = gc.get_threshold()
    kernel = Kernel(Config(own, values, None, []), found)
    try:
        await kernel.start()
        for status in kernel.plugins.statuses():
            if status.state is not PluginState.ENABLED:
                raise EngineError(f"plugin {status.name!r} does not run: {status.state}: {status.reason}")
        yield kernel
    finally:
        await kernel.stop()
        # A daemon takes what lives at its start out of the collector's sight; a test's process goes on to other things.
        gc.unfreeze()
        gc.set_threshold(*thresholds)
