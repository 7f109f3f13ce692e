"""The microkernel: hooks, plugins, state and events. It knows nothing about containers."""
