"""The search for leftovers of `plugin_sdk.testing`, under the name that our own tests know."""

from plugin_sdk.testing.engine.leftovers import census, clear, find

__all__ = ["census", "clear", "find"]
