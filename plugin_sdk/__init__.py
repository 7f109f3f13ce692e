"""All that a plugin author imports.

    from plugin_sdk import Plugin, PluginMeta, hookimpl
    from plugin_sdk.logs import LogDriver, LogEntry

The names here serve every plugin; `plugin_sdk.containers`, `.images`, `.storage`, `.runtime`, `.logs`, `.network`,
`.volumes`, `.api`, `.events` and `.managed` hold the contracts of each subsystem; `plugin_sdk.aio`, `.files`, `.http`,
`.stdcopy`, `.text` and `.times` help to fulfil them. `docs/plugins/` is the guide.
"""

from kernel.contracts.common import Holder, Wire
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
    "setting",
]
