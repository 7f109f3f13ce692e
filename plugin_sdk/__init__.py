"""All that a plugin author imports.

    from plugin_sdk import Plugin, PluginMeta, hookimpl
    from plugin_sdk.logs import LogDriver, LogEntry

The names here serve every plugin; `plugin_sdk.containers`, `.images`, `.storage`, `.runtime`, `.logs`, `.network`,
`.volumes`, `.api`, `.events` and `.managed` hold the contracts of each subsystem; `plugin_sdk.aio`, `.files`, `.http`,
`.stdcopy`, `.logoptions`, `.gotemplate`, `.text` and `.times` help to fulfil them. `serve` makes a driver a plugin of its own. `docs/plugins/` is the guide.
"""

from pathlib import Path
from typing import Any

from kernel.contracts.common import Holder, IdMap, IdRange, Wire
from kernel.contracts.events import Event, EventBus
from kernel.contracts.plugin import (
    Drivers,
    DriverSpec,
    EngineFacts,
    Hooks,
    HookStats,
    Plugin,
    PluginAdmin,
    PluginContext,
    PluginMeta,
    PluginState,
    PluginStatus,
    SkipPlugin,
    setting,
)
from kernel.contracts.state import Collection, Migration, StateStore
from kernel.errors import (
    Conflict,
    DeadlineExceeded,
    EngineError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    NotSupported,
    PluginError,
    PluginRefusal,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from kernel.hookspecs._markers import SPEC_VERSION, hookimpl

__all__ = [
    "SPEC_VERSION",
    "Collection",
    "Conflict",
    "DeadlineExceeded",
    "DriverSpec",
    "Drivers",
    "EngineError",
    "EngineFacts",
    "Event",
    "EventBus",
    "Forbidden",
    "Holder",
    "HookStats",
    "Hooks",
    "IdMap",
    "IdRange",
    "InvalidParameter",
    "Migration",
    "NotFound",
    "NotModified",
    "NotSupported",
    "Plugin",
    "PluginAdmin",
    "PluginContext",
    "PluginError",
    "PluginMeta",
    "PluginRefusal",
    "PluginState",
    "PluginStatus",
    "SkipPlugin",
    "StateStore",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Wire",
    "hookimpl",
    "serve",
    "setting",
]


def serve(*drivers: Any, socket: str = "", folder: str | Path = "") -> None:
    """Serve drivers as a managed or old-style plugin until SIGTERM. Returns when all is closed.

    Args:
        drivers: objects that fulfil `VolumeDriver`, `NetworkDriver`, `IpamDriver` or `LogDriver`, or extend
            `AuthorizationPlugin` or `MetricsCollector` of `plugin_sdk.serving`; one of each kind at most.
        socket: a file name in /run/docker/plugins, the `interface.socket` of config.json; or a path. Default:
            $ENGINE_PLUGIN_SOCKET, else "plugin.sock".
        folder: where is kept what must outlive the process (networks, addresses, logs). Default: $ENGINE_PLUGIN_FOLDER,
            else /var/lib/plugin. An upgrade of the plugin replaces its root file system: put it on a mount.

    Exits with 1 and a message when the drivers or the socket cannot be.
    """
    from plugin_sdk.serving.server import run

    run(drivers, socket, folder)
