"""A real engine to throw away: its daemon, a terminal, a busybox image, and the search for what it left behind."""

from plugin_sdk.testing.engine.daemon import PROGRAM, Client, CommandFailed, Engine, External, Reply
from plugin_sdk.testing.engine.leftovers import census
from plugin_sdk.testing.engine.terminal import Terminal
from plugin_sdk.testing.engine.waiting import eventually

__all__ = ["PROGRAM", "Client", "CommandFailed", "Engine", "External", "Reply", "Terminal", "census", "eventually"]
