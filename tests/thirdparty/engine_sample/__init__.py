"""A plugin for the engine that knows nothing of it but `plugin_sdk`."""
