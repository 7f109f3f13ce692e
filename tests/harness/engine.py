"""The throw-away engine of `plugin_sdk.testing`, under the name that our own tests know."""

from plugin_sdk.testing.engine.daemon import PROGRAM, Client, CommandFailed, Engine, External, Reply

__all__ = ["PROGRAM", "Client", "CommandFailed", "Engine", "External", "Reply"]
