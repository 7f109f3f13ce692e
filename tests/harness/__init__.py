"""What the tests against a live engine share: the daemon, a terminal, and the search for leftovers.

`tests/conftest.py` puts the folder above on `sys.path`, so that tests say `from harness import eventually`.
"""

from harness.engine import Client, CommandFailed, Engine, External, Reply
from harness.oldstyle import OldStylePlugin, Raw, Refusal
from harness.registry import Registry, TokenAuth
from plugin_sdk.testing.engine import Terminal, eventually
from plugin_sdk.testing.engine.leftovers import census

__all__ = [
    "Client",
    "CommandFailed",
    "Engine",
    "External",
    "OldStylePlugin",
    "Raw",
    "Refusal",
    "Registry",
    "Reply",
    "Terminal",
    "TokenAuth",
    "census",
    "eventually",
]
